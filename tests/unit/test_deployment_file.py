"""What a person writes down, and what is said about what cannot be."""

import json

import msgspec
import pytest

from controller.definition.deployment_file import DeploymentFile, Syntax, parse, syntax_of
from controller.definition.request import RevisionRequest
from controller.errors import InvalidInput
from controller.model import Health, HealthCheck, Policy

TOML = """
name = "llama"
replicas = 4
cleanup_target_statuses = ["unhealthy", "degraded"]
auto_activate = false

[policy]
surge = "25%"
unavailable = 1
min_ready_s = 5
max_failed_replicas = 2
rollout_timeout_s = 600

[revision]
command = ["serve", "--port", "8000"]
port = 8000

[revision.environment]
SIM_LOAD_S = "3"

[revision.health_check]
path = "health"
interval_s = 1
max_wait_time_s = 2
expected_status_code = "200-204"
max_retries = 3
healthy_threshold = 2
initial_delay_s = 30
"""

YAML = """
name: llama
replicas: 4
cleanup_target_statuses: [unhealthy, degraded]
auto_activate: false
policy: {surge: 25%, unavailable: 1, min_ready_s: 5, max_failed_replicas: 2, rollout_timeout_s: 600}
revision:
  command: [serve, --port, "8000"]
  port: 8000
  environment: {SIM_LOAD_S: "3"}
  health_check:
    path: health
    interval_s: 1
    max_wait_time_s: 2
    expected_status_code: 200-204
    max_retries: 3
    healthy_threshold: 2
    initial_delay_s: 30
"""

LLAMA = DeploymentFile(
    name="llama",
    replicas=4,
    policy=Policy(
        surge="25%", unavailable=1, min_ready_s=5, max_failed_replicas=2, rollout_timeout_s=600
    ),
    cleanup_target_statuses=(Health.UNHEALTHY, Health.DEGRADED),
    auto_activate=False,
    revision=RevisionRequest(
        command=("serve", "--port", "8000"),
        port=8000,
        environment={"SIM_LOAD_S": "3"},
        health_check=HealthCheck(
            path="/health",
            interval_s=1,
            max_wait_time_s=2,
            expected_status_code="200-204",
            max_retries=3,
            healthy_threshold=2,
            initial_delay_s=30,
        ),
    ),
)
"""R-56: a distinct value in each field; the path has got its slash."""


def refusal(text: str, syntax: Syntax = Syntax.TOML) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse(text, syntax=syntax)
    return str(caught.value)


def toml(*, top: str = "", policy: str = "", revision: str = "", check: str = "") -> str:
    parts = [f'name = "a"\n{top}', f"[policy]\n{policy}", f"[revision]\n{revision}"]
    if check:
        parts.append(f"[revision.health_check]\n{check}")
    return "\n".join(parts)


@pytest.mark.parametrize(
    ("text", "syntax"),
    [
        (TOML, Syntax.TOML),
        (YAML, Syntax.YAML),
        (json.dumps({"name": "a", "revision": {}}), Syntax.JSON),
    ],
    ids=["toml", "yaml", "json"],
)
def test_every_syntax_says_the_same(text: str, syntax: Syntax) -> None:
    found = parse(text, syntax=syntax)
    assert found == (
        LLAMA if syntax is not Syntax.JSON else DeploymentFile(name="a", revision=RevisionRequest())
    )


def test_a_revision_by_variant_is_the_same_after_it_was_sent() -> None:
    """R-59: absent stays absent and null stays null on the way to another program."""
    said = {"service": {"port": 7001, "health_check": None}}
    revision = {"variant": "nim", "model_path": "/m", "definition": {"models": [said]}}
    found = parse(json.dumps({"name": "a", "revision": revision}), syntax=Syntax.JSON)
    assert parse(msgspec.json.encode(found).decode(), syntax=Syntax.JSON) == found
    override = found.revision.definition
    assert msgspec.to_builtins(override) == {"models": ({"service": said["service"]},)}


@pytest.mark.parametrize(
    ("written", "text"),
    [("204", "204"), ('"200-299,304"', "200-299,304"), ('[200, "301-303"]', "200,301-303")],
)
def test_status_codes_are_a_code_a_range_or_a_set(written: str, text: str) -> None:
    found = parse(toml(check=f'path = "/"\nexpected_status_code = {written}'), syntax=Syntax.TOML)
    check = found.revision.health_check
    assert check is not None
    assert check.expected_status_code == text


def test_what_is_not_written_has_the_defaults() -> None:
    found = parse(toml(check='path = "/"'), syntax=Syntax.TOML)
    assert found.replicas == 1
    assert found.auto_activate
    assert found.cleanup_target_statuses == (Health.UNHEALTHY,)
    assert (found.policy.surge, found.policy.unavailable) == ("50%", 0)
    check = found.revision.health_check
    assert check is not None
    assert (check.interval_s, check.max_wait_time_s, check.max_retries) == (10, 15, 10)
    assert (check.initial_delay_s, check.healthy_threshold) == (60, 1)


@pytest.mark.parametrize(
    ("filename", "syntax"),
    [
        ("a.toml", Syntax.TOML),
        ("dir.json/b.YAML", Syntax.YAML),
        ("c.yml", Syntax.YAML),
        ("d.json", Syntax.JSON),
    ],
)
def test_the_name_of_a_file_tells_its_syntax(filename: str, syntax: Syntax) -> None:
    assert syntax_of(filename) is syntax


@pytest.mark.parametrize("filename", ["deployment", "deployment.txt", ".toml", ""])
def test_a_name_that_tells_nothing_is_refused(filename: str) -> None:
    with pytest.raises(InvalidInput, match=r"name it \.toml, \.yaml or \.json"):
        syntax_of(filename)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (toml(top="replica = 3"), "the deployment file: unknown key 'replica'; did you mean 're"),
        (toml(policy="max_surge = 1"), "policy: unknown key 'max_surge'; did you mean 'surge'?"),
        (
            toml(check='path = "/"\nintervall_s = 3'),
            "revision.health_check: unknown key 'intervall_s'; did you mean 'interval_s'?",
        ),
        (
            toml(revision="zzz = 1"),
            "revision: unknown key 'zzz'; known are command, image, environment, port,",
        ),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest_known_one(text: str, said: str) -> None:
    """R-25."""
    assert refusal(text).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (toml(top='replicas = "3"'), "replicas: expected int, got str, found '3'"),
        (toml(top="replicas = -1"), "replicas: expected int >= 0, found -1"),
        (toml(top="replicas = 10001"), "replicas: expected int <= 10000, found 10001"),
        (
            toml(policy='surge = "many"'),
            "policy.surge: not allowed, found 'many'; write a count such as 2, or a percentage ",
        ),
        (toml(policy="unavailable = 0.5"), "policy.unavailable: expected int | str, got float"),
        (toml(policy="rollout_timeout_s = inf"), "policy.rollout_timeout_s: inf is more than"),
        (toml(policy="rollout_timeout_s = nan"), "policy.rollout_timeout_s: expected float > 0"),
        (
            toml(policy="min_ready_s = 60\nrollout_timeout_s = 60"),
            "policy.min_ready_s: 60 is not below rollout_timeout_s 60, so no rollout could end",
        ),
        (
            toml(top='cleanup_target_statuses = ["sick"]'),
            "cleanup_target_statuses[0]: there is no 'sick'; known: not_checked, unhealthy, degr",
        ),
        (toml(top='cleanup_target_statuses = ["healthy"]'), "cleanup_target_statuses: 'healthy'"),
        (
            toml(revision='command = ["serve", "a\\u0000b"]'),
            "revision.command[1]: 'a\\x00b' holds a NUL, which no program can be given",
        ),
        (
            toml(revision='environment = {"A=B" = "x"}'),
            "revision.environment: 'A=B' is no name of a variable; write one without =",
        ),
        (toml(revision='environment = {"" = "x"}'), "revision.environment: '' is no name"),
        (
            toml(revision='environment = {SECRET = "a\\u0000b"}'),
            "revision.environment.SECRET: it holds a NUL, which no program can be given",
        ),
        (
            toml(revision='command = "serve"'),
            "revision.command: expected array, got str, found 'serve'; write a list such as",
        ),
        (
            toml(revision="environment = {A = 3}"),
            "revision.environment[...]: expected str, got int; values are text: write them in q",
        ),
        (toml(revision="port = 70000"), "revision.port: expected int <= 65535, found 70000"),
        (toml(check="interval_s = 3"), "revision.health_check: the key 'path' is missing; add it"),
        (
            toml(check='path = "/"\ninterval_s = 1201'),
            "revision.health_check.interval_s: expected float <= 1200.0, found 1201",
        ),
        (
            toml(check='path = "/a b"'),
            "revision.health_check.path: '/a b' must be printable ASCII without spaces",
        ),
        (
            toml(check='path = "/"\nexpected_status_code = "2xx"'),
            "revision.health_check.expected_status_code: '2xx': '2xx' is neither",
        ),
        ("revision = {}", "the deployment file: the key 'name' is missing; add it"),
        (
            'name = "My App"\n[revision]',
            "name: not allowed, found 'My App'; write up to 63 lower-case letters, digits and",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_place_value_and_remedy(text: str, said: str) -> None:
    """R-25."""
    assert refusal(text).startswith(said)


@pytest.mark.parametrize(
    ("text", "syntax", "said"),
    [
        ("[[", Syntax.TOML, "the deployment file is not TOML: "),
        ("a: [", Syntax.YAML, "the deployment file is not YAML: "),
        ("? {a: b}\n: c", Syntax.YAML, "the deployment file: line 1: a key must be text"),
        ("!!python/object:os.system {}", Syntax.YAML, "the deployment file is not YAML: "),
        ("{", Syntax.JSON, "the deployment file is not JSON: "),
        ("[" * 100_000, Syntax.JSON, "the deployment file is not JSON: "),
        ("[" * 2_000, Syntax.YAML, "the deployment file is not YAML: "),
        ("", Syntax.YAML, "the deployment file: expected object, got null"),
        ("&a [*a]", Syntax.YAML, "the deployment file: expected object, got array"),
        ("x" * 1_048_577, Syntax.YAML, "the deployment file has 1048577 characters; at most 1048"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_file_that_is_none_is_refused_in_one_sentence(
    text: str, syntax: Syntax, said: str
) -> None:
    """R-25."""
    found = refusal(text, syntax)
    assert found.startswith(said)
    assert "\n" not in found
