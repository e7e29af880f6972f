"""Revisions on the command line: a variant, a model's file, and what came of them."""

import json
import os
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from click.testing import CliRunner, Result

from controller.cli import main
from controller.cli.folders import VARIABLE
from controller.db import migrate
from tests.architecture.tree import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> None:
    """A command reads its files inside its loop: nobody else waits there."""


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "fleet.db"
    anyio.run(migrate.upgrade, str(path))
    return f"--database={path}"


def typed(*words: str, given: str | None = None, switched_on: bool = False) -> Result:
    env: dict[str, str | None] = {name: None for name in os.environ if "FLEETPULSE_" in name}
    env[VARIABLE] = "true" if switched_on else None
    return CliRunner().invoke(main, words, input=given, env=env, prog_name="fleetpulse")


def objects(ran: Result) -> Any:  # noqa: ANN401 - JSON
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def test_the_example_is_applied_shown_and_repeatable(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    apply = ("deployment", "apply", "-f", str(EXAMPLES / "chat.toml"), database, "--json")
    changes = [objects(typed(*apply, switched_on=True))["changes"] for _ in range(2)]
    assert changes == [["created", "added revision 1", "activated revision 1"], []]

    shown = objects(typed("revision", "show", "chat", "1", database, "--json"))
    check = shown["definition"]["models"][0]["service"]["health_check"]
    assert (shown["spec"]["command"][2], shown["spec"]["port"]) == ("/models/chat-8b", 8000)
    assert (check["interval"], check["max_retries"], check["max_wait_time"]) == (5, 3, 15)
    assert shown["spec"]["health_check"]["expected_status_code"] == "200,202-204"
    place = "models[0].service.health_check."
    sources = shown["definition"]["sources"]
    assert [sources[place + name] for name in ("interval", "max_retries")] == ["file", "override"]

    ran = typed("revision", "show", "chat", "1", database)
    assert ran.exit_code == 0
    lines = [" ".join(line.split()) for line in ran.stdout.splitlines()]
    assert "command vllm serve /models/chat-8b --max-model-len 8192" in lines
    assert f"{place}interval file 5.0" in lines
    assert "models[0].service.port variant 8000" in lines
    assert "models[0].model_path revision /models/chat-8b" in lines


def test_the_file_goes_over_the_variant_only_when_switched_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R-60"""
    monkeypatch.chdir(ROOT)
    ask = ("revision", "resolve", "-f", str(EXAMPLES / "chat.toml"), "--json")
    off, on = objects(typed(*ask)), objects(typed(*ask, switched_on=True))
    delays = [each["spec"]["health_check"]["initial_delay_s"] for each in (off, on)]
    assert delays == [1800, 600]
    monkeypatch.setenv(VARIABLE, "perhaps")
    ran = CliRunner().invoke(main, ask, prog_name="fleetpulse")
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr == f"fleetpulse: {VARIABLE} = 'perhaps': write true or false\n"


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        ({"variant": "vlm"}, "revision.variant: there is no 'vlm'; known: vllm, sglang, nim, hug"),
        ({"variant": "custom", "model_folder": "gone"}, "gone cannot be used: No such file or di"),
        (
            {"variant": "vllm", "command": ["serve"]},
            "revision.command: the variant 'vllm' brings it; write definition.models[0].service.st",
        ),
        (
            {"model_path": "/m"},
            "revision.model_path: it says nothing without a variant; add one, such as variant = ",
        ),
        (
            {"variant": "vllm", "definition": {"models": [{"service": {"prot": 1}}]}},
            "the override: revision.definition.models[0].service: unknown key 'prot'; did you mean",
        ),
        (
            {"variant": "nim", "definition": {"models": [{"service": None}]}},
            "the override: models[0].service: no model has one, so nothing can run; write it",
        ),
    ],
)
def test_what_cannot_be_is_one_line_with_exit_code_2(
    revision: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-24, R-25."""
    monkeypatch.chdir(tmp_path)
    document = msgspec.json.encode({"name": "chat", "revision": revision}).decode()
    ran = typed("revision", "resolve", "-f", "-", given=document)
    assert (ran.exit_code, ran.stdout) == (2, ""), ran.output
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_plain_revision_is_shown_without_a_definition(database: str) -> None:
    document = '{"name": "chat", "revision": {"command": ["serve", "a model"]}}'
    typed("deployment", "apply", "-f", "-", database, given=document)
    shown = objects(typed("revision", "show", "chat", "1", database, "--json"))
    assert (shown["definition"], shown["spec"]["command"]) == (None, ["serve", "a model"])
    ran = typed("revision", "show", "chat", "1", database)
    assert "command       serve 'a model'\n" in ran.stdout
    assert "PLACE" not in ran.stdout
    ran = typed("revision", "show", "chat", "9", database)
    assert (ran.exit_code, ran.stderr) == (
        1,
        "fleetpulse: deployment 'chat' has no revision 9; it has 1\n",
    )


def test_the_switch_is_told_as_the_breaking_change_it_is() -> None:
    """R-60: the kind of the entry is that of the change."""
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = log.split("### Changed")[1].split("\n###")[0].split("\n- ")
    (told,) = [entry for entry in entries if "`enable_model_definition_override`" in entry]
    assert told.startswith("**Breaking where you switch it on: ")
    assert "off by default" in told
