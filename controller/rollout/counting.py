"""What a rollout counts: its bounds, and one deployment's routes for and against a revision.

Pure; every strategy decides over these numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.model import Bound, Health, RevisionId, Route, RouteStatus

_ORDER: Final = {
    Health.UNHEALTHY: 1,
    Health.DEGRADED: 2,
    Health.NOT_CHECKED: 3,
    Health.HEALTHY: 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far a deployment may stray from its target count while it changes."""

    target: int
    surge: int
    unavailable: int
    capacity: int | None = None
    """How many replicas there is room for at all; None: as many as are wanted."""

    @property
    def max_total(self) -> int:
        """Return how many routes may be active at once.

        >>> Bounds(target=4, surge=2, unavailable=0, capacity=5).max_total
        5
        """
        most = self.target + self.surge
        return most if self.capacity is None else min(most, max(self.capacity, self.target))

    @property
    def min_avail(self) -> int:
        """Return how many must stay ready."""
        return max(0, self.target - self.unavailable)


def resolve(bound: Bound, target: int, *, up: bool) -> int:
    """Return a bound as a count; a percentage of `target` rounds up or down.

    >>> resolve("50%", 3, up=True), resolve("50%", 3, up=False)
    (2, 1)
    >>> resolve(4, 3, up=True), resolve("0%", 10, up=True)
    (4, 0)
    """
    if isinstance(bound, int):
        return bound
    hundredths = int(bound.removesuffix("%")) * target
    return -(-hundredths // 100) if up else hundredths // 100


def bounds_back(forward: Bounds) -> Bounds:
    """Return the bounds of a rollback: ready replicas are restored before any is given up.

    Without surge, or capacity for it, there is no room to restore into, and `unavailable` must
    stay.

    >>> bounds_back(Bounds(target=4, surge=1, unavailable=1)).min_avail
    4
    >>> bounds_back(Bounds(target=4, surge=0, unavailable=1)).min_avail
    3
    """
    unavailable = 0 if forward.max_total > forward.target else forward.unavailable
    return Bounds(
        target=forward.target,
        surge=forward.surge,
        unavailable=unavailable,
        capacity=forward.capacity,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The active routes of one deployment, by whether they are of the revision wanted."""

    wanted: tuple[Route, ...]
    others: tuple[Route, ...]
    """In termination order."""
    ready_wanted: int
    ready_others: int
    """Those with traffic: the others serve nobody, and nothing rests on them."""
    provisioning: int
    """Of the wanted ones."""

    @property
    def ready(self) -> int:
        """Return how many can serve, of whichever revision."""
        return self.ready_wanted + self.ready_others


def tally(routes: Sequence[Route], wanted: RevisionId, *, now_ms: int, min_ready_s: float) -> Tally:
    """Count the active routes; a wanted one is ready once it has been so for `min_ready_s`."""
    mine = tuple(route for route in routes if route.active and route.revision_id == wanted)
    others = [route for route in routes if route.active and route.revision_id != wanted]
    return Tally(
        wanted=mine,
        others=termination_order(others),
        ready_wanted=sum(_ready_for(route, now_ms=now_ms) >= min_ready_s * 1000 for route in mine),
        ready_others=sum(route.serves for route in others),
        provisioning=sum(route.status is RouteStatus.PROVISIONING for route in mine),
    )


def _ready_for(route: Route, *, now_ms: int) -> int:
    """Return for how many milliseconds a route has been ready; -1 while it is not."""
    if not route.ready:
        return -1
    return 0 if route.ready_since_ms is None else max(0, now_ms - route.ready_since_ms)


def termination_order(routes: Sequence[Route]) -> tuple[Route, ...]:
    """Return routes in the order they are given up: those that serve least first, then by age.

    Of those that are equally well, those that a rollout left without traffic.
    """

    def rank(route: Route) -> tuple[int, bool, int, str]:
        order = _ORDER[route.health] if route.status is RouteStatus.RUNNING else 0
        return order, route.traffic_ratio > 0, route.created_at_ms, route.id

    return tuple(sorted(routes, key=rank))


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What one cycle does."""

    create: int
    drain: tuple[Route, ...]
    complete: bool

    @property
    def any(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.create or self.drain)


def steps(counted: Tally, bounds: Bounds) -> Steps:
    """Return how many to create, and which of the others to drain, within the bounds.

    What is drained now makes room for what is created in the next cycle: a route still counts
    until the database says that it is leaving.
    """
    room = bounds.max_total - len(counted.others) - len(counted.wanted)
    missing = bounds.target - len(counted.wanted)
    dead = tuple(route for route in counted.others if not route.serves)
    alive = tuple(route for route in counted.others if route.serves)
    spare = max(0, counted.ready - bounds.min_avail)
    return Steps(
        create=max(0, min(room, missing)),
        drain=dead + alive[:spare],
        complete=not counted.others
        and counted.provisioning == 0
        and counted.ready_wanted >= bounds.target,
    )
