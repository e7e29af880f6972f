"""What must always hold, as pure checks: used by the live counters and by the tests.

Here: of one moment, of a decision, of written changes; `vigil` compares successive moments, and
`ledger` asks the database. A broken one is a bug of ours, never the fleet's fault. Numbers as in
the lifecycle's list. I4 (no mixed set) is told by each commit and each table of the proxies, which
only the simulator and the tests see.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum

from controller.model import (
    Decision,
    Deployment,
    DeploymentId,
    Health,
    Lifecycle,
    Route,
    RouteChange,
    RouteStatus,
    Snapshot,
    Traffic,
)
from controller.rollout.counting import Bounds
from controller.rollout.strategies import limits
from controller.route import evict
from controller.route.guard import BusView, HoldCause, confirmed, evidence_of
from probe.wire import OutcomeKind


class Invariant(StrEnum):
    """The ones that can be checked while it runs."""

    READY_FLOOR = "I1_ready_floor"
    """Our own actions never take the ready routes below the floor."""
    ACTIVE_CEILING = "I2_active_ceiling"
    """We never create more active routes than target plus surge in a rollout, or target at rest."""
    VERDICT = "I3_verdict"
    """No route becomes HEALTHY without a passing probe."""
    TERMINAL = "I5_terminal"
    """A terminal route stays terminal, and a leaving one does not come back."""
    DEADLINE = "I6_deadline"
    """Every rollout ends before its deadline plus a period, HOLD set aside."""
    HISTORY = "I7_history"
    """Every change of a route has exactly one row of history."""
    EPOCHS = "I8_epochs"
    """Who lost the lease never commits: epochs in the history never go back."""
    ORPHANS = "I9_orphans"
    """No orphan outlives two eviction periods, HOLD and the ready floor set aside."""
    REST = "I10_rest"
    """No row is written when nothing changes."""
    OUTAGE = "I11_outage"
    """Nothing is taken out for its health under HOLD, without a bus, or on unconfirmed evidence."""
    CONVERGENCE = "I12_convergence"
    """A deployment at rest never stays at a wrong number of active routes without moving."""
    ONE_ROLLOUT = "rollout_pointers"
    """A deployment has a rollout exactly while it deploys a revision."""


def snapshot_violations(snapshot: Snapshot) -> Iterator[Invariant]:
    """Yield what does not hold at one moment."""
    for deployment in snapshot.deployments.values():
        if (deployment.deploying is None) != (deployment.rollout is None):
            yield Invariant.ONE_ROLLOUT
    for route in snapshot.routes:
        if route.status in (RouteStatus.TERMINATED, RouteStatus.FAILED_TO_START):
            yield Invariant.TERMINAL


def decision_violations(decision: Decision, routes: Sequence[Route]) -> Iterator[Invariant]:
    """Yield what a decision over `routes`, all of its deployment's, breaks."""
    deployment = decision.deployment
    if deployment.lifecycle not in (Lifecycle.READY, Lifecycle.DEPLOYING):
        return
    bounds = limits(deployment)
    leaving = {change.route.id for change in decision.routes if _leaves(change.status)}
    joining = {change.route.id for change in decision.routes if change.traffic is Traffic.ACTIVE}
    if _below_floor(routes, leaving, bounds, joining=joining):
        yield Invariant.READY_FLOOR
    if not decision.create:
        return
    if deployment.lifecycle is Lifecycle.DEPLOYING:
        active, most = sum(route.active for route in routes), bounds.max_total
    else:
        active, most = _active_current(deployment, routes), deployment.target_count
    if active + len(decision.create) > most:
        yield Invariant.ACTIVE_CEILING


def change_violations(
    changes: Iterable[RouteChange],
    snapshot: Snapshot,
    view: BusView,
    *,
    hold: AbstractSet[HoldCause],
) -> Iterator[Invariant]:
    """Yield what the changes that a handler wrote break; the world is the one it decided over."""
    evicted: defaultdict[DeploymentId, set[str]] = defaultdict(set)
    for change in changes:
        if change.health is Health.HEALTHY and not _passes(change.route, view):
            yield Invariant.VERDICT
        if change.category == evict.CATEGORY and _leaves(change.status):
            evicted[change.route.deployment_id].add(change.route.id)
            if _believed_too_much(change, snapshot, view, hold=hold):
                yield Invariant.OUTAGE
    for deployment_id, leaving in evicted.items():
        deployment = snapshot.deployments.get(deployment_id)
        routes = [route for route in snapshot.routes if route.deployment_id == deployment_id]
        if deployment is not None and _below_floor(routes, leaving, limits(deployment)):
            yield Invariant.READY_FLOOR


def floor_of(deployment: Deployment) -> int | str:
    """Return how many ready replicas a deployment keeps, or why its strategy cannot tell.

    One strategy that fails is the affair of its own deployments, never of those beside them.
    """
    try:
        return limits(deployment).min_avail
    except Exception as error:  # noqa: BLE001 - the answer to it: who asks says so, and goes on
        return f"{type(error).__name__}: {error}"


def _below_floor(
    routes: Iterable[Route],
    leaving: AbstractSet[str],
    bounds: Bounds,
    *,
    joining: AbstractSet[str] = frozenset(),
) -> bool:
    ready = Counter(
        route.id in leaving
        for route in routes
        if route.serves or (route.ready and route.id in joining)
    )
    return bool(ready[True]) and ready[False] < bounds.min_avail


def _active_current(deployment: Deployment, routes: Iterable[Route]) -> int:
    current = deployment.current
    return sum(r.active and current is not None and r.revision_id == current.id for r in routes)


def _passes(route: Route, view: BusView) -> bool:
    evidence = evidence_of(route, view)
    return evidence is not None and evidence.status.outcome is OutcomeKind.PASSED


def _believed_too_much(
    change: RouteChange, snapshot: Snapshot, view: BusView, *, hold: AbstractSet[HoldCause]
) -> bool:
    """Tell whether an eviction had no right to happen; an operator's force answers for HOLD."""
    route = change.route
    deployment = snapshot.deployments.get(route.deployment_id)
    forced = deployment is not None and deployment.forced(snapshot.now_ms)
    if (hold or not view.reachable) and not forced:
        return True
    if change.error_code != evict.HEALTH_POLICY or route.health is not Health.UNHEALTHY:
        return False
    return not confirmed(route, view)


def _leaves(status: RouteStatus | None) -> bool:
    return status in (
        RouteStatus.TERMINATING,
        RouteStatus.TERMINATED,
        RouteStatus.FAILED_TO_START,
    )
