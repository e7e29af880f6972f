"""Whole rolling updates without faults, counted: for the documentation and its test (R-11)."""

from typing import Final, NamedTuple

from controller.model import Bound, Outcome, Policy, Route
from tests.fakes.small_world import SmallWorld


class Trace(NamedTuple):
    """What one rolling update took, and how far it strayed."""

    target: int
    surge: Bound
    unavailable: Bound
    steps: int
    """Cycles that created or drained."""
    lowest_ready: int
    min_avail: int
    highest_active: int
    max_total: int


TRACED: Final[tuple[tuple[int, Bound, Bound], ...]] = (
    (3, 1, 1),
    (5, 2, 1),
    (4, 1, 0),
    (3, 0, 1),
    (10, 1, 0),
    (1, 1, 0),
    (3, "50%", 0),
)


def live_on(world: SmallWorld, route: Route) -> None:
    """Let a new replica become ready, and a drained one end, before the next cycle."""
    while route.stage is not None:
        world.advance(route)
        route = world.routes[route.id]


def trace(target: int, surge: Bound, unavailable: Bound) -> Trace:
    """Roll out once; between two cycles every replica arrives where it is going."""
    world = SmallWorld(target, Policy(surge=surge, unavailable=unavailable))
    bounds = world.bounds
    ready, active = [world.ready], [world.active]
    while world.outcome is None:
        world.cycle()
        ready.append(world.ready)
        active.append(world.active)
        for route in world.live:
            live_on(world, route)
    assert world.outcome is Outcome.PROMOTED
    return Trace(
        target=target,
        surge=surge,
        unavailable=unavailable,
        steps=world.mutating_cycles,
        lowest_ready=min(ready),
        min_avail=bounds.min_avail,
        highest_active=max(active),
        max_total=bounds.max_total,
    )
