"""A leader may die at any decision: the next one, who knows only what is stored, ends it the same.

Real processes are killed at commits in `tests/chaos`; here it is every decision of every story.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from controller.model import Lifecycle, Policy, Route, Stage, SubStep, WeightStep
from controller.rollout import machine
from tests.fakes.nouns import NEW, OLD, fresh_ids
from tests.fakes.rollouts import ask_promotion, greens
from tests.fakes.small_world import SmallWorld

Verb = Callable[[SmallWorld], None]
LONGEST: Final = 200


def never_answers(world: SmallWorld, route: Route) -> None:
    """Let every new replica die while it warms up."""
    if route.revision_id == NEW.id and route.stage is Stage.WARMING_UP:
        world.fail(route)
    else:
        world.advance(route)


def half_answer(world: SmallWorld, route: Route) -> None:
    """Let the second replica that is made die, and no other."""
    if world.routes[route.id].stage is Stage.WARMING_UP and world.failed == 0:
        world.fail(route)
    else:
        world.advance(route)


def relapse(world: SmallWorld) -> None:
    """Let a green fall ill for one cycle."""
    world.relapse(greens(world)[0])


def abort(world: SmallWorld) -> None:
    """Turn it back, as an operator does."""
    world.deployment = replace(
        world.deployment, sub_step=SubStep.ROLLING_BACK, phase_entered_at_ms=world.now_ms
    )


def pause(world: SmallWorld) -> None:
    """Stop it."""
    _rollout(world, paused_at_ms=world.now_ms)


def resume(world: SmallWorld) -> None:
    """Let it go on."""
    _rollout(world, paused_at_ms=None)


def _rollout(world: SmallWorld, **given: Any) -> None:  # noqa: ANN401 - any field of a rollout
    rollout = world.deployment.rollout
    assert rollout is not None
    world.deployment = replace(world.deployment, rollout=replace(rollout, **given))


@dataclass(frozen=True, kw_only=True)
class Story:
    """A rollout, what becomes of its replicas, and who intervenes before which cycle."""

    policy: Policy
    target: int = 3
    first: bool = False
    fate: Callable[[SmallWorld, Route], None] = SmallWorld.advance
    verbs: Mapping[int, Verb] = field(default_factory=dict)

    def begin(self) -> SmallWorld:
        world = SmallWorld(self.target, self.policy, old=0 if self.first else None)
        if self.first:
            world.deployment = replace(world.deployment, current=None)
        return world


BLUE_GREEN: Final = Policy(strategy="blue-green")
CANARY: Final = Policy(strategy="canary", steps=(WeightStep(weight_percent=20, pause_s=20),))
ONE_BY_ONE: Final = Policy(surge=1, unavailable=0)
STORIES: Final = {
    "rolling": Story(policy=ONE_BY_ONE),
    "rolling, one fails": Story(policy=Policy(surge=2), fate=half_answer),
    "rolling, none answers": Story(policy=ONE_BY_ONE, fate=never_answers),
    "rolling, first, none answers": Story(policy=Policy(), first=True, fate=never_answers),
    "rolling, aborted": Story(policy=ONE_BY_ONE, verbs={9: abort}),
    "rolling, expires": Story(policy=Policy(surge=1, rollout_timeout_s=60), target=5),
    "rolling, paused": Story(policy=ONE_BY_ONE, verbs={5: pause, 9: resume}),
    "blue-green": Story(policy=BLUE_GREEN),
    "blue-green, one fails": Story(policy=BLUE_GREEN, fate=half_answer),
    "blue-green, none answers": Story(policy=BLUE_GREEN, fate=never_answers),
    "blue-green, aborted": Story(policy=BLUE_GREEN, verbs={3: abort}),
    "blue-green, relapse in the delay": Story(
        policy=Policy(strategy="blue-green", promote_delay_s=60), verbs={8: relapse}
    ),
    "blue-green, by hand": Story(
        policy=Policy(strategy="blue-green", auto_promote=False),
        verbs={8: relapse, 12: ask_promotion},
    ),
    "blue-green, kept": Story(policy=Policy(strategy="blue-green", scale_down_delay_s=60)),
    "canary": Story(policy=CANARY),
    "canary, relapse": Story(policy=CANARY, verbs={7: relapse}),
    "canary, aborted": Story(policy=CANARY, verbs={6: abort}),
}


def successor(world: SmallWorld) -> SmallWorld:
    """Return the world for who comes next: nothing but what is stored, and ids of his own."""
    other = copy(world)
    other.routes, other.made = dict(world.routes), set(world.made)
    other.fresh, other.held = fresh_ids(50_000 + len(world.routes)), False
    return other


def tell(story: Story, *, dies_at: int | None, committed: bool) -> tuple[Any, int]:
    """Live a story; at one cycle the leader dies, before or after its decision is stored."""
    world = story.begin()
    for cycle in range(LONGEST):
        if world.deployment.lifecycle in (Lifecycle.READY, Lifecycle.DESTROYED):
            return ended(world), cycle
        if cycle in story.verbs:
            story.verbs[cycle](world)
        if cycle == dies_at and not committed:
            _decide_in_vain(world)
            world = successor(world)
        world.cycle()
        if cycle == dies_at and committed:
            world = successor(world)
        for route in world.live:
            story.fate(world, route)
    raise AssertionError(f"not ended after {LONGEST} cycles: {world.deployment}")


def _decide_in_vain(world: SmallWorld) -> None:
    machine.step(world.deployment, world.live, world.now_ms, failed=world.failed, fresh=world.fresh)


def ended(world: SmallWorld) -> Any:  # noqa: ANN401 - compared with its like, and printed
    """Return what a story leaves behind, without ids and times."""
    of = world.deployment
    routes = Counter(
        (r.revision_id, r.status, r.stage, r.health, r.traffic, r.traffic_ratio)
        for r in world.routes.values()
    )
    return world.outcome, of.lifecycle, of.sub_step, of.current, of.kept, len(world.made), routes


@pytest.mark.parametrize("name", STORIES)
def test_whoever_goes_on_after_a_leader_died_comes_to_the_same_end(name: str) -> None:
    """R-13, R-18, I8: at every decision, stored or not."""
    story = STORIES[name]
    whole, cycles = tell(story, dies_at=None, committed=False)
    for point in range(cycles):
        for committed in (False, True):
            found, _ = tell(story, dies_at=point, committed=committed)
            assert found == whole, f"died at decision {point}, stored: {committed}"
    print(f"{name}: {2 * cycles} deaths, all end {whole[0]}")  # noqa: T201 - the figures


def test_the_stories_tell_of_every_end() -> None:
    ends = {tell(story, dies_at=None, committed=False)[0][0] for story in STORIES.values()}
    assert {"promoted", "rolled_back", "expired", "failed"} <= ends


def test_what_was_aborted_serves_as_before() -> None:
    for name in ("rolling, aborted", "blue-green, aborted", "canary, aborted"):
        end, _ = tell(STORIES[name], dies_at=None, committed=False)
        assert end[3] == OLD
