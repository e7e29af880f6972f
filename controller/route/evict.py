"""Which routes are taken out for good though nobody asked: orphans, and the unhealthy.

Eviction is irreversible, so it is the last to believe bad news: nothing under HOLD, nothing while
a deployment's breaker is open, never on old evidence, never faster than its budget, and never
below the floor of ready replicas.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from controller.model import (
    Deployment,
    DeploymentId,
    Health,
    Lifecycle,
    Revision,
    RevisionId,
    Route,
    RouteChange,
    RouteStatus,
    Snapshot,
)
from controller.route.guard import BusView, HoldCause, deployment_breaker, evidence_of
from controller.route.leave import leave
from probe.wire import OutcomeKind

CATEGORY = "evict"
ORPHAN = "ORPHAN_REVISION"
HEALTH_POLICY = "HEALTH_POLICY"

WINDOW_MS: Final = 60_000
FLEET_PERCENT: Final = 1
DEPLOYMENT_PERCENT: Final = 10
COLD_START_S: Final = 30.0
"""A new leader, or one that just saw a HOLD end, watches this long before it takes anything out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The health evictions of the last minute: what may go is what they leave of it (S13)."""

    spent: tuple[tuple[int, DeploymentId], ...] = ()

    def after(self, applied: Iterable[RouteChange], *, now_ms: int) -> "Budget":
        """Return the budget with what was really evicted now, without what is a minute old."""
        kept = tuple(entry for entry in self.spent if now_ms - entry[0] < WINDOW_MS)
        new = tuple(
            (now_ms, change.route.deployment_id)
            for change in applied
            if change.error_code == HEALTH_POLICY
        )
        return Budget(spent=kept + new)

    def spent_by(self, deployment_id: DeploymentId, *, now_ms: int) -> int:
        """Return how many went from one deployment within the last minute."""
        return sum(
            owner == deployment_id and now_ms - at_ms < WINDOW_MS for at_ms, owner in self.spent
        )

    def spent_in_all(self, *, now_ms: int) -> int:
        """Return how many went from the fleet within the last minute."""
        return sum(now_ms - at_ms < WINDOW_MS for at_ms, _ in self.spent)


def allowance(size: int, *, percent: int) -> int:
    """Return how many of `size` replicas may go within a minute: a share, and at least one.

    >>> allowance(3, percent=10), allowance(500, percent=1)
    (1, 5)
    """
    return max(1, size * percent // 100)


def decide(
    snapshot: Snapshot,
    view: BusView,
    *,
    hold: AbstractSet[HoldCause],
    budget: Budget,
    floors: Mapping[DeploymentId, int],
    period_s: float,
) -> tuple[RouteChange, ...]:
    """Return the evictions of this run, orphans first; under HOLD none.

    `floors` says how many ready replicas each deployment must keep (`Bounds.min_avail`);
    `period_s` is the eviction period, which an orphan must have outlived.
    """
    if hold:
        return ()
    orphans = _orphans(snapshot, floors=floors, period_s=period_s)
    if view.clear_for_s < COLD_START_S:
        return orphans
    return orphans + _unhealthy(snapshot, view, budget=budget, floors=floors)


def _of(snapshot: Snapshot) -> dict[DeploymentId, list[Route]]:
    routes: dict[DeploymentId, list[Route]] = {}
    for route in snapshot.routes:
        deployment = snapshot.deployments.get(route.deployment_id)
        leaving = (Lifecycle.DESTROYING, Lifecycle.DESTROYED)
        if route.active and deployment is not None and deployment.lifecycle not in leaving:
            routes.setdefault(deployment.id, []).append(route)
    return routes


def known_revisions(deployment: Deployment) -> dict[RevisionId, Revision]:
    """Return the revisions a route may be of, by id; none while nothing was activated."""
    pointers = (deployment.current, deployment.deploying)
    return {revision.id: revision for revision in pointers if revision is not None}


def _orphans(
    snapshot: Snapshot, *, floors: Mapping[DeploymentId, int], period_s: float
) -> tuple[RouteChange, ...]:
    changes: list[RouteChange] = []
    for deployment_id, routes in _of(snapshot).items():
        known = known_revisions(snapshot.deployments[deployment_id])
        if not known:
            continue
        floor = floors[deployment_id]
        ready = sum(route.ready and route.revision_id in known for route in routes)
        numbers = " and ".join(str(number) for number in sorted(r.number for r in known.values()))
        changes.extend(
            leave(
                route,
                category=CATEGORY,
                message=f"of no revision in use: the deployment's are {numbers}; "
                f"{ready} of their replicas are ready (floor {floor})",
                error_code=ORPHAN,
            )
            for route in routes
            if route.revision_id not in known
            and snapshot.now_ms - route.created_at_ms > period_s * 1000
            and (not route.ready or ready >= floor)
        )
    return tuple(changes)


def _unhealthy(
    snapshot: Snapshot, view: BusView, *, budget: Budget, floors: Mapping[DeploymentId, int]
) -> tuple[RouteChange, ...]:
    running = sum(route.status is RouteStatus.RUNNING for route in snapshot.routes)
    fleet_max = allowance(running, percent=FLEET_PERCENT)
    fleet_spent = budget.spent_in_all(now_ms=snapshot.now_ms)
    changes: list[RouteChange] = []
    for deployment_id, routes in _of(snapshot).items():
        deployment = snapshot.deployments[deployment_id]
        left = fleet_max - fleet_spent - len(changes)
        own_max = allowance(deployment.target_count, percent=DEPLOYMENT_PERCENT)
        own_left = own_max - budget.spent_by(deployment_id, now_ms=snapshot.now_ms)
        if min(left, own_left) <= 0 or deployment_breaker(routes):
            continue
        chosen = _choose(deployment, routes, view, floor=floors[deployment_id])
        changes.extend(
            leave(
                route,
                category=CATEGORY,
                message=f"{route.health}, which cleanup_target_statuses of {deployment.name} "
                f"lists; at most {own_max} a minute here and {fleet_max} in the fleet, "
                f"ready floor {floors[deployment_id]}",
                error_code=HEALTH_POLICY,
            )
            for route in chosen[: min(left, own_left)]
        )
    return tuple(changes)


def _choose(
    deployment: Deployment, routes: Sequence[Route], view: BusView, *, floor: int
) -> list[Route]:
    """Return the routes the policy lists, oldest first; a ready one only above the floor."""
    known = known_revisions(deployment)
    spare = sum(route.ready for route in routes) - floor
    chosen: list[Route] = []
    for route in routes:
        listed = route.health in deployment.cleanup_target_statuses
        if route.status is not RouteStatus.RUNNING or not listed:
            continue
        revision = known.get(route.revision_id)
        if revision is None or revision.spec.external:
            continue  # an orphan is not the health budget's affair; nobody replaces an external
        if route.health is Health.UNHEALTHY and not _confirmed(route, view):
            continue
        if route.ready:
            if spare <= 0:
                continue
            spare -= 1
        chosen.append(route)
    return chosen


def _confirmed(route: Route, view: BusView) -> bool:
    """Tell whether what the prober says at this moment still is that the route fails."""
    evidence = evidence_of(route, view)
    return (
        evidence is not None
        and route.health_check is not None
        and evidence.status.outcome is OutcomeKind.FAILED
        and evidence.status.consecutive_failures >= route.health_check.max_retries
    )
