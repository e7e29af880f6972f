"""A second opinion before a route is taken out for good (S11).

One prober may be cut off from what it probes. So a failing route is a case that somebody else has
to confirm: another prober that took it over, another prober that was asked (a second target with
the same address, under an id that falls to it), or, where only one prober lives, that one again
5 s later over a connection of its own. Pure: decided from the statuses of successive looks.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import blake2s
from typing import Final

from controller.model import Route, RouteId, RouteStatus
from controller.route.guard.budget import CLOSING_S
from controller.route.guard.evidence import (
    BusView,
    Case,
    StatusEvidence,
    contradicts,
    fails,
    generation_of,
    is_recent,
    word_of,
)
from probe.wire import (
    REASONS,
    Layer,
    OutcomeKind,
    ReplicaHealthStatus,
    ReplicaId,
    partition_of,
)

FRESH_AFTER_S: Final = 5.0
"""A second look by the same prober counts when it came so much later than the first word."""
CONFIRMED_MAX_S: Final = CLOSING_S
"""So long a confirmation holds: when evictions begin again, none is left from within the HOLD."""
ASKED_PERCENT: Final = 5
ASKED_MIN: Final = 8
"""So many second opinions are asked for at once: extra work in failure stays small (S18)."""
ASK_INTERVAL_MAX_S: Final = 5.0
CONTRADICTED_MIN: Final = 3
"""Contradicted so often, and more often than confirmed, a prober's bad news is void."""
_TRIES: Final = 1024
_DIALLED: Final = (Layer.NAME, Layer.CONNECT, Layer.TLS)


def follow(
    cases: Mapping[RouteId, Case], routes: Iterable[Route], view: BusView, *, now_s: float
) -> dict[RouteId, Case]:
    """Return the cases after one more look: those still failing, with who confirms them.

    A look that says nothing of a route (the prober's own fault, a slot in error) leaves its case
    as it is; a pass, an absence or another session ends it. Who confirmed one is not asked again
    while that holds, so it begins anew when it does not: an outage may be over for all but one.
    """
    followed: dict[RouteId, Case] = {}
    for route in routes:
        known, found = cases.get(route.id), view.statuses.get(route.id)
        if known is None and (found is None or found.status.outcome is not OutcomeKind.FAILED):
            continue  # all of a fleet in order: 10,000 of them are looked at each time
        own = word_of(route, view.statuses)
        if known is not None and known.generation != generation_of(route):
            known = None
        if route.status is not RouteStatus.RUNNING:
            continue
        if _says_nothing(route, own, view):
            if known is not None:
                followed[route.id] = known
            continue
        if own is None or not fails(own, route.health_check):
            continue
        if known is not None and known.second and now_s - known.confirmed_at_s >= CONFIRMED_MAX_S:
            known = None
        case = known or Case(
            generation=generation_of(route), since_s=now_s - own.age_s, first=own.status.prober
        )
        if not case.second:
            second = _confirmation(case, route, own, view, now_s=now_s)
            case = replace(case, second=second, confirmed_at_s=now_s if second else 0.0)
        followed[route.id] = case
    return followed


def _says_nothing(route: Route, own: StatusEvidence | None, view: BusView) -> bool:
    if route.id in view.unreadable:
        return True
    return own is not None and own.status.outcome is OutcomeKind.PROBE_ERROR


def _confirmation(
    case: Case, route: Route, own: StatusEvidence, view: BusView, *, now_s: float
) -> str:
    """Return who but the first witness saw the route fail, in words; empty: nobody."""
    other = word_of(route, view.second)
    alone = len(view.probers) <= 1
    for word in (own, other):
        if word is None or word.status.outcome is not OutcomeKind.FAILED:
            continue
        if not is_recent(word, route.health_check):
            continue
        status = word.status
        if status.prober != case.first:
            return f"prober {status.prober} found the same as {case.first}"
        later_s = now_s - word.age_s - case.since_s
        # A second target has connections of its own, none of them older than itself.
        fresh = word is other or on_fresh_connection(status)
        if alone and later_s >= FRESH_AFTER_S and fresh:
            return f"prober {status.prober}, the only one, failed again on a new connection"
    return ""


def on_fresh_connection(status: ReplicaHealthStatus) -> bool:
    """Tell whether the last probe dialled, rather than used a connection kept from before."""
    phases = status.phases_ms
    return (
        REASONS[status.reason].layer in _DIALLED or phases.resolve + phases.connect + phases.tls > 0
    )


def distrusted(
    cases: Mapping[RouteId, Case], routes: Iterable[Route], view: BusView
) -> frozenset[str]:
    """Return the probers whose bad news others contradict, more often than they confirm it."""
    against: dict[str, int] = {}
    for route in routes if cases else ():
        case = cases.get(route.id)
        own = None if case is None else word_of(route, view.statuses)
        if case is None or own is None:
            continue
        other = word_of(route, view.second)
        if case.second:
            against[case.first] = against.get(case.first, 0) - 1
        elif other is not None and contradicts(other, own, route, view):
            against[case.first] = against.get(case.first, 0) + 1
    return frozenset(prober for prober, count in against.items() if count >= CONTRADICTED_MIN)


def to_ask(
    cases: Mapping[RouteId, Case],
    view: BusView,
    *,
    asked: Mapping[RouteId, ReplicaId],
    fleet: int,
    now_s: float,
) -> dict[RouteId, ReplicaId]:
    """Return under which second id each unconfirmed case is to be probed, oldest cases first.

    An id asked before stays while a prober that may be asked owns it. The only prober there is
    is asked no sooner than its answer counts.
    """
    wait_s = FRESH_AFTER_S if len(view.probers) == 1 else 0.0
    open_cases = sorted(
        (case.since_s, route_id)
        for route_id, case in cases.items()
        if not case.second and now_s - case.since_s >= wait_s
    )
    most = max(ASKED_MIN, fleet * ASKED_PERCENT // 100)
    chosen: dict[RouteId, ReplicaId] = {}
    for _, route_id in open_cases[:most]:
        others = _partitions_of_others(cases[route_id], view)
        known = asked.get(route_id)
        if known is not None and partition_of(known) in others:
            chosen[route_id] = known
            continue
        found = next((one for one in second_ids(route_id) if partition_of(one) in others), None)
        if found is not None:
            chosen[route_id] = found
    return chosen


def _partitions_of_others(case: Case, view: BusView) -> frozenset[int]:
    """Return the partitions whose owner may be asked: any other prober, or the only one."""
    may_be_asked = [
        partitions
        for prober, partitions in view.probers.items()
        if (prober != case.first or len(view.probers) == 1) and prober not in view.distrusted
    ]
    return frozenset().union(*may_be_asked)


def second_ids(route_id: RouteId) -> Iterator[ReplicaId]:
    """Yield ids that stand for a route on the bus besides its own, always the same ones.

    >>> next(second_ids(RouteId("00000000-0000-4000-8000-000000000001")))
    '9df854ab-5f36-813b-86d9-bc2551f76da7'
    """
    for number in range(_TRIES):
        digest = blake2s(f"{route_id}/{number}".encode(), digest_size=16).hexdigest()
        yield ReplicaId(
            f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-8{digest[17:20]}-{digest[20:]}"
        )
