"""The commands print and exit the same, on a database and through a controller's API."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from anyio import to_thread
from click.testing import CliRunner, Result

from controller.cli import main
from controller.service import Service
from tests.fakes.api_server import serving

CHAT = '{"name": "chat", "revision": {"external": true, "health_check": {"path": "/health"}}}'


@pytest.fixture
def places(database_url: str) -> Iterator[dict[str, list[str]]]:
    with serving(database_url) as url:
        yield {"database": ["--database", database_url], "api": ["--api", url]}


def typed(*arguments: str, **environment: str) -> Result:
    nothing = dict.fromkeys(("FLEETPULSE_DATABASE_URL", "FLEETPULSE_API_URL"))
    return CliRunner(env={**nothing, **environment}).invoke(main, arguments)


async def elsewhere(*arguments: str) -> Result:
    """Type in a thread: a command runs a loop of its own."""
    return await to_thread.run_sync(partial(typed, *arguments))


async def both(places: dict[str, list[str]], *arguments: str) -> Result:
    """Type a question at both places; return the answer, which must be the same."""
    one, other = [await elsewhere(*arguments, *where) for where in places.values()]
    assert (one.exit_code, one.stdout, one.stderr) == (other.exit_code, other.stdout, other.stderr)
    return one


async def test_every_question_has_one_answer_wherever_it_is_asked(
    places: dict[str, list[str]], service: Service, tmp_path: Path
) -> None:
    """R-09"""
    file = tmp_path / "chat.json"
    file.write_text(CHAT)
    verbs: list[tuple[str, ...]] = [
        ("deployment", "apply", "-f", str(file), "--reason", "first"),
        ("revision", "add", "chat", "-f", str(file)),
        ("deployment", "scale", "chat", "2"),
        ("route", "register", "chat", "--host", "10.0.0.7", "--port", "8000"),
    ]
    for arguments in verbs:
        done = await elsewhere(*arguments, *places["api"])
        assert done.exit_code == 0, done.output
    audit = [(entry.verb, entry.actor, entry.reason) for entry in await service.list_audit()]
    assert audit[-1] == ("apply", "operator", "first")
    assert [verb for verb, _, _ in audit] == ["register", "scale", "add_revision", "apply"]
    questions: list[tuple[str, ...]] = [
        ("deployment", "list"),
        ("deployment", "list", "--json"),
        ("deployment", "show", "chat"),
        ("deployment", "show", "chat", "--json"),
        ("revision", "list", "chat"),
        ("route", "list"),
        ("route", "list", "chat", "--json"),
    ]
    for arguments in questions:
        assert (await both(places, *arguments)).exit_code == 0
    route = json.loads((await elsewhere("route", "list", "--json", *places["api"])).stdout)
    assert route["address"] == "10.0.0.7:8000"
    told = await elsewhere("explain", "chat", *places["api"])
    assert (told.exit_code, "chat" in told.stdout.splitlines()[0]) == (0, True)
    refusals: list[tuple[tuple[str, ...], str]] = [
        (("deployment", "show", "nope"), "there is no deployment 'nope'"),
        (("rollout", "start", "chat", "9"), "has no revision 9"),
        (("rollout", "start", "chat", "1"), "is being rolled out already"),
        (("route", "list", "nope"), "there is no deployment 'nope'"),
    ]
    for arguments, says in refusals:
        refused = await both(places, *arguments)
        assert refused.exit_code == 1, refused.output
        assert says in refused.stderr


def test_an_api_that_is_not_there_is_exit_code_3() -> None:
    refused = typed("deployment", "list", "--api", "http://127.0.0.1:1")
    assert refused.exit_code == 3
    assert "the API at http://127.0.0.1:1" in refused.stderr
    assert "is this its address?" in refused.stderr


def test_what_is_typed_goes_before_the_environment(tmp_path: Path) -> None:
    api = {"FLEETPULSE_API_URL": "http://127.0.0.1:1"}
    database = {"FLEETPULSE_DATABASE_URL": f"sqlite:///{tmp_path}/none.db"}
    assert "the API at" in typed("route", "list", **api, **database).stderr
    away = typed("route", "list", "--database", f"{tmp_path}/typed.db", **api)
    assert (away.exit_code, "typed.db" in away.stderr) == (3, True)
    both_typed = typed("route", "list", "--database", "x", "--api", "http://127.0.0.1:1")
    assert (both_typed.exit_code, "two places" in both_typed.stderr) == (2, True)
    neither = typed("route", "list")
    assert (neither.exit_code, "or name a controller with --api" in neither.stderr) == (2, True)


@pytest.mark.parametrize("where", [("--api", "http://127.0.0.1:1"), ("--database", "none.db")])
@pytest.mark.parametrize(
    "verb",
    [("deployment", "show", "\udcff"), ("explain", "\udcff"), ("route", "drain", "\udcff")],
)
def test_what_is_not_utf8_is_one_sentence(
    tmp_path: Path, where: tuple[str, str], verb: tuple[str, ...]
) -> None:
    """As a terminal of another encoding sends it."""
    kind, place = where
    if kind == "--database":
        place = f"sqlite:///{tmp_path}/{place}"
        assert typed("db", "upgrade", kind, place).exit_code == 0
    refused = typed(*verb, kind, place)
    assert (refused.exit_code, refused.exception.__class__) == (2, SystemExit), refused.exception
    assert refused.stderr == "fleetpulse: '\\udcff' is not UTF-8: write it in letters that are\n"


def test_explain_is_not_asked_at_two_places() -> None:
    for other in ("--database", "--config", "--redis"):
        asked = typed("explain", "x", "--api", "http://127.0.0.1:1", other, "y")
        assert (asked.exit_code, "two places" in asked.stderr) == (2, True), asked.stderr
