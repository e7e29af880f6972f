"""What of the bus may be believed, and when nothing irreversible may happen.

Everything can look bad at once for reasons that are not the fleet's: the bus flushed, the probers
gone, a network cut. A controller that believes it then evicts the fleet. This room tells evidence
from ignorance; classification, warm-up and eviction ask it first, and change nothing for the worse
while a cause to hold is given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from zlib import crc32

from controller.model import HealthCheck, Route, RouteId, RouteStatus
from probe.wire import (
    OutcomeKind,
    ReplicaHealthStatus,
    ReplicaId,
    partition_of,
    status_ttl_s,
)

COVERAGE_MIN_PERCENT: Final = 90
"""Share of the RUNNING routes with a health check that must have recent evidence (S8)."""
SETTLE_MIN_S: Final = 30.0
COVERAGE_INTERVALS: Final = 3
COVERAGE_AGE_FLOOR_S: Final = 5.0
"""Evidence ages up to the controller's own period, 5 s, between two looks at the bus."""
FLEET_BREAKER_PERCENT: Final = 30
FLEET_BREAKER_MIN: Final = 2
"""One replica alone is no pattern: else a fleet of three could never lose a dead one."""
DEPLOYMENT_BREAKER_PERCENT: Final = 50
DEPLOYMENT_BREAKER_MIN: Final = 4
VELOCITY_PERCENT: Final = 5
VELOCITY_MIN: Final = 5
VELOCITY_WINDOW_MS: Final = 60_000


class HoldCause(StrEnum):
    """Why irreversible actions are frozen; safe as a metric label."""

    BUS_UNREACHABLE = "bus_unreachable"
    """The bus could not be read: a read error is not absence (S3)."""
    BUS_AMNESIA = "bus_amnesia"
    """The bus lost its memory; statuses have not had time to come back (S4)."""
    NO_PROBER = "no_prober"
    """No prober is alive: nobody looks (S6)."""
    COVERAGE = "coverage"
    """Fewer than 90 % of the running routes have recent evidence (S8)."""
    BREAKER = "breaker"
    """30 % or more of the fleet, and two routes at least, are not ready (S9)."""
    VELOCITY = "velocity"
    """More than max(5, 5 %) of the routes became unhealthy within 60 s (S10)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusEvidence:
    """A status, and how long ago it last showed that its writer lives."""

    status: ReplicaHealthStatus
    age_s: float
    """Since its `seq` last moved, on the controller's monotonic clock (S5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BusView:
    """What one look at the bus found."""

    reachable: bool
    remembers_for_s: float
    """Since the bus last lost its memory; infinite when it never did."""
    covered_for_s: Mapping[int, float]
    """For how long a living prober has covered each partition without a gap; else no entry."""
    statuses: Mapping[RouteId, StatusEvidence]
    unreadable: frozenset[RouteId]
    """Slots that could not be read: their routes are neither failing nor absent."""
    clear_for_s: float
    """How long there has been no cause to hold, or since this controller began to look; on its
    monotonic clock. Deadlines that rest on evidence run only so far (S15, S20)."""


def generation_of(route: Route) -> int:
    """Return what tells this route's session and address from any other, as a 32-bit number.

    Goes out with the target and comes back with each status, so that a status found at an
    address the route no longer has is not taken for its own (R-44).
    """
    return crc32(f"{route.session_id}\n{route.host}\n{route.port}".encode())


def evidence_of(route: Route, view: BusView) -> StatusEvidence | None:
    """Return the status that may be believed for `route`: of its generation, and alive.

    Alive: its `seq` moved within `status_ttl_s` of the interval, 120 s or three intervals.
    """
    evidence = view.statuses.get(route.id)
    if evidence is None or route.health_check is None:
        return None
    if evidence.status.generation != generation_of(route):
        return None
    if evidence.age_s > status_ttl_s(route.health_check.interval_s):
        return None
    return evidence


def blind_to(route: Route, view: BusView) -> bool:
    """Tell whether the absence of a status says nothing about `route` (R-05).

    A bus or a prober that came back gets two intervals, and half a minute at least, to say what
    it knows: until then nobody had the time to look.
    """
    if not view.reachable or route.id in view.unreadable:
        return True
    interval_s = 0.0 if route.health_check is None else route.health_check.interval_s
    settle_s = max(SETTLE_MIN_S, 2 * interval_s)
    covered_for_s = view.covered_for_s.get(partition_of(ReplicaId(route.id)), 0.0)
    return min(view.remembers_for_s, covered_for_s) < settle_s


def hold(routes: Sequence[Route], view: BusView, *, newly_unhealthy: int) -> frozenset[HoldCause]:
    """Return every cause to freeze irreversible actions now; none: go on.

    `routes` are all of the fleet; `newly_unhealthy` is how many became UNHEALTHY within the last
    minute (`len(recent(...))`).
    """
    checked = [r for r in routes if r.status is RouteStatus.RUNNING and r.health_check is not None]
    causes = {
        HoldCause.BUS_UNREACHABLE: not view.reachable,
        HoldCause.BUS_AMNESIA: view.reachable and view.remembers_for_s < SETTLE_MIN_S,
        HoldCause.NO_PROBER: view.reachable and not view.covered_for_s,
        HoldCause.COVERAGE: not covered(checked, view),
        HoldCause.BREAKER: fleet_breaker(routes),
        HoldCause.VELOCITY: too_fast(newly_unhealthy, fleet=len(checked)),
    }
    return frozenset(cause for cause, given in causes.items() if given)


def covered(checked: Sequence[Route], view: BusView) -> bool:
    """Tell whether at least 90 % of the routes have evidence younger than three intervals."""
    seen = sum(_recently_seen(route, route.health_check, view) for route in checked)
    return seen * 100 >= COVERAGE_MIN_PERCENT * len(checked)


def _recently_seen(route: Route, check: HealthCheck | None, view: BusView) -> bool:
    evidence = evidence_of(route, view)
    if check is None or evidence is None:
        return False
    if evidence.status.outcome is OutcomeKind.PROBE_ERROR:
        return False
    return evidence.age_s <= max(COVERAGE_INTERVALS * check.interval_s, COVERAGE_AGE_FLOOR_S)


def fleet_breaker(routes: Sequence[Route]) -> bool:
    """Tell whether so much of the fleet is not ready that it must not be believed (S9)."""
    return _breaks(routes, percent=FLEET_BREAKER_PERCENT, bad_min=FLEET_BREAKER_MIN, size_min=1)


def deployment_breaker(routes: Sequence[Route]) -> bool:
    """Tell whether half of a deployment of four or more running routes is not ready (S9)."""
    return _breaks(
        routes, percent=DEPLOYMENT_BREAKER_PERCENT, bad_min=1, size_min=DEPLOYMENT_BREAKER_MIN
    )


def _breaks(routes: Sequence[Route], *, percent: int, bad_min: int, size_min: int) -> bool:
    running = [route for route in routes if route.status is RouteStatus.RUNNING]
    bad = sum(not route.ready for route in running)
    return len(running) >= size_min and bad >= bad_min and bad * 100 >= percent * len(running)


def too_fast(newly_unhealthy: int, *, fleet: int) -> bool:
    """Tell whether more routes turned unhealthy in a minute than replicas die of themselves.

    >>> too_fast(5, fleet=20), too_fast(6, fleet=20)
    (False, True)
    >>> too_fast(25, fleet=500), too_fast(26, fleet=500)
    (False, True)
    """
    return newly_unhealthy > max(VELOCITY_MIN, fleet * VELOCITY_PERCENT // 100)


def recent(known_ms: Sequence[int], *, newly: int, now_ms: int) -> tuple[int, ...]:
    """Return the moments routes became unhealthy: those of the last minute, and `newly` now.

    >>> recent((1_000, 50_000), newly=2, now_ms=61_001)
    (50000, 61001, 61001)
    """
    kept = tuple(at_ms for at_ms in known_ms if now_ms - at_ms <= VELOCITY_WINDOW_MS)
    return kept + (now_ms,) * newly
