"""Whole rollouts as stories: what goes wrong on the way, and where it ends."""

from dataclasses import replace

from controller.model import (
    Lifecycle,
    Outcome,
    Policy,
    Route,
    Stage,
    SubStep,
)
from tests.fakes.nouns import NEW, OLD, a_rollout
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
