"""Following a rollout: what is said, once, and how it ends, also when nobody answers."""

import json
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from controller.cli import watch
from controller.cli.place import Place
from controller.errors import ApiUnreachable, ControllerError, NotFound
from controller.model import Outcome, Policy
from controller.rollout import machine
from controller.rollout.outlook import nobody
from controller.rollout.progress import Progress, in_flight
from tests.fakes.rollouts import go_on
from tests.fakes.small_world import SmallWorld

POLICY = Policy(surge=1, unavailable=0, rollout_timeout_s=600)
AWAY = ApiUnreachable("the API at https://controller:9156 does not answer")


def seen(cycles: int) -> Progress:
    world = SmallWorld(3, POLICY)
    go_on(world, cycles)
    cycle = machine.look(world.deployment, world.live, world.now_ms, failed=0, fresh=nobody())
    assert cycle is not None
    return in_flight(cycle, state=f"deploying/{world.deployment.sub_step}")


def ended(outcome: Outcome) -> Progress:
    progress = seen(3)
    ended_at_ms = progress.started_at_ms + 90_000
    return replace(progress, outcome=outcome, ended_at_ms=ended_at_ms, message="so it was")


class Answers:
    """The verbs, as far as somebody who watches asks: one answer after the other."""

    def __init__(self, *answers: Progress | ControllerError) -> None:
        self._answers: Iterator[Progress | ControllerError] = iter(answers)

    async def rollout_progress(self, name: str) -> Progress:
        assert name == "demo"
        answer = next(self._answers)
        if isinstance(answer, ControllerError):
            raise answer
        return answer


class There(Place):
    """Where those answers come from."""

    answers: Answers

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        object.__setattr__(self, "answers", answers)

    @asynccontextmanager
    async def verbs(self) -> Any:  # noqa: ANN401 - an iterator over a stand-in
        yield self.answers


def watched(monkeypatch: pytest.MonkeyPatch, *answers: Any, as_json: bool = False) -> Result:  # noqa: ANN401
    monkeypatch.setattr(watch, "WATCH_S", 0.0)

    @click.command()
    def command() -> None:
        watch.follow("demo", There(Answers(*answers)), as_json=as_json)

    return CliRunner().invoke(command)


def test_each_change_is_a_line_and_the_outcome_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    first, then = seen(1), seen(5)
    ran = watched(monkeypatch, first, first, then, then, ended(Outcome.PROMOTED))
    assert ran.exit_code == 0
    assert [row.partition(", ")[0] for row in ran.stderr.splitlines()] == [
        "demo: provisioning",
        "demo: progressing",
    ]
    assert "outcome  promoted\nseconds  90.0\nmessage  so it was\n" in ran.stdout


@pytest.mark.parametrize("outcome", [one for one in Outcome if one is not Outcome.PROMOTED])
def test_anything_but_promoted_is_bad(monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    assert watched(monkeypatch, seen(1), ended(outcome)).exit_code == 1


def test_who_is_away_for_a_while_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = watched(monkeypatch, seen(1), AWAY, AWAY, seen(5), ended(Outcome.PROMOTED))
    assert ran.exit_code == 0
    assert [row.split(",")[0] for row in ran.stderr.splitlines()] == [
        "demo: provisioning",
        f"waiting: {AWAY}",
        "demo: progressing",
    ]


def test_who_is_away_from_the_start_is_a_mistyped_address(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = watched(monkeypatch, AWAY)
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert ran.stderr == f"fleetpulse: {AWAY}\n"


def test_a_deployment_that_goes_with_its_first_rollout_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = watched(monkeypatch, seen(1), NotFound("there is no deployment 'demo'"))
    assert ran.exit_code == 1
    assert "demo went away with its rollout" in ran.stderr


def test_as_json_each_change_is_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    first = seen(1)
    later = replace(first, now_ms=first.now_ms + 500)
    answers = (first, later, AWAY, later, seen(5), ended(Outcome.PROMOTED))
    ran = watched(monkeypatch, *answers, as_json=True)
    begun, moved, last = map(json.loads, ran.stdout.splitlines())
    assert (begun["state"], moved["state"]) == ("deploying/provisioning", "deploying/progressing")
    assert begun["limits"]["floor"] == 3
    assert begun["outlook"]["rule"]
    assert last["outcome"] == "promoted"
    assert ran.stderr == f"waiting: {AWAY}\n"
