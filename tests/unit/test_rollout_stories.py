"""Whole rollouts as stories: what goes wrong on the way, and where it ends."""

from dataclasses import replace

import pytest

from controller.model import (
    Lifecycle,
    Outcome,
    Policy,
    Route,
    Stage,
    SubStep,
    WeightStep,
)
from tests.fakes.nouns import NEW, OLD, a_rollout
from tests.fakes.rollouts import until
from tests.fakes.small_world import SmallWorld


def test_story_of_a_revision_that_never_answers() -> None:
    """R-32, R-39: the old replicas serve throughout, and are all there at the end."""
    world = SmallWorld(3, Policy(surge=1, unavailable=0))

    def fate(route: Route) -> None:
        if route.revision_id == NEW.id and route.stage is Stage.WARMING_UP:
            world.fail(route)
        else:
            world.advance(route)

    world.settle(fate)
    assert world.failed == 4
    assert world.outcome is Outcome.ROLLED_BACK
    assert {route.revision_id for route in world.live} == {OLD.id}
    assert world.ready == 3


def test_story_of_a_first_revision_that_never_answers() -> None:
    """R-39."""
    world = SmallWorld(2, Policy(), old=0)
    world.deployment = replace(world.deployment, current=None)

    def fate(route: Route) -> None:
        if route.stage is Stage.WARMING_UP:
            world.fail(route)
        else:
            world.advance(route)

    world.settle(fate)
    assert world.outcome is Outcome.FAILED
    assert world.deployment.lifecycle is Lifecycle.DESTROYED


def test_story_of_an_abort_half_way() -> None:
    world = SmallWorld(4, Policy(surge=1, unavailable=0))
    while world.mutating_cycles < 5:
        world.cycle()
        for route in world.live:
            world.advance(route)
    world.deployment = replace(
        world.deployment,
        sub_step=SubStep.ROLLING_BACK,
        rollout=a_rollout(world.deployment.policy, outcome=Outcome.ABORTED),
        phase_entered_at_ms=world.now_ms,
    )
    world.settle()
    assert world.outcome is Outcome.ABORTED
    assert {route.revision_id for route in world.live if route.active} == {OLD.id}
    assert world.ready == 4


@pytest.mark.parametrize(
    "policy",
    [
        Policy(surge=1),
        Policy(strategy="blue-green"),
        Policy(strategy="canary", steps=(WeightStep(weight_percent=10, pause_s=60),)),
    ],
    ids=lambda policy: policy.strategy,
)
@pytest.mark.parametrize("in_flight", [False, True])
def test_story_of_a_deployment_that_is_scaled_to_none(policy: Policy, *, in_flight: bool) -> None:
    """R-16: it is promoted without a replica to look at, and says so."""
    world = SmallWorld(3, policy)
    if in_flight:
        world.cycle()
        for route in world.live:
            if route.revision_id == NEW.id:
                world.fail(route)
    world.deployment = replace(world.deployment, desired_replicas=0)
    promoted = until(world, "promote")
    assert promoted.change is not None
    assert "update promoted: scaled to 0: nothing was verified; it took" in promoted.change.message


def test_story_of_one_that_is_scaled_to_none_when_a_new_replica_is_ready() -> None:
    """R-16: what was seen to be ready was verified."""
    world = SmallWorld(3, Policy(surge=1))
    while not any(route.ready and route.revision_id == NEW.id for route in world.live):
        world.cycle()
        for route in world.live:
            world.advance(route)
    world.deployment = replace(world.deployment, desired_replicas=0)
    promoted = until(world, "promote")
    assert promoted.change is not None
    assert "promoted: 1 of 0 replicas of revision 2 ready" in promoted.change.message


@pytest.mark.parametrize(("fails", "outcome"), [(True, "ROLLED_BACK"), (False, "EXPIRED")])
def test_story_of_a_rollout_that_turns_back_is_told_with_one_outcome(
    *, fails: bool, outcome: str
) -> None:
    """R-16: what the history calls it when it turns is what it is called when it has ended."""
    world = SmallWorld(3, Policy(surge=1, unavailable=0, rollout_timeout_s=60))
    told = []
    while world.deployment.lifecycle is Lifecycle.DEPLOYING:
        decision = world.cycle()
        if decision is not None and decision.change is not None:
            told.append(decision.change.error_code)
        for route in world.live:
            if route.revision_id == NEW.id and route.active:
                if fails:
                    world.fail(route)
            else:
                world.advance(route)
    assert [code for code in told if code] == [outcome, outcome]
    assert world.outcome is Outcome[outcome]
