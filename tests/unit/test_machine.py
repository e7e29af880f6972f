"""One cycle of a rollout, and whole rollouts as stories."""

from dataclasses import replace
from typing import Any

import pytest

from controller.model import (
    Decision,
    Deployment,
    DeploymentChange,
    Health,
    Lifecycle,
    Outcome,
    Policy,
    Route,
    RouteStatus,
    Stage,
    SubStep,
    Traffic,
)
from controller.rollout.cycle import StoodStill, never_still
from controller.rollout.machine import step
from tests.fakes.nouns import (
    CHECK,
    NEW,
    NOW_MS,
    OLD,
    ROLLOUT,
    a_deployment,
    a_revision,
    a_rollout,
    a_route,
    deploying,
    fleet,
    fresh_ids,
    warming,
)
from tests.fakes.small_world import SmallWorld


def cycle(
    deployment: Deployment,
    routes: list[Route],
    *,
    after_s: float = 10,
    failed: int = 0,
    held: bool = False,
    still: StoodStill = never_still,
) -> Decision:
    decision = step(
        deployment,
        routes,
        NOW_MS + int(after_s * 1000),
        failed=failed,
        fresh=fresh_ids(),
        held=held,
        still=still,
    )
    assert decision is not None
    return decision


def hold_of(held_s: int) -> StoodStill:
    """Let HOLD have stopped the clocks for so long, of any time that is longer."""
    return lambda since_ms, until_ms: min(held_s * 1000, until_ms - since_ms)


def moved(decision: Decision) -> DeploymentChange:
    assert decision.change is not None
    return decision.change


def new(number: int) -> Route:
    return a_route(number, revision_id=NEW.id)


@pytest.mark.parametrize("lifecycle", [state for state in Lifecycle if state != "deploying"])
def test_only_a_deployment_that_deploys_is_its_affair(lifecycle: Lifecycle) -> None:
    """R-30, R-38."""
    deployment = deploying(lifecycle=lifecycle)
    assert step(deployment, [], NOW_MS, failed=0, fresh=fresh_ids()) is None


def test_new_replicas_carry_the_health_check_of_their_revision_and_no_traffic() -> None:
    """R-33: warming up decides about traffic, not creation."""
    (wanted,) = cycle(deploying(), fleet(3)).create
    assert (wanted.revision_id, wanted.health_check, wanted.rollout_id) == (NEW.id, CHECK, ROLLOUT)
    assert (wanted.traffic, wanted.traffic_ratio) == (Traffic.INACTIVE, 1.0)
    assert wanted.message == (
        "one of 1 new replicas of revision 2: 3 are active, at most 4 may be (3 + surge 1)"
    )


def test_a_drained_replica_loses_traffic_and_its_stage_begins() -> None:
    (change,) = cycle(deploying(), [*fleet(3), new(10)]).routes
    assert (change.status, change.stage) == (RouteStatus.TERMINATING, Stage.DRAINING)
    assert (change.traffic, change.traffic_ratio) == (Traffic.INACTIVE, 0.0)
    assert change.health is None
    assert change.message == (
        "makes way for revision 2: 4 are ready, at least 3 stay so (3 - unavailable 0)"
    )


def test_the_phase_moves_on_once_and_never_back() -> None:
    first = cycle(deploying(), fleet(3))
    assert first.change is None
    onward = cycle(deploying(), [*fleet(3), new(10)])
    assert moved(onward).sub_step is SubStep.PROGRESSING
    relapsed = cycle(deploying(sub_step=SubStep.PROGRESSING), fleet(3))
    assert relapsed.change is None


def test_a_rollout_without_a_phase_is_given_one() -> None:
    """R-13: (DEPLOYING, no sub-step) is repaired."""
    assert moved(cycle(deploying(sub_step=None), fleet(3))).sub_step is SubStep.PROVISIONING


def test_waiting_is_recorded_with_what_for() -> None:
    """R-19: and it is no failure (R-11)."""
    routes = [*fleet(3), warming(10, revision_id=NEW.id)]
    decision = cycle(deploying(), routes)
    (note,) = decision.notes
    assert (note.result, note.error_code) == ("waiting", "")
    assert note.message == (
        "waiting: 0 of 3 replicas of revision 2 ready, 1 starting; "
        "3 of others left, 3 of them ready"
    )
    assert decision == Decision(deployment=decision.deployment, notes=(note,))


def test_promotion_is_one_decision_that_says_what_it_rests_on() -> None:
    """R-13, R-16."""
    decision = cycle(deploying(), [new(1), new(2), new(3)], after_s=42)
    change = moved(decision)
    assert (change.lifecycle, change.sub_step) == (Lifecycle.READY, None)
    assert change.end_rollout is Outcome.PROMOTED
    assert change.message == (
        "rolling update promoted: 3 of 3 replicas of revision 2 ready, 0 starting; none of "
        "another left; it took 42 s"
    )
    assert decision == Decision(deployment=decision.deployment, change=change)


def test_done_at_the_deadline_is_done() -> None:
    decision = cycle(deploying(), [new(1), new(2), new(3)], after_s=7200)
    assert moved(decision).end_rollout is Outcome.PROMOTED


def test_past_its_deadline_a_rollout_turns_back_and_is_called_expired() -> None:
    """R-16: expired is recorded as EXPIRED."""
    change = moved(cycle(deploying(), fleet(3), after_s=7200))
    assert change.sub_step is SubStep.ROLLING_BACK
    assert change.error_code == "EXPIRED"
    assert change.end_rollout is None
    assert change.message == (
        "rolling update expired: not done within 7200 s: 0 of 3 replicas of revision 2 ready, "
        "0 starting; 3 of others left, 3 of them ready; rolling back to revision 1"
    )


def test_held_nothing_expires_and_nothing_turns_back() -> None:
    """R-05: what is not seen has not failed."""
    late = cycle(deploying(), fleet(3), after_s=9999, held=True)
    assert late.change is None
    spent = cycle(deploying(), fleet(3), failed=99, held=True)
    assert spent.change is None


@pytest.mark.parametrize(("failed", "created"), [(3, 1), (4, 0)])
def test_failed_replicas_are_replaced_within_their_budget(failed: int, created: int) -> None:
    routes = [*fleet(2), new(10)]
    decision = cycle(deploying(sub_step=SubStep.PROGRESSING), routes, failed=failed)
    assert len(decision.create) == created


def test_when_the_budget_is_spent_the_wait_says_so() -> None:
    routes = [*fleet(2), new(10)]
    (note,) = cycle(deploying(sub_step=SubStep.PROGRESSING), routes, failed=4).notes
    assert note.message.endswith(
        "; 4 new replicas failed, and max_failed_replicas is 3, so no other is created"
    )


def test_all_new_replicas_failed_and_none_to_spend_turns_back() -> None:
    change = moved(cycle(deploying(), fleet(3), failed=4))
    assert (change.sub_step, change.error_code) == (SubStep.ROLLING_BACK, "ROLLED_BACK")
    assert "4 new replicas failed, and max_failed_replicas is 3; none is left" in change.message


def test_a_budget_of_none_turns_back_at_the_first_failure() -> None:
    policy = Policy(surge=1, max_failed_replicas=0)
    assert moved(cycle(deploying(policy=policy), fleet(3), failed=1)).error_code == ("ROLLED_BACK")


@pytest.mark.parametrize(("after_s", "failed"), [(7200, 0), (10, 4)])
def test_without_a_revision_to_go_back_to_the_deployment_goes_away(
    after_s: float, failed: int
) -> None:
    """R-39."""
    change = moved(cycle(deploying(current=None), [], after_s=after_s, failed=failed))
    assert change.lifecycle is Lifecycle.DESTROYING
    assert change.end_rollout is (Outcome.FAILED if failed else Outcome.EXPIRED)
    assert "no revision ever served" in change.message


def test_deploying_without_a_revision_to_deploy_is_repaired() -> None:
    """R-13: a sweep repairs."""
    broken = deploying(deploying=None, rollout=None)
    change = moved(cycle(broken, fleet(3)))
    assert (change.lifecycle, change.end_rollout) == (Lifecycle.READY, None)
    never_served = replace(broken, current=None)
    assert moved(cycle(never_served, [])).lifecycle is Lifecycle.PENDING


def back(**given: Any) -> Deployment:  # noqa: ANN401 - any field of a deployment
    return deploying(sub_step=SubStep.ROLLING_BACK, **given)


def test_rolling_back_restores_before_it_gives_up_what_serves() -> None:
    routes = [a_route(1), new(10), new(11)]
    first = cycle(back(), routes)
    assert [wanted.revision_id for wanted in first.create] == [OLD.id]
    assert first.routes == ()
    assert first.create[0].rollout_id is None  # not of the new side: its loss is no failure of it
    restored = cycle(back(), [*routes, a_route(2)])
    assert [change.route.id for change in restored.routes] == [new(10).id]


def test_rolling_back_drops_new_replicas_that_serve_nobody_at_once() -> None:
    ill = [replace(new(10), health=Health.UNHEALTHY), warming(11, revision_id=NEW.id)]
    decision = cycle(back(), [*fleet(2), *ill])
    assert {change.route.id for change in decision.routes} == {route.id for route in ill}
    assert {change.category for change in decision.routes} == {"rolling_back"}


@pytest.mark.parametrize(
    ("recorded", "began_after_s", "outcome"),
    [
        (None, 100, Outcome.ROLLED_BACK),
        (None, 7200, Outcome.EXPIRED),
        (Outcome.ABORTED, 100, Outcome.ABORTED),
        (Outcome.ABORTED, 7200, Outcome.ABORTED),
    ],
)
def test_a_finished_rollback_is_called_what_began_it(
    recorded: Outcome | None, began_after_s: int, outcome: Outcome
) -> None:
    """R-16."""
    deployment = back(
        rollout=a_rollout(Policy(surge=1), outcome=recorded),
        phase_entered_at_ms=NOW_MS + began_after_s * 1000,
    )
    change = moved(cycle(deployment, fleet(3), after_s=began_after_s + 10))
    assert (change.lifecycle, change.end_rollout) == (Lifecycle.READY, outcome)
    assert change.message.startswith(f"rolling update {outcome}, revision 2 given up: 3 of 3")


def test_a_rollback_that_cannot_restore_ends_and_leaves_the_rest_to_eviction() -> None:
    """Every state has a deadline, and what serves is kept (I1)."""
    ill = fleet(3, bad=3)
    decision = cycle(back(), [*ill, new(10)], after_s=7200)
    change = moved(decision)
    assert (change.lifecycle, change.end_rollout) == (Lifecycle.READY, Outcome.FAILED)
    assert decision.routes == ()
    assert cycle(back(), [*ill, new(10)], after_s=7200, held=True).change is None


def test_an_aborted_rollout_that_cannot_restore_ends_as_aborted() -> None:
    """R-16: the database keeps what was asked for, and so does the history."""
    aborted = back(rollout=a_rollout(Policy(surge=1), outcome=Outcome.ABORTED))
    change = moved(cycle(aborted, [*fleet(3, bad=3), new(10)], after_s=7200))
    assert (change.end_rollout, change.error_code) == (Outcome.ABORTED, "ABORTED")


@pytest.mark.parametrize(("after_s", "turns"), [(7200, False), (7799, False), (7800, True)])
def test_hold_moves_the_deadline_by_the_time_it_took(after_s: int, *, turns: bool) -> None:
    """S15, R-36: an hour in the dark is no hour of progress, also once it is over."""
    decision = cycle(deploying(), [*fleet(3), new(9)], after_s=after_s, still=hold_of(600))
    turned = decision.change is not None and decision.change.sub_step is SubStep.ROLLING_BACK
    assert turned is turns


def test_hold_moves_the_deadline_of_turning_back_too() -> None:
    """S15"""
    ill = [*fleet(3, bad=3), new(10)]
    assert cycle(back(), ill, after_s=7500, still=hold_of(600)).change is None
    change = moved(cycle(back(), ill, after_s=7800, still=hold_of(600)))
    assert change.end_rollout is Outcome.FAILED


def test_replicas_without_traffic_get_it_before_any_that_has_some_leaves() -> None:
    """I1: those of a blue-green rollout that was given up, or kept to switch back to."""
    idle = [replace(new(n), traffic=Traffic.INACTIVE, traffic_ratio=0.0) for n in (10, 11, 12)]
    decision = cycle(deploying(), [*fleet(3), *idle])
    assert {(c.route.id, c.traffic, c.traffic_ratio) for c in decision.routes} == {
        (route.id, Traffic.ACTIVE, 1.0) for route in idle
    }
    assert decision.change is None


def test_replicas_without_traffic_leave_before_those_that_have_some() -> None:
    """I1: greens of a superseded rollout are ready, and serve nobody."""
    orphans = [
        a_route(n, revision_id=a_revision(3).id, traffic=Traffic.INACTIVE, traffic_ratio=0.0)
        for n in (20, 21)
    ]
    decision = cycle(deploying(), [*fleet(3), *orphans])
    assert {change.route.id for change in decision.routes} == {route.id for route in orphans}


def test_going_back_without_room_for_more_restores_one_for_one() -> None:
    """R-32: surge that capacity does not allow is none."""
    policy = Policy(surge=1, unavailable=1, capacity=2)
    decision = cycle(back(replicas=2, policy=policy), [new(10), new(11)])
    assert [change.route.id for change in decision.routes] == [new(10).id]


def test_what_turned_back_before_its_moved_deadline_did_not_expire() -> None:
    """S15, R-16"""
    deployment = back(rollout=a_rollout(Policy(surge=1)), phase_entered_at_ms=NOW_MS + 7_300_000)
    change = moved(cycle(deployment, fleet(3), after_s=7310, still=hold_of(600)))
    assert change.end_rollout is Outcome.ROLLED_BACK


def test_a_rollback_with_nothing_to_go_back_to_destroys() -> None:
    """R-39."""
    assert moved(cycle(back(current=None), [new(1)])).lifecycle is Lifecycle.DESTROYING


def test_replicas_registered_by_hand_are_waited_for_not_created() -> None:
    by_hand = a_revision(2, external=True)
    decision = cycle(deploying(deploying=by_hand), fleet(3))
    assert decision.create == ()
    assert decision.notes[0].result == "waiting"


def test_the_target_count_is_the_one_of_now() -> None:
    scaled = deploying(3, desired_replicas=1, current=None)
    assert len(cycle(scaled, []).create) == 1


@pytest.mark.parametrize(
    ("target", "policy"),
    [
        (3, Policy(surge=1, unavailable=1)),
        (5, Policy(surge=2, unavailable=1)),
        (4, Policy(surge=1, unavailable=0)),
        (3, Policy(surge=0, unavailable=1)),
        (10, Policy(surge=1, unavailable=0)),
        (1, Policy(surge=1, unavailable=0)),
        (3, Policy(surge="50%", unavailable=0)),
        (0, Policy()),
    ],
    ids=lambda value: (
        str(value) if isinstance(value, int) else f"{value.surge}-{value.unavailable}"
    ),
)
def test_a_rolling_update_completes(target: int, policy: Policy) -> None:
    """R-11: progress is not failure, however many cycles it takes."""
    world = SmallWorld(target, policy)
    world.settle()
    assert world.outcome is Outcome.PROMOTED
    assert world.ready == world.active == target
    assert {route.revision_id for route in world.live if route.active} <= {NEW.id}


@pytest.mark.parametrize(
    ("target", "policy", "cycles"),
    [(4, Policy(surge=1, unavailable=0), 8), (3, Policy(surge=0, unavailable=1), 6)],
    ids=["one more at a time", "one less at a time"],
)
def test_one_replica_at_a_time_takes_two_mutating_cycles_each(
    target: int, policy: Policy, cycles: int
) -> None:
    """R-11."""
    world = SmallWorld(target, policy)
    world.settle()
    assert world.outcome is Outcome.PROMOTED
    assert world.mutating_cycles == cycles


def test_a_deployment_at_rest_has_no_rollout_to_step() -> None:
    assert step(a_deployment(), fleet(3), NOW_MS, failed=0, fresh=fresh_ids()) is None
