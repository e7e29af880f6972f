"""The safety rules in words: what each one saw, and what has to happen before it lets go.

For `explain`. Decides nothing: `guard` says what holds the fleet, `evict` why a route stays.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from controller.explanation import Gate
from controller.model import Deployment, Route
from controller.route import guard
from controller.route.guard import BusView, HoldCause
from controller.route.guard.budget import CLOSING_S
from controller.route.orphans import known_revisions
from controller.wording import span

EXTERNAL: Final = "external"
"""The gate that never opens."""

HOLD_TEXT: Final[Mapping[HoldCause, tuple[str, str]]] = {
    HoldCause.BUS_UNREACHABLE: ("the bus cannot be read", "the bus to answer"),
    HoldCause.BUS_AMNESIA: (
        "the bus lost its memory; statuses have had no time to come back",
        "30 s of probing since then",
    ),
    HoldCause.NO_PROBER: ("no prober is alive that trusts itself", "a prober to start"),
    HoldCause.FEW_PROBERS: (
        "fewer than half as many probers live as in the last 15 minutes",
        "the others to come back, or 15 minutes",
    ),
    HoldCause.COVERAGE: (
        "fewer than 90 % of the running routes were probed within the last three intervals",
        "the probers to reach them",
    ),
    HoldCause.BREAKER: (
        "30 % or more of the fleet, and two routes at least, are not ready",
        "fewer to be so: look for what they share",
    ),
    HoldCause.DEPLOYMENT_BREAKER: (
        "half or more of this deployment's running routes are not ready",
        "more of them to be ready, or an operator who forces it",
    ),
    HoldCause.VELOCITY: (
        "more than 5 routes, and 5 % of the fleet, became unhealthy within 60 s",
        "a minute without that",
    ),
    HoldCause.CLOCKS: (
        "database, bus and controller differ by more than 5 s on the time that passed",
        "two looks in which they agree",
    ),
}
"""Each cause to hold: what it saw, and what ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many health evictions the last minute has seen, and how many it may see (S13)."""

    fleet_spent: int
    fleet_max: int
    own_spent: int
    own_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """The safety rules as they stand for one route."""

    hold: AbstractSet[HoldCause]
    """Why the fleet is held; nothing where an operator forces the deployment (S21)."""
    held: bool
    """Whether its deployment is held by a breaker of its own, and nobody forces it."""
    forced: bool = False
    """Whether an operator answers for its deployment."""
    stays: AbstractSet[HoldCause | guard.Gate] = frozenset()
    """Why the health policy does not take it out now, all reasons; empty: it does."""
    view: BusView
    budget: Budget
    floor: int
    ready: int
    """How many routes of the revisions in use are ready now."""


def holds(hold: AbstractSet[HoldCause], *, held: bool) -> Iterator[Gate]:
    """Yield each cause to hold, of the fleet and of the deployment."""
    for cause in sorted({*hold, *([HoldCause.DEPLOYMENT_BREAKER] if held else [])}):
        text, waits_for = HOLD_TEXT[cause]
        yield Gate(name=f"HOLD {cause}", text=text, waits_for=waits_for)


def evictions(route: Route, deployment: Deployment, bars: Bars) -> tuple[Gate, ...]:
    """Return what keeps a route that the health policy lists from going; empty: it goes."""
    revision = known_revisions(deployment).get(route.revision_id)
    if revision is not None and revision.spec.external:
        text = "somebody else runs it, so nobody would replace it"
        return (Gate(name=EXTERNAL, text=text, waits_for="its repair, or the next revision"),)
    held = {cause for cause in bars.stays if isinstance(cause, HoldCause)}
    own = {gate for gate in bars.stays if isinstance(gate, guard.Gate)}
    return (*holds(held, held=False), *(_told(gate, bars) for gate in sorted(own)))


def of_orphan(route: Route, bars: Bars) -> Iterator[Gate]:
    """Yield what keeps a route of a revision that nobody uses from going."""
    yield from holds(bars.hold, held=False)
    if not bars.view.reachable and not bars.hold and not bars.forced:
        yield Gate(name="bus", text="the last look at it failed", waits_for="the next one")
    if route.serves and bars.ready < bars.floor:
        yield _told(guard.Gate.FLOOR, bars)


def _told(gate: guard.Gate, bars: Bars) -> Gate:
    text, waits_for = _words(gate, bars)
    return Gate(name=gate.value.replace("_", " "), text=text, waits_for=waits_for)


def _words(gate: guard.Gate, bars: Bars) -> tuple[str, str]:
    budget, clear = bars.budget, span(bars.view.clear_for_s)
    own = f"{budget.own_spent} of {budget.own_max} evictions"
    fleet = f"{budget.fleet_spent} of {budget.fleet_max}"
    known: dict[guard.Gate, tuple[str, str]] = {
        guard.Gate.COLD_START: (
            f"a new leader looks for two intervals, and 30 s at least; so far {clear}",
            "that, and evidence of 95 % of the fleet",
        ),
        guard.Gate.CLOSING: (_hold_over(bars.view.clear_for_s), "2 min without one"),
        guard.Gate.EVIDENCE: (
            "what the prober says at this moment does not confirm it",
            "max_retries failures in a row, freshly seen",
        ),
        guard.Gate.SECOND_SOURCE: (
            "only one prober, over one connection, has seen it fail",
            "another prober's word, or a second look 5 s later",
        ),
        guard.Gate.FLOOR: (
            f"{bars.ready} replicas are ready, and {bars.floor} are kept",
            "others to become ready",
        ),
        guard.Gate.NO_FLOOR: (
            "the deployment's strategy failed to tell how many replicas must stay ready",
            "another policy, or a strategy that can; the controller's log says what failed",
        ),
        guard.Gate.BUDGET: (
            f"{own} in its deployment and {fleet} in the fleet are spent this minute",
            "the oldest of them to be a minute old",
        ),
        guard.Gate.RAMP: (
            "after a HOLD evictions begin with one at once, and double each minute",
            "its turn",
        ),
        guard.Gate.TRANSACTION: ("something had changed when it was to be written", "the next run"),
    }
    return known[gate]


def _hold_over(clear_for_s: float) -> str:
    if clear_for_s >= CLOSING_S:
        return "the deployment's own HOLD has just ended"
    return f"the last HOLD ended {span(clear_for_s)} ago"
