"""What the bus says of a route, and how much of it may be believed.

Evidence is a verdict that somebody trustworthy found at the wire, of this very session, lately.
Everything else is ignorance, and ignorance is not failure (S1, S3, S5, S7).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

SETTLE_MIN_S: Final = 30.0
COVERAGE_INTERVALS: Final = 3
COVERAGE_AGE_FLOOR_S: Final = 5.0
"""Evidence ages up to the controller's own period, 5 s, between two looks at the bus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusEvidence:
    """A status, and how long ago it last showed that its writer lives."""

    status: ReplicaHealthStatus
    age_s: float
    """Since its `seq` last moved, on the controller's monotonic clock (S5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One route that fails, and whether somebody else has seen it fail, too (S11)."""

    generation: int
    since_s: float
    """When it was first seen to fail often enough, on the controller's monotonic clock."""
    first: str
    """The prober that said so first."""
    second: str = ""
    """Who confirmed it, in words for people; empty: nobody yet."""
    confirmed_at_s: float = 0.0
    """When, on the same clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BusView:
    """What one look at the bus found, and what the looks before it tell about that."""

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
    held_before: bool = False
    """Whether a HOLD came before that: closing it takes longer than a start (S21)."""
    seen_enough: bool = True
    """Whether this controller ever saw 95 % of the fleet: before that it evicts nobody (S20)."""
    failed_looks: int = 0
    """How many looks in a row found no bus, this one included."""
    probers: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """The living probers that trust themselves, and the partitions each owns."""
    probers_max: int = 0
    """The most of them at once within the last minutes (S8)."""
    clocks_agree: bool = True
    """Whether database, bus and this process agreed lately on how much time passed (S19)."""
    second: Mapping[RouteId, StatusEvidence] = field(default_factory=dict)
    """What another prober, or a fresh connection, found where one was asked for (S11)."""
    cases: Mapping[RouteId, Case] = field(default_factory=dict)
    """The routes that fail now, and who confirms it."""
    distrusted: frozenset[str] = frozenset()
    """Probers whose bad news others have contradicted: it is void."""


NOTHING_SEEN: Final = BusView(
    reachable=False,
    remembers_for_s=0.0,
    covered_for_s={},
    statuses={},
    unreadable=frozenset(),
    clear_for_s=0.0,
)
"""A look that found no bus."""


def generation_of(route: Route) -> int:
    """Return what tells this route's session and address from any other, as a 32-bit number.

    Goes out with the target and comes back with each status, so that a status found at an
    address the route no longer has is not taken for its own (R-44).
    """
    return crc32(f"{route.session_id}\n{route.host}\n{route.port}".encode())


def word_of(route: Route, found: Mapping[RouteId, StatusEvidence]) -> StatusEvidence | None:
    """Return what is said of `route` in `found`, when it is of its generation, and alive.

    Alive: its `seq` moved within `status_ttl_s` of the interval, 120 s or three intervals.
    """
    evidence = found.get(route.id)
    if evidence is None or route.health_check is None:
        return None
    if evidence.status.generation != generation_of(route):
        return None
    if evidence.age_s > status_ttl_s(route.health_check.interval_s):
        return None
    return evidence


def evidence_of(route: Route, view: BusView) -> StatusEvidence | None:
    """Return the status that may be believed for `route`; None: there is no evidence.

    Where a prober says that the route fails and another one sees it pass, it passes: the way
    there is broken, not the replica. Bad news of a distrusted prober is no evidence at all.
    """
    own = word_of(route, view.statuses)
    if own is None or own.status.outcome is not OutcomeKind.FAILED:
        return own
    other = word_of(route, view.second)
    if other is not None and contradicts(other, own, route, view):
        return other
    return None if own.status.prober in view.distrusted else own


def contradicts(other: StatusEvidence, own: StatusEvidence, route: Route, view: BusView) -> bool:
    """Tell whether `other`, another prober's word and a recent one, says that the route passes."""
    return (
        other.status.outcome is OutcomeKind.PASSED
        and other.status.prober != own.status.prober
        and other.status.prober not in view.distrusted
        and is_recent(other, route.health_check)
    )


def is_recent(evidence: StatusEvidence, check: HealthCheck | None) -> bool:
    """Tell whether evidence is younger than three intervals (S8)."""
    limit_s = 0.0 if check is None else COVERAGE_INTERVALS * check.interval_s
    return evidence.age_s <= max(limit_s, COVERAGE_AGE_FLOOR_S)


def may_still_serve(route: Route, view: BusView) -> bool:
    """Tell whether a probe lately found that `route` serves, or cannot be asked whether it did."""
    if route.health_check is None:
        return False
    if not view.reachable or route.id in view.unreadable:
        return True
    found = evidence_of(route, view)
    return (
        found is not None
        and found.status.outcome is OutcomeKind.PASSED
        and is_recent(found, route.health_check)
    )


def fails(evidence: StatusEvidence | None, check: HealthCheck | None) -> bool:
    """Tell whether evidence says that a route failed `max_retries` times in a row or more."""
    return (
        evidence is not None
        and check is not None
        and evidence.status.outcome is OutcomeKind.FAILED
        and evidence.status.consecutive_failures >= check.max_retries
    )


def confirmed(route: Route, view: BusView) -> bool:
    """Tell whether what may be believed at this moment still is that the route fails."""
    return fails(evidence_of(route, view), route.health_check)


def blind_to(route: Route, view: BusView) -> bool:
    """Tell whether the absence of a status says nothing about `route` (R-05).

    A bus or a prober that came back gets two intervals, and half a minute at least, to say what
    it knows: until then nobody had the time to look.
    """
    if not view.reachable or route.id in view.unreadable:
        return True
    said = view.statuses.get(route.id)
    if said is not None and said.status.prober in view.distrusted:
        return True
    interval_s = 0.0 if route.health_check is None else route.health_check.interval_s
    settle_s = max(SETTLE_MIN_S, 2 * interval_s)
    covered_for_s = view.covered_for_s.get(partition_of(ReplicaId(route.id)), 0.0)
    return min(view.remembers_for_s, covered_for_s) < settle_s


def checked(routes: Sequence[Route]) -> list[Route]:
    """Return the routes that must have evidence: RUNNING, with a health check."""
    return [r for r in routes if r.status is RouteStatus.RUNNING and r.health_check is not None]


def coverage_percent(routes: Sequence[Route], view: BusView) -> float:
    """Return how many of a hundred checked routes have recent evidence; of none, all have."""
    watched = checked(routes)
    if not watched:
        return 100.0
    return 100 * sum(_seen(route, view) for route in watched) / len(watched)


def _seen(route: Route, view: BusView) -> bool:
    evidence = evidence_of(route, view)
    return (
        evidence is not None
        and evidence.status.outcome is not OutcomeKind.PROBE_ERROR
        and is_recent(evidence, route.health_check)
    )


def settle_s(routes: Sequence[Route]) -> float:
    """Return how long a new leader looks before it takes anybody out: two intervals, 30 s (S20).

    The slowest check decides.
    """
    slowest = max((r.health_check.interval_s for r in routes if r.health_check), default=0.0)
    return max(SETTLE_MIN_S, 2 * slowest)
