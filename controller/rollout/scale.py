"""Keeping the replica count of a deployment at rest, and their traffic; called by check_replicas.

READY only: while a deployment is DEPLOYING its count is the rollout's affair (R-30).
"""

from collections.abc import Iterator, Sequence

from controller.model import (
    Decision,
    Deployment,
    Lifecycle,
    Note,
    Revision,
    Route,
    RouteChange,
    RouteId,
    RouteStatus,
    Traffic,
)
from controller.rollout.backoff import BackOff
from controller.rollout.counting import termination_order
from controller.rollout.replicas import create, drain, waiting

CATEGORY = "check_replicas"
BRING_IN = "bring_in"
"""The name of the rule that leaves no ready replica without traffic."""


def missing(deployment: Deployment, routes: Sequence[Route]) -> int:
    """Return how many replicas are to be made; none where the count is not kept here."""
    current = _kept(deployment)
    return 0 if current is None else deployment.target_count - len(_active(current, routes))


def step(
    deployment: Deployment,
    routes: Sequence[Route],
    *,
    fresh: Iterator[RouteId],
    wait: BackOff | None = None,
) -> Decision | None:
    """Return the replicas to create, drain or give traffic to; None: all is as it should be.

    `routes` are the deployment's that are not terminal. Only the current revision's count: what
    is left of others is eviction's affair. Replicas registered by hand are neither made nor
    drained. With `wait` the last ones ended early, and none is made now.
    """
    current = _kept(deployment)
    mine = [] if current is None else _active(current, routes)
    surplus = 0 if current is None else len(mine) - deployment.target_count
    if current is None or surplus == 0:
        return _bring_in(deployment, routes)
    why = (
        f"{len(mine)} replicas of revision {current.number} active, "
        f"{deployment.target_count} wanted"
    )
    if surplus < 0 and wait is not None:
        message = f"backing off: {why}; {wait.message}"
        note = waiting(deployment, category=CATEGORY, message=message)
        return Decision(deployment=deployment, notes=(note,))
    if surplus < 0:
        new = create(deployment, current, -surplus, fresh=fresh, message=f"scaling out: {why}")
        return Decision(deployment=deployment, create=new)
    # Those that serve least go first, so none that serves goes while one that does not is left.
    gone = termination_order(mine)[:surplus]
    return Decision(
        deployment=deployment,
        routes=drain(gone, category=CATEGORY, message=f"scaling in: {why}"),
    )


def _bring_in(deployment: Deployment, routes: Sequence[Route]) -> Decision | None:
    """Give the whole of the traffic to those that a rollout left with less (R-35).

    One that is out of it for its health stays out, and comes back by that.
    """
    current = deployment.current
    if deployment.lifecycle is not Lifecycle.READY or current is None:
        return None
    left = [r for r in _active(current, routes) if r.traffic_ratio < 1 and _takes_traffic(r)]
    if not left:
        return None
    message = f"a rollout left it without its whole share; revision {current.number} serves"
    shares = tuple(
        RouteChange(
            route=route,
            category=CATEGORY,
            message=message,
            status=route.status,
            traffic=Traffic.ACTIVE if route.ready else None,
            traffic_ratio=1.0,
        )
        for route in left
    )
    note = Note(
        deployment_id=deployment.id,
        route_id=None,
        category=CATEGORY,
        message=f"{len(left)} replicas of revision {current.number} get the traffic that a "
        "rollout left them without",
        result="success",
        rule=BRING_IN,
    )
    return Decision(deployment=deployment, routes=shares, notes=(note,))


def _takes_traffic(route: Route) -> bool:
    return route.status is RouteStatus.RUNNING and (route.ready or route.traffic_ratio > 0)


def _kept(deployment: Deployment) -> Revision | None:
    """Return the revision whose count is kept here."""
    if deployment.lifecycle is not Lifecycle.READY or deployment.current is None:
        return None
    return None if deployment.current.spec.external else deployment.current


def _active(current: Revision, routes: Sequence[Route]) -> list[Route]:
    return [route for route in routes if route.active and route.revision_id == current.id]
