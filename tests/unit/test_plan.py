"""What a plan says of a rollout: each deadlock by its step, its reason and a remedy that helps."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from controller.errors import InvalidInput
from controller.model import Outcome, Policy, Route, SubStep, WeightStep
from controller.rollout.plan import NEVER_MS, Timings, plan, starts_in_s
from controller.rollout.planned import RolloutPlan
from tests.fakes.nouns import NEW, a_deployment, a_revision, a_route, fleet, warming
from tests.fakes.plans import Case, foretold

TIMINGS = Timings(starts_in_s=60, grace_s=30, period_s=30)
PAUSES = (WeightStep(weight_percent=10, pause_s=200), WeightStep(weight_percent=50, pause_s=200))
EXTERNAL = replace(a_revision(2, external=True), id=NEW.id)

# What it is; the case; cycle and rule of the step; what its reason names; what helps.
DEADLOCKS = {
    "a surge with no spare capacity": (
        Case(target=4, policy=Policy(surge=2, capacity=4)),
        (1, "wait", "4 of 4 new replicas cannot be created: 4 are active, and at most 4 may be"),
        {"capacity": 5},
    ),
    "room for one, left by a replica that was ill, and no more": (
        Case(target=3, policy=Policy(surge=1, capacity=3), ill=1),
        (5, "wait", "none of the 3 that are ready may go first"),
        {"unavailable": 1},
    ),
    "less capacity than a second set of replicas needs": (
        Case(target=3, policy=Policy(strategy="blue-green", capacity=5)),
        (4, "wait", "1 of 3 new replicas cannot be created: 5 are active, and at most 5 may be"),
        {"capacity": 6},
    ),
    "no capacity for greens to shift to": (
        Case(target=2, policy=Policy(strategy="canary", steps=PAUSES, capacity=2)),
        (1, "wait", "(policy.capacity 2)"),
        {"capacity": 4},
    ),
    "a deadline shorter than the batches one after the other": (
        Case(target=5, policy=Policy(surge=1, rollout_timeout_s=100), starts_in_ms=30_000),
        (18, "wait", "it needs 205 s, and rollout_timeout_s is 100; each new replica is ready"),
        {"rollout_timeout_s": 205},
    ),
    "replicas that have to be ready for longer than the deadline": (
        Case(target=2, policy=Policy(surge=2, min_ready_s=300, rollout_timeout_s=200)),
        (4, "wait", "300 s of it are min_ready_s"),
        {"rollout_timeout_s": 320},
    ),
    "a promotion delayed beyond the deadline": (
        Case(
            target=2,
            policy=Policy(strategy="blue-green", promote_delay_s=300, rollout_timeout_s=200),
        ),
        (4, "promote_delay", "300 s of it are promote_delay_s"),
        {"rollout_timeout_s": 315},
    ),
    "pauses longer than the deadline": (
        Case(target=2, policy=Policy(strategy="canary", steps=PAUSES, rollout_timeout_s=300)),
        (45, "pause_step", "400 s of it are the pauses of its steps"),
        {"rollout_timeout_s": 420},
    ),
}


@pytest.mark.parametrize("name", DEADLOCKS)
def test_deadlock_is_found_and_real(name: str) -> None:
    case, (cycle, rule, reason), _ = DEADLOCKS[name]
    planned = case.plan()
    assert planned.deadlock is not None
    assert (planned.deadlock.cycle, planned.deadlock.rule) == (cycle, rule)
    assert reason in planned.deadlock.reason
    world, seen = case.run()
    assert "expired" in [rule for rule, *_ in seen]
    assert world.outcome is planned.outcome
    assert foretold(planned) == seen


@pytest.mark.parametrize("name", DEADLOCKS)
def test_remedy_named_is_enough(name: str) -> None:
    case, _, remedy = DEADLOCKS[name]
    deadlock = case.plan().deadlock
    assert deadlock is not None
    for field, value in remedy.items():
        assert f"policy.{field} = {value}" in deadlock.remedy
    mended = replace(case, policy=msgspec.structs.replace(case.policy, **remedy))
    assert mended.plan().deadlock is None
    assert mended.run()[0].outcome is Outcome.PROMOTED


def planned_of(policy: Policy, routes: list[Route] | None = None, **given: Any) -> RolloutPlan:  # noqa: ANN401
    """Plan revision 2 of a deployment of three that serves with revision 1."""
    deployment = a_deployment(policy=policy, **given)
    return plan(deployment, NEW, routes=fleet(3) if routes is None else routes, timings=TIMINGS)


def test_external_revision_waits_for_what_is_not_registered() -> None:
    """No time helps: nobody but a person registers them."""
    case = Case(target=2, policy=Policy(rollout_timeout_s=100), revision=EXTERNAL)
    planned = case.plan()
    assert case.run()[0].outcome is Outcome.EXPIRED
    assert planned.deadlock is not None
    assert "0 of 2 replicas of it are registered" in planned.deadlock.reason
    assert "register 2 more with `fleetpulse route register`" in planned.deadlock.remedy
    assert planned.deadlock.needs_s is None


def test_no_replica_may_fail_is_no_deadlock() -> None:
    assert planned_of(Policy(max_failed_replicas=0)).deadlock is None


def test_promotion_by_hand_is_waited_for_and_no_deadlock() -> None:
    planned = planned_of(Policy(strategy="blue-green", auto_promote=False))
    assert planned.deadlock is None
    assert planned.waits_for_operator_at_s == 120.0
    assert [step.rule for step in planned.steps][-2:] == ["await_promotion", "promote"]


def test_each_step_has_its_numbers_and_waits_are_one_step() -> None:
    planned = planned_of(Policy(surge=1))
    first, wait, moved, *_ = planned.steps
    assert (first.rule, first.creates, first.ready, first.active) == ("replace", 1, 3, 4)
    assert (wait.rule, wait.cycles, wait.at_s, wait.until_s) == ("wait", 2, 60.0, 90.0)
    assert (moved.drains, moved.leaving, moved.share_percent) == (1, 1, 33)
    assert (planned.floor, planned.peak, planned.peak_with_leaving) == (3, 4, 5)
    assert planned.worst_case_s == planned.steps[-1].until_s == 390.0


def test_share_of_the_traffic_follows_the_steps_of_a_canary() -> None:
    planned = planned_of(Policy(strategy="canary", steps=PAUSES))
    shares = [step.share_percent for step in planned.steps if step.rule in ("shift", "promote")]
    assert shares == [10, 50, 100]


def test_first_deployment_has_no_floor() -> None:
    planned = planned_of(Policy(), [], current=None)
    assert (planned.floor, planned.from_revision, planned.deadlock) == (0, None, None)


def test_first_deployment_that_has_no_time_is_destroyed_in_its_plan() -> None:
    planned = planned_of(Policy(rollout_timeout_s=60), [], current=None)
    assert planned.outcome is Outcome.EXPIRED
    assert planned.deadlock is not None
    assert planned.deadlock.cycle == 1


def test_replicas_of_a_superseded_revision_leave_and_make_room() -> None:
    """They are orphans, gone after two eviction periods at the latest; no deadlock is told."""
    routes = [*fleet(3), *fleet(3, first=4, revision_id=a_revision(9).id)]
    planned = planned_of(Policy(strategy="blue-green"), routes)
    assert planned.deadlock is None
    assert planned.peak == 6
    created = next(step for step in planned.steps if step.creates)
    assert created.at_s <= 150.0


def test_replicas_of_the_revision_that_exist_already_are_used() -> None:
    routes = [*fleet(3), *fleet(3, first=4, revision_id=NEW.id, traffic_ratio=0.0)]
    planned = planned_of(Policy(strategy="blue-green"), routes)
    assert [step.rule for step in planned.steps] == ["promote"]


def test_replica_that_starts_already_is_taken_as_just_created() -> None:
    planned = planned_of(Policy(surge=1), [*fleet(3), warming(4, revision_id=NEW.id)])
    assert [step.creates for step in planned.steps[:2]] == [0, 0]
    assert planned.steps[1].at_s == 90.0


def test_rollout_in_flight_is_planned_as_if_it_began_anew() -> None:
    planned = planned_of(Policy(surge=1), sub_step=SubStep.ROLLING_BACK)
    assert planned.outcome is Outcome.PROMOTED


def test_new_replicas_that_run_and_are_not_ready_are_named() -> None:
    ill = [a_route(n, revision_id=NEW.id, health="unhealthy") for n in (4, 5, 6)]
    planned = planned_of(Policy(strategy="blue-green"), [*fleet(3), *ill])
    assert planned.deadlock is not None
    assert "repair or drain the 3 that run and are not ready" in planned.deadlock.remedy


def test_rollout_without_end_is_planned_in_a_moment() -> None:
    """A wait is searched for its end, not gone through: 30 days at 30 s are 86,400 cycles."""
    planned = planned_of(Policy(capacity=3, rollout_timeout_s=30 * 86_400))
    assert planned.deadlock is not None
    assert len(planned.steps) == 3
    assert planned.steps[0].cycles == 86_399


def test_plan_with_more_steps_than_can_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.rollout.plan.LOOKS_MAX", 1_000)
    with pytest.raises(InvalidInput, match=r"demo: a rollout of 90 replicas .* larger surge"):
        planned_of(Policy(surge=1), fleet(90), replicas=90)


def test_deadline_far_too_short_is_told_without_the_time_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controller.rollout.plan.LOOKS_MAX", 2_000)
    planned = planned_of(Policy(surge=1, rollout_timeout_s=100), fleet(90), replicas=90)
    assert planned.deadlock is not None
    assert planned.deadlock.needs_s is None
    assert "it needs far more time than there is" in planned.deadlock.reason


def test_deadline_that_never_comes_is_beyond_every_policy() -> None:
    assert NEVER_MS > 30 * 86_400 * 1000 * 1000


def test_worst_start_of_a_replica_is_the_grace_of_its_health_check() -> None:
    assert starts_in_s(NEW) == 60
    assert starts_in_s(a_revision(3, health_check=None)) == 0
