"""When nothing irreversible may happen: the causes of HOLD, all of them weighed at each look.

HOLD freezes what cannot be undone, evictions, the end of warm-ups and of rollouts; probing,
target sync, additions and the operator's verbs go on.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Final

from controller.model import Route
from controller.route.guard.breakers import fleet_breaker, too_fast
from controller.route.guard.evidence import SETTLE_MIN_S, BusView, checked

COVERAGE_MIN_PERCENT: Final = 90
"""Share of the RUNNING routes with a health check that must have recent evidence (S8)."""
FAILED_LOOKS_MIN: Final = 2
"""One failed look changes nothing; two in a row are an outage (S3)."""
PROBERS_WINDOW_S: Final = 900.0
"""The recent maximum of living probers is that of 15 minutes (S8)."""
LOST_KEYS_MIN: Final = 2
"""One status alone is gone because its replica is: no amnesia of a bus (S4)."""


class HoldCause(StrEnum):
    """Why irreversible actions are frozen; safe as a metric label."""

    BUS_UNREACHABLE = "bus_unreachable"
    """The bus could not be read twice in a row: a read error is not absence (S3)."""
    BUS_AMNESIA = "bus_amnesia"
    """The bus lost its memory, or half of what it knew; statuses have to come back (S4)."""
    NO_PROBER = "no_prober"
    """No prober that trusts itself is alive: nobody looks (S6, S7)."""
    FEW_PROBERS = "few_probers"
    """Fewer than half as many probers are alive as within the last 15 minutes (S8)."""
    COVERAGE = "coverage"
    """Fewer than 90 % of the running routes have recent evidence (S8)."""
    BREAKER = "breaker"
    """30 % or more of the fleet, and two routes at least, are not ready (S9)."""
    DEPLOYMENT_BREAKER = "deployment_breaker"
    """Half or more of a deployment's four or more running routes are not ready: it alone is
    held (S9)."""
    VELOCITY = "velocity"
    """More than max(5, 5 %) of the routes became unhealthy within 60 s (S10)."""
    CLOCKS = "clocks"
    """Database, bus and this process differ by more than 5 s on the time that passed (S19)."""


def hold(
    routes: Sequence[Route],
    view: BusView,
    *,
    coverage: float,
    newly_unhealthy: int,
    before: AbstractSet[HoldCause] = frozenset(),
) -> frozenset[HoldCause]:
    """Return every cause to freeze irreversible actions of the whole fleet now; none: go on.

    `routes` are all of the fleet but those of revisions being rolled out, `coverage` their
    `coverage_percent`; `newly_unhealthy` is how many became UNHEALTHY within the last minute;
    `before` was the answer at the look before.
    """
    if not view.reachable:
        if 0 < view.failed_looks < FAILED_LOOKS_MIN:
            return frozenset(before)
        return frozenset({HoldCause.BUS_UNREACHABLE})
    causes = {
        HoldCause.BUS_AMNESIA: view.remembers_for_s < SETTLE_MIN_S,
        HoldCause.NO_PROBER: not view.covered_for_s,
        HoldCause.FEW_PROBERS: 0 < 2 * len(view.probers) < view.probers_max,
        HoldCause.COVERAGE: coverage < COVERAGE_MIN_PERCENT,
        HoldCause.BREAKER: fleet_breaker(routes),
        HoldCause.VELOCITY: too_fast(newly_unhealthy, fleet=len(checked(routes))),
        HoldCause.CLOCKS: not view.clocks_agree,
    }
    return frozenset(cause for cause, given in causes.items() if given)


def lost_half(known: int, *, gone: int) -> bool:
    """Tell whether half of the statuses known at the look before are gone at this one (S4).

    >>> lost_half(10, gone=4), lost_half(10, gone=5), lost_half(1, gone=1)
    (False, True, False)
    """
    return gone >= LOST_KEYS_MIN and 2 * gone >= known
