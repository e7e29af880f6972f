"""Which routes are taken out for good though nobody asked: orphans, and the unhealthy.

Eviction is irreversible, so it is the last to believe bad news: nothing under HOLD, nothing while
a deployment's breaker is open, never on old evidence or one witness's word, never faster than its
budget, and never below the floor of ready replicas. An operator who forces a deployment answers
for what is believed; floor, budget and evidence stay (S21).
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from controller.model import (
    Deployment,
    DeploymentId,
    Health,
    Lifecycle,
    Route,
    RouteChange,
    RouteId,
    RouteStatus,
    Snapshot,
)
from controller.route import orphans
from controller.route.grounds import running
from controller.route.guard import (
    SETTLE_MIN_S,
    Budget,
    BusView,
    Gate,
    HoldCause,
    confirmed,
)
from controller.route.guard.budget import (
    deployment_allowance,
    fleet_allowance,
    opening,
    ramp,
)
from controller.route.guard.evidence import settle_s
from controller.route.leave import leave
from controller.route.orphans import known_revisions

CATEGORY = orphans.CATEGORY
HEALTH_POLICY = "HEALTH_POLICY"

COLD_START_S: Final = SETTLE_MIN_S
"""A new leader watches at least this long before it takes anything out."""

_LEAVING: Final = (Lifecycle.DESTROYING, Lifecycle.DESTROYED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evictions:
    """Who goes in this run, and what keeps the others that would."""

    changes: tuple[RouteChange, ...] = ()
    blocked: Mapping[RouteId, frozenset[HoldCause | Gate]] = field(default_factory=dict)
    """Why each route that the health policy lists stays for now; every reason at once."""


@dataclass(slots=True, kw_only=True)
class _Left:
    """What this run may still take out; shrinks as routes are chosen."""

    fleet: int
    own: int
    run: int | None
    spare: int

    def gates(self, route: Route) -> Iterator[Gate]:
        if min(self.fleet, self.own) <= 0:
            yield Gate.BUDGET
        if self.run is not None and self.run <= 0:
            yield Gate.RAMP
        if route.serves and self.spare <= 0:
            yield Gate.FLOOR

    def take(self, route: Route) -> None:
        self.fleet -= 1
        self.own -= 1
        self.run = None if self.run is None else self.run - 1
        self.spare -= route.serves


def decide(
    snapshot: Snapshot,
    view: BusView,
    *,
    hold: AbstractSet[HoldCause],
    budget: Budget,
    floors: Mapping[DeploymentId, int],
    period_s: float,
    held_deployments: AbstractSet[DeploymentId] = frozenset(),
    closing: AbstractSet[DeploymentId] = frozenset(),
) -> Evictions:
    """Return the evictions of this run, orphans first; under HOLD only what is forced.

    `floors` says how many ready replicas each deployment must keep (`Bounds.min_avail`); from one
    that is not in it nobody goes. `period_s` is the eviction period, which an orphan must have
    outlived.
    """
    by_deployment = _by_deployment(snapshot)
    unused = orphans.leaving(
        snapshot, view, by_deployment, hold=hold, floors=floors, period_s=period_s
    )
    wanted = {key: found for key, found in _candidates(snapshot, by_deployment) if found}
    if not wanted:
        return Evictions(changes=unused)
    run = _Run(snapshot=snapshot, view=view, gates=frozenset(hold) | _start(snapshot, view))
    run.fleet_left = run.fleet_max - budget.spent_in_all(now_ms=snapshot.now_ms)
    for deployment_id, candidates in wanted.items():
        own_max = deployment_allowance(snapshot.deployments[deployment_id].target_count)
        run.choose(
            snapshot.deployments[deployment_id],
            candidates,
            own_left=own_max - budget.spent_by(deployment_id, now_ms=snapshot.now_ms),
            floor=floors.get(deployment_id),
            ready=sum(route.serves for route in by_deployment[deployment_id]),
            own={
                HoldCause.DEPLOYMENT_BREAKER: deployment_id in held_deployments,
                Gate.CLOSING: deployment_id in closing,
            },
        )
    return Evictions(changes=unused + tuple(run.changes), blocked=run.blocked)


def _start(snapshot: Snapshot, view: BusView) -> frozenset[Gate]:
    gate = opening(
        view.clear_for_s,
        held_before=view.held_before,
        seen_enough=view.seen_enough,
        settle_s=settle_s(snapshot.routes),
    )
    return frozenset() if gate is None else frozenset({gate})


class _Run:
    """One run over the deployments: what it took out so far, and what it may still."""

    def __init__(
        self, *, snapshot: Snapshot, view: BusView, gates: frozenset[HoldCause | Gate]
    ) -> None:
        self._now_ms = snapshot.now_ms
        self._view = view
        self._gates = gates
        self.fleet_max = self.fleet_left = fleet_allowance(running(snapshot.routes))
        self._ramp_left = ramp(view.clear_for_s, held_before=view.held_before)
        self.changes: list[RouteChange] = []
        self.blocked: dict[RouteId, frozenset[HoldCause | Gate]] = {}

    def choose(
        self,
        deployment: Deployment,
        candidates: Sequence[Route],
        *,
        own_left: int,
        floor: int | None,
        ready: int,
        own: Mapping[HoldCause | Gate, bool],
    ) -> None:
        """Take out of one deployment whom every gate lets pass; say of the others which do not."""
        if floor is None:
            self.blocked |= {route.id: frozenset({Gate.NO_FLOOR}) for route in candidates}
            return
        forced = deployment.forced(self._now_ms)
        general = self._gates | {gate for gate, shut in own.items() if shut}
        left = _Left(
            fleet=self.fleet_left,
            own=own_left,
            run=None if forced else self._ramp_left,
            spare=ready - floor,
        )
        limits = (
            f"at most {deployment_allowance(deployment.target_count)} a minute here and "
            f"{self.fleet_max} in the fleet, ready floor {floor}"
        )
        for route in candidates:
            gates = frozenset[HoldCause | Gate]() if forced else general
            gates |= {*_doubts(route, self._view, forced=forced), *left.gates(route)}
            if gates:
                self.blocked[route.id] = gates
                continue
            left.take(route)
            change = _evict(deployment, route, self._view, limits=limits, forced=forced)
            self.changes.append(change)
        self.fleet_left = left.fleet
        if not forced:
            self._ramp_left = left.run


def _evict(
    deployment: Deployment, route: Route, view: BusView, *, limits: str, forced: bool
) -> RouteChange:
    case = view.cases.get(route.id)
    seconded = f"; {case.second}" if case is not None and case.second else ""
    by_force = "; an operator forced it" if forced else ""
    return leave(
        route,
        category=CATEGORY,
        message=f"{route.health}, which cleanup_target_statuses of {deployment.name} "
        f"lists{seconded}{by_force}; {limits}",
        error_code=HEALTH_POLICY,
    )


def _by_deployment(snapshot: Snapshot) -> dict[DeploymentId, list[Route]]:
    routes: dict[DeploymentId, list[Route]] = {}
    for route in snapshot.routes:
        deployment = snapshot.deployments.get(route.deployment_id)
        if route.active and deployment is not None and deployment.lifecycle not in _LEAVING:
            routes.setdefault(deployment.id, []).append(route)
    return routes


def is_for_health(change: RouteChange) -> bool:
    """Tell whether a change is an eviction that the budgets count."""
    return change.error_code == HEALTH_POLICY


def listed(deployment: Deployment, routes: Sequence[Route]) -> Iterator[Route]:
    """Yield the RUNNING routes whose health the policy lists, oldest first.

    An orphan is not the health policy's affair, and nobody would replace an external one.
    """
    for route in routes:
        if route.status is not RouteStatus.RUNNING:
            continue
        if route.health not in deployment.cleanup_target_statuses:
            continue
        revision = known_revisions(deployment).get(route.revision_id)
        if revision is not None and not revision.spec.external:
            yield route


def _doubts(route: Route, view: BusView, *, forced: bool) -> Iterator[Gate]:
    """Yield why what is said of a route is not enough to take it out."""
    if not view.reachable:
        yield Gate.EVIDENCE
    elif route.health is Health.UNHEALTHY:
        if not confirmed(route, view):
            yield Gate.EVIDENCE
        case = view.cases.get(route.id)
        if not forced and (case is None or not case.second):
            yield Gate.SECOND_SOURCE


def _candidates(
    snapshot: Snapshot, by_deployment: Mapping[DeploymentId, list[Route]]
) -> Iterator[tuple[DeploymentId, list[Route]]]:
    for deployment_id, routes in by_deployment.items():
        yield deployment_id, list(listed(snapshot.deployments[deployment_id], routes))
