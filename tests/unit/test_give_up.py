"""Rollouts whose decisions fail again and again: given up, whatever makes them fail."""

from dataclasses import replace

import msgspec
import pytest
import structlog.testing

from controller.db.repository import Repository
from controller.db.rollouts import rollouts_of
from controller.model import (
    Decision,
    Deployment,
    DeploymentChange,
    Lifecycle,
    Outcome,
    Policy,
    SubStep,
)
from controller.reconcile.deployments import Deploying
from controller.rollout.counting import Bounds
from controller.rollout.cycle import Cycle, never_still
from controller.rollout.give_up import ATTEMPTS_MAX, give_up
from controller.rollout.machine import look
from controller.rollout.outlook import outlook
from controller.rollout.rolling import ROLLING
from controller.rollout.rules import WAIT
from controller.rollout.strategies import STRATEGIES
from controller.rollout.table import Rule, Strategy
from controller.service import Service
from tests.fakes.database import SPEC, new_routes, only
from tests.fakes.nouns import NOW_MS, a_rollout, deploying, fleet, fresh_ids
from tests.fakes.reconcile import ALWAYS, EachRoute, Ticks, nothing

POLICY = Policy(surge=1, rollout_timeout_s=600)


def decide(
    deployment: Deployment, *, attempts: int = ATTEMPTS_MAX, after_s: int = 10, held: bool = False
) -> Decision | None:
    return give_up(
        deployment,
        NOW_MS + after_s * 1000,
        attempts=attempts,
        error="KeyError: 'x'",
        held=held,
        still=never_still,
    )


def moved(decision: Decision | None) -> DeploymentChange:
    assert decision is not None
    assert decision.change is not None
    assert decision.change.rule == "give_up"
    return decision.change


@pytest.mark.parametrize("attempts", [1, ATTEMPTS_MAX - 1])
def test_a_few_failures_are_tried_again(attempts: int) -> None:
    """R-12"""
    assert decide(deploying(policy=POLICY), attempts=attempts) is None


def test_too_many_failures_in_a_row_turn_back() -> None:
    """R-12"""
    change = moved(decide(deploying(policy=POLICY)))
    assert (change.sub_step, change.error_code) == (SubStep.ROLLING_BACK, "ROLLED_BACK")
    assert change.message == (
        "rolling update given up: the last 10 decisions failed, with KeyError: 'x'; "
        "rolling back to revision 1"
    )


def test_one_failure_after_the_deadline_turns_back_as_expired() -> None:
    """I6, R-16: a rollout that fails ends no later than one that waits."""
    change = moved(decide(deploying(policy=POLICY), attempts=1, after_s=600))
    assert (change.sub_step, change.error_code) == (SubStep.ROLLING_BACK, "EXPIRED")
    assert "the last decision failed, with KeyError" in change.message


@pytest.mark.parametrize("after_s", [10, 9999])
def test_nothing_is_given_up_under_hold_or_while_paused(after_s: int) -> None:
    """S15"""
    assert decide(deploying(policy=POLICY), after_s=after_s, held=True) is None
    paused = deploying(policy=POLICY, rollout=a_rollout(POLICY, paused_at_ms=NOW_MS))
    assert decide(paused, after_s=after_s) is None


@pytest.mark.parametrize("recorded", [None, Outcome.ABORTED])
def test_a_rollback_that_fails_too_ends_as_it_is(recorded: Outcome | None) -> None:
    rollout = a_rollout(POLICY, outcome=recorded)
    back = deploying(policy=POLICY, sub_step=SubStep.ROLLING_BACK, rollout=rollout)
    assert decide(back, attempts=ATTEMPTS_MAX - 1) is None
    change = moved(decide(back))
    assert (change.lifecycle, change.end_rollout) == (Lifecycle.READY, recorded or Outcome.FAILED)
    assert change.message.endswith("; what is left of it leaves by orphan eviction")


def test_the_first_revision_that_fails_so_destroys() -> None:
    """R-39"""
    change = moved(decide(deploying(policy=POLICY, current=None)))
    assert (change.lifecycle, change.end_rollout) == (Lifecycle.DESTROYING, Outcome.FAILED)


class Bug:
    """A rule that fails while it is told to."""

    def __init__(self) -> None:
        self.there = True

    def when(self, _: Cycle) -> bool:
        """Fail, or do not apply."""
        if self.there:
            raise ZeroDivisionError("a bug")
        return False

    def within(self, *names: str) -> Strategy:
        """Build the rolling strategy with it: on the way forward, back, or both."""
        rule = Rule(name="bug", says="fails", when=self.when, then=WAIT.then)
        return replace(ROLLING, **dict.fromkeys(names, (rule, WAIT)))  # type: ignore[arg-type]  # lists of rules


@pytest.fixture
async def moving(
    service: Service, repository: Repository, deployment: Deployment, epoch: int
) -> Deployment:
    """A deployment of no replicas, whose revision 1 serves, in a rollout to revision 2."""
    served = DeploymentChange(
        category="test", message="", lifecycle=Lifecycle.READY, end_rollout=Outcome.PROMOTED
    )
    await repository.commit(Decision(deployment=deployment, change=served), epoch=epoch)
    await service.scale("demo", 0)
    other = msgspec.structs.replace(SPEC, image="other")
    await service.add_revision("demo", other, auto_activate=True)
    return await only(repository)


@pytest.mark.parametrize(
    ("broken", "outcome", "needed"),
    [
        (("forward",), Outcome.ROLLED_BACK, ATTEMPTS_MAX + 1),
        (("forward", "back"), Outcome.FAILED, 2 * ATTEMPTS_MAX),
    ],
)
async def test_a_strategy_with_a_bug_is_given_up_and_says_so(
    ticks: Ticks,
    repository: Repository,
    moving: Deployment,
    epoch: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    broken: tuple[str, ...],
    outcome: Outcome,
    needed: int,
) -> None:
    """R-12, R-15: the last decision does not go through the code that fails."""
    monkeypatch.setitem(STRATEGIES, "rolling", Bug().within(*broken))
    ticks.of(Deploying(ALWAYS))
    with structlog.testing.capture_logs() as logs:
        for _ in range(needed):
            assert (await only(repository)).lifecycle is Lifecycle.DEPLOYING
            await ticks.runner.tick(epoch=epoch)
            ticks.now_s += 5
    seen = await only(repository)
    assert (seen.lifecycle, seen.current) == (Lifecycle.READY, moving.current)
    assert len(logs) == ticks.failures("deploying") == ATTEMPTS_MAX * len(broken)

    async with repository.database.read() as connection:
        (newest,) = await rollouts_of(connection, seen.id, limit=1)
    told = await repository.history_of(seen.id)
    assert newest.outcome is outcome
    assert told[0].result == outcome.value
    failures = {(e.message, e.attempts) for e in told if e.result == "failure"}
    assert failures == {("ZeroDivisionError: a bug", ATTEMPTS_MAX)}
    gave_up = [e for e in told if e.rule == "give_up"]
    assert len(gave_up) == len(broken)
    assert gave_up[-1].error_code == "ROLLED_BACK"


async def test_a_strategy_that_cannot_even_tell_its_bounds_is_given_up(
    ticks: Ticks,
    repository: Repository,
    moving: Deployment,
    epoch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R-12, R-15: neither the counters after a commit nor the watch over it stop it, or others."""

    def bounds(policy: Policy, target: int) -> Bounds:
        raise ZeroDivisionError(f"{policy.strategy} {target}")

    assert moving.deploying is not None
    orphan = replace(new_routes(moving, 1)[0], rollout_id=None)
    await repository.commit(Decision(deployment=moving, create=(orphan,)), epoch=epoch)
    monkeypatch.setitem(STRATEGIES, "rolling", replace(ROLLING, bounds=bounds))
    beside = EachRoute(nothing)
    ticks.of(Deploying(ALWAYS), beside)
    needed = 2 * ATTEMPTS_MAX + 2  # two looks more, at what is an orphan then
    with structlog.testing.capture_logs():
        for _ in range(needed):
            await ticks.runner.tick(epoch=epoch)
            ticks.now_s += 5
    assert (await only(repository)).lifecycle is Lifecycle.READY
    assert beside.runs == needed
    assert not ticks.failures("vigil"), "one that tells nothing of its own is watched less"


async def test_a_success_in_between_begins_the_count_anew(
    ticks: Ticks,
    repository: Repository,
    deployment: Deployment,
    epoch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R-12, R-39: here no revision ever served."""
    bug = Bug()
    monkeypatch.setitem(STRATEGIES, "rolling", bug.within("forward"))
    ticks.of(Deploying(ALWAYS))
    lifecycles = []
    with structlog.testing.capture_logs():
        for number in range(2 * ATTEMPTS_MAX):
            bug.there = number != ATTEMPTS_MAX - 1
            await ticks.runner.tick(epoch=epoch)
            ticks.now_s += 5
            lifecycles.append((await only(repository)).lifecycle)
    expected = [Lifecycle.DEPLOYING] * (2 * ATTEMPTS_MAX - 1)
    assert lifecycles == [*expected, Lifecycle.DESTROYING]
    assert deployment.current is None


async def test_what_was_committed_before_another_leads_counts_on(
    ticks: Ticks,
    repository: Repository,
    moving: Deployment,
    epoch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R-12, R-18: failures are counted in the history, not in a leader's memory."""
    monkeypatch.setitem(STRATEGIES, "rolling", Bug().within("forward", "back"))
    with structlog.testing.capture_logs():
        for _ in range(ATTEMPTS_MAX):
            assert (await only(repository)).sub_step is moving.sub_step
            ticks.of(Deploying(ALWAYS))
            await ticks.runner.tick(epoch=epoch)
    assert (await only(repository)).sub_step is SubStep.ROLLING_BACK


def test_who_asks_what_comes_next_is_told_of_the_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, "rolling", Bug().within("forward"))
    deployment = deploying(policy=POLICY)
    cycle = look(deployment, fleet(3), NOW_MS, failed=0, fresh=fresh_ids())
    assert cycle is not None
    assert outlook(cycle).sentence == (
        "give_up: its rules fail with ZeroDivisionError: a bug; it turns back after 10 failures in "
        "a row, or when its time is over"
    )
