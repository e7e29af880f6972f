"""How far a rollout is, as `rollout watch`, the API and the page show it: numbers, not sentences.

Pure; `controller.db.progress` reads what it is made of. Times are the database's: who shows a
countdown takes `now_ms` as now.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from controller.model import (
    Deployment,
    Health,
    Outcome,
    RevisionId,
    Rollout,
    Route,
    RouteStatus,
    Stage,
    Traffic,
)
from controller.rollout.cycle import Cycle, failed_max
from controller.rollout.outlook import Outlook, outlook

READY: Final = "ready"
KEPT: Final = "kept"
"""Ready, without traffic, to switch back to."""
_LEAVING: Final = (Stage.DRAINING.value, Stage.COOLING_DOWN.value)
_STATES: Final = (
    *(stage.value for stage in Stage if stage.value not in _LEAVING),
    READY,
    KEPT,
    *(health.value for health in Health),
    *_LEAVING,
)


class Clock(StrEnum):
    """Whether the deadline comes nearer."""

    RUNS = "runs"
    HELD = "held"
    """HOLD: it stands, and nothing turns back."""
    PAUSED = "paused"
    """An operator stopped it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Replicas of one side in one state."""

    side: str
    """new: of the revision that is rolled out; old: of any other."""
    state: str
    count: int
    traffic_percent: int
    """Of all traffic of the deployment, as it is meant to be."""

    @property
    def leaves(self) -> bool:
        """Tell whether they are on their way out."""
        return self.state in _LEAVING


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """One decision, or one that was repeated."""

    at_ms: int
    rule: str
    """Empty: a person decided, or a sweep."""
    category: str
    state: str
    result: str
    attempts: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far the deployment may stray while it changes, and how far it does."""

    ready: int
    floor: int
    active: int
    ceiling: int
    lost: int
    lost_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """When it ends by itself."""

    clock: Clock
    left_s: float
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One rollout at one moment; the newest of its deployment."""

    deployment: str
    state: str
    now_ms: int
    rollout: str
    strategy: str
    from_number: int | None
    to_number: int | None
    actor: str
    started_at_ms: int
    target: int
    shares: tuple[Share, ...]
    limits: Limits | None = None
    """None: it has ended."""
    deadline: Deadline | None = None
    outlook: Outlook | None = None
    decisions: tuple[Decided, ...] = ()
    """The newest last."""
    outcome: Outcome | None = None
    """None: it is in flight."""
    ended_at_ms: int | None = None
    message: str = ""

    def ready_of(self, side: str) -> int:
        """Return how many of one side are ready."""
        return sum(one.count for one in self.shares if (one.side, one.state) == (side, READY))

    def active_of(self, side: str) -> int:
        """Return how many of one side are not leaving."""
        return sum(one.count for one in self.shares if one.side == side and not one.leaves)

    @property
    def traffic_percent(self) -> int:
        """Return the share of the traffic that the new side has."""
        return sum(one.traffic_percent for one in self.shares if one.side == "new")

    @property
    def essence(self) -> "Progress":
        """Return it without what only time changes."""
        return replace(
            self,
            now_ms=0,
            deadline=self.deadline and replace(self.deadline, left_s=0.0),
            outlook=self.outlook and replace(self.outlook, left_s=None),
            decisions=tuple(replace(one, at_ms=0, attempts=0) for one in self.decisions),
        )


def in_flight(cycle: Cycle, *, state: str, decisions: Sequence[Decided] = ()) -> Progress:
    """Return how far the rollout is that a cycle looks at."""
    bounds, counted, deployment = cycle.bounds, cycle.counted, cycle.deployment
    known = (deployment.current, cycle.deploying)
    numbers = {revision.id: revision.number for revision in known if revision is not None}
    return replace(
        newest(
            deployment,
            cycle.rollout,
            cycle.routes,
            now_ms=cycle.now_ms,
            numbers=numbers,
            state=state,
            decisions=decisions,
        ),
        limits=Limits(
            ready=counted.ready,
            floor=bounds.min_avail,
            active=len(counted.wanted) + len(counted.others),
            ceiling=bounds.max_total,
            lost=cycle.failed,
            lost_max=failed_max(cycle.policy, bounds.target),
        ),
        deadline=deadline(cycle),
        outlook=outlook(cycle),
        outcome=None,
    )


def newest(
    deployment: Deployment,
    rollout: Rollout,
    routes: Sequence[Route],
    *,
    now_ms: int,
    numbers: Mapping[RevisionId, int],
    state: str,
    decisions: Sequence[Decided] = (),
) -> Progress:
    """Return what is known of a rollout without looking ahead: enough for one that has ended."""
    origin = rollout.from_revision_id
    return Progress(
        deployment=deployment.name,
        state=state,
        now_ms=now_ms,
        rollout=rollout.id,
        strategy=rollout.policy.strategy,
        from_number=None if origin is None else numbers.get(origin),
        to_number=numbers.get(rollout.revision_id),
        actor=rollout.actor,
        started_at_ms=rollout.started_at_ms,
        target=deployment.target_count,
        shares=shares(deployment, rollout.revision_id, routes),
        decisions=tuple(decisions),
        outcome=rollout.outcome,
        ended_at_ms=rollout.ended_at_ms,
        message=rollout.message,
    )


def deadline(cycle: Cycle) -> Deadline:
    """Return the clock of the phase: the whole rollout's, or that of going back."""
    timeout_s, paused_at_ms = cycle.policy.rollout_timeout_s, cycle.rollout.paused_at_ms
    clock = Clock.HELD if cycle.held else Clock.RUNS
    if cycle.going_back:
        left_ms = timeout_s * 1000 - cycle.turned_for_ms
        return Deadline(clock=clock, left_s=max(0.0, left_ms / 1000), timeout_s=timeout_s)
    until_ms = cycle.now_ms
    if paused_at_ms is not None:
        clock, until_ms = Clock.PAUSED, paused_at_ms
    left_ms = cycle.deadline_at_ms(until_ms) - until_ms
    return Deadline(clock=clock, left_s=max(0.0, left_ms / 1000), timeout_s=timeout_s)


def shares(deployment: Deployment, new: RevisionId, routes: Iterable[Route]) -> tuple[Share, ...]:
    """Count replicas by side and state, those that leave too, and weigh their traffic.

    Shares of the traffic are between the replicas that a proxy is told to use.
    """
    counts: Counter[tuple[str, str]] = Counter()
    weights: Counter[tuple[str, str]] = Counter()
    for route in routes:
        key = "new" if route.revision_id == new else "old", _state_of(deployment, route)
        counts[key] += 1
        weights[key] += _thousandths(route)
    total = sum(weights.values()) or 1
    return tuple(
        Share(
            side=side,
            state=state,
            count=counts[side, state],
            traffic_percent=round(100 * weights[side, state] / total),
        )
        for side, state in sorted(counts, key=lambda key: (key[0], _STATES.index(key[1])))
    )


def _state_of(deployment: Deployment, route: Route) -> str:
    if not route.ready:
        return (route.stage or route.health).value
    kept = deployment.kept is not None and route.revision_id == deployment.kept.id
    return KEPT if kept and route.traffic is Traffic.INACTIVE else READY


def _thousandths(route: Route) -> int:
    serves = route.status is RouteStatus.RUNNING and route.traffic is Traffic.ACTIVE
    return round(1000 * route.traffic_ratio) if serves else 0
