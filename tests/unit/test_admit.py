"""Which targets a prober can check, and what it makes of them before the first probe."""

import ssl
from typing import Any

import pytest

from probe.admit import AGENT, admit
from probe.check import StatusJudge, redacted
from probe.errors import MalformedEntry, UnsupportedCheck
from probe.http.place import Place, UnixPath
from probe.http.policy import ConnectPolicy
from probe.http.response import Reply
from probe.http.tls import TlsPlan
from probe.profiles import PROFILES
from probe.references import Secret
from probe.settings import PRIVATE_RANGES
from probe.wire import (
    HttpCheck,
    JsonExpectation,
    ReplicaId,
    ReplicaProbeTarget,
    TlsOptions,
)

POLICY = ConnectPolicy.of(PRIVATE_RANGES)


def target(**fields: Any) -> ReplicaProbeTarget:  # noqa: ANN401 - any field of the contract
    given: dict[str, Any] = {
        "replica_host": "10.0.0.1",
        "inference_port": 8000,
        "health_path": "/health",
    }
    replica_id = ReplicaId("00000000-0000-4000-8000-000000000000")
    return ReplicaProbeTarget(replica_id=replica_id, **given | fields)


class Keeper:
    """Has secrets and TLS for every asker."""

    def value(self, reference: str, /) -> Secret:
        if reference == "env:MISSING":
            raise UnsupportedCheck("env:MISSING is not set")
        return Secret(f"Bearer sk-of-{reference}")

    def plan(self, _options: TlsOptions, host: Place, /, *, http2: bool) -> TlsPlan:
        return TlsPlan(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), f"{host} {http2}")


def test_admitted_target_is_ready_to_be_asked() -> None:
    prepared = admit(target(), POLICY)
    assert (str(prepared.place), prepared.port, prepared.steps[0].head_only) == (
        "10.0.0.1",
        8000,
        False,
    )
    assert prepared.refusal is None
    assert prepared.steps[0].request.startswith(b"GET /health HTTP/1.1\r\nHost: 10.0.0.1:8000\r\n")
    assert f"User-Agent: {AGENT}\r\n".encode() in prepared.steps[0].request


def test_admitted_target_may_name_its_host_and_method() -> None:
    prepared = admit(target(host_header="llm.example", method="HEAD"), POLICY)
    assert prepared.steps[0].head_only
    assert prepared.steps[0].request.startswith(b"HEAD /health HTTP/1.1\r\nHost: llm.example\r\n")


def test_ipv6_is_dialled_in_canonical_form() -> None:
    prepared = admit(target(replica_host="FD00:0::1"), POLICY)
    assert str(prepared.place) == "fd00::1"
    assert b"Host: [fd00::1]:8000\r\n" in prepared.steps[0].request


def test_address_outside_the_policy_is_kept_with_its_refusal() -> None:
    prepared = admit(target(replica_host="127.0.0.1"), POLICY)
    assert prepared.refusal is not None
    assert "--allow 127.0.0.1" in prepared.refusal


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"checks": "vlm"}, "checks: 'vlm' is not known, did you mean 'vllm'?; there are http, "),
        ({"checks": ("http", "grpc")}, "checks: 'grpc' is not known"),
        ({"checks": ()}, "checks: the list is empty"),
        ({"checks": "\x1b[31m"}, r"checks: '\x1b[31m'"),
        ({"checks": "x" * 100_000}, "is not known"),
        ({"scheme": "https"}, "scheme: 'https' cannot be spoken: this prober has no TLS"),
        ({"tls": TlsOptions()}, "tls: is set, but scheme is 'http'"),
        ({"headers": {"X-Key": "env:TOKEN"}}, "headers: 'X-Key' cannot be sent"),
        ({"replica_host": "replica_1.internal"}, "is not a host name"),
        ({"replica_host": "127.1"}, "'127.1' is not a canonical IP address"),
    ],
)
def test_target_beyond_this_prober_is_refused_by_the_name_of_the_field(
    fields: dict[str, Any], names: str
) -> None:
    with pytest.raises(UnsupportedCheck) as refused:
        admit(target(**fields), POLICY)
    assert names in str(refused.value)
    assert "\x1b" not in str(refused.value)


def test_checks_may_be_a_list_of_the_one_we_have() -> None:
    assert admit(target(checks=("http",)), POLICY).port == 8000


def test_target_that_cannot_be_sent_is_malformed() -> None:
    with pytest.raises(MalformedEntry, match="path"):
        admit(target(health_path="/a\r\nX: y"), POLICY)


def test_secret_is_sent_and_never_shown() -> None:
    asked = target(headers={"Authorization": "env:KEY"}, checks=(HttpCheck(body_contains="ready"),))
    prepared = admit(asked, POLICY, secrets=Keeper())
    (step,) = prepared.steps
    assert b"\r\nAuthorization: Bearer sk-of-env:KEY\r\n" in step.request
    assert "sk-of" not in repr(prepared)
    echo = Reply(200, reusable=True, body=b"you sent Bearer sk-of-env:KEY")
    outcome = StatusJudge(POLICY).replied(step, echo, connect_s=0.0, first_byte_s=0.0, total_s=0.0)
    assert outcome.detail.endswith("29 bytes beginning 'you sent ***'")


def test_secret_that_is_not_there_refuses_its_target_by_the_headers_name() -> None:
    asked = target(headers={"Authorization": "env:MISSING"})
    with pytest.raises(UnsupportedCheck, match="headers: Authorization: env:MISSING is not set"):
        admit(asked, POLICY, secrets=Keeper())


@pytest.mark.parametrize(
    ("text", "secret", "shown"),
    [
        ("nothing of it", "sk-12345678", "nothing of it"),
        ("sk-12345678", "sk-12345678", "***"),
        ("cut: sk-12345", "sk-12345678", "cut: ***"),
        ("short sk-1234", "sk-12345678", "short sk-1234"),
        ("a pin is 1234.", "1234", "a pin is ***."),
        (r"it's \'aaaa\\bbbb\'", r"aaaa\bbbb", r"it's \'***\'"),
        ("abcdefghabcdefgh", "abcdefgh", "***"),
    ],
)
def test_every_telling_part_of_a_secret_is_hidden(text: str, secret: str, shown: str) -> None:
    assert redacted(text, (secret,)) == shown


def test_https_has_its_plan_and_the_default_port_of_its_scheme() -> None:
    asked = target(scheme="https", inference_port=443, http2=True)
    prepared = admit(asked, POLICY, tls=Keeper())
    assert prepared.tls is not None
    assert prepared.tls.server_name == "10.0.0.1 True"
    assert prepared.detour
    assert prepared.steps[0].headers[0] == ("Host", "10.0.0.1")


def test_socket_of_this_host_is_asked_as_localhost() -> None:
    prepared = admit(target(replica_host="unix:/run/a.sock"), POLICY)
    assert prepared.place == UnixPath("/run/a.sock")
    assert prepared.steps[0].headers[0] == ("Host", "localhost")


def test_list_of_checks_becomes_steps_in_order() -> None:
    one = HttpCheck(path="/deep", method="OPTIONS", expected_status="204")
    steps = admit(target(checks=("tcp", "nim", one, "http"), method="HEAD"), POLICY).steps
    assert [(s.method, s.path, s.expected.text, s.head_only) for s in steps] == [
        ("GET", "/v1/health/ready", "200-299", False),
        ("OPTIONS", "/deep", "204", False),
        ("HEAD", "/health", "200-299", True),
    ]


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_each_profile_is_admitted_and_says_what_it_is(name: str) -> None:
    profile = PROFILES[name]
    steps = admit(target(health_path="/own", checks=name), POLICY).steps
    asked = [check for check in profile.checks if isinstance(check, HttpCheck)]
    assert [step.path for step in steps] == [check.path or "/own" for check in asked]
    assert profile.sentence
    assert bool(profile.source) != (name in {"http", "tcp", "custom"})


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        (("http",) * 9, "9 requests a probe; ask for at most 8"),
        ((HttpCheck(method="HEAD", body_contains="x"),), "the reply to a HEAD has no body"),
        ((HttpCheck(identity=True),), "identity needs {replica_id}"),
        ((HttpCheck(json=(JsonExpectation(path="a..b"),)),), "'a..b' cannot be followed"),
        ((HttpCheck(expected_status="2xx"),), "expected_status '2xx'"),
    ],
)
def test_check_that_contradicts_itself_is_malformed(checks: Any, said: str) -> None:  # noqa: ANN401
    with pytest.raises(MalformedEntry) as refused:
        admit(target(checks=checks), POLICY)
    assert said in str(refused.value)
