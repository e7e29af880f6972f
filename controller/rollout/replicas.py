"""The few things every decision about a deployment is made of: a new replica, a drained one."""

from collections.abc import Iterable, Iterator

from controller.model import (
    Deployment,
    NewRoute,
    Note,
    Revision,
    Route,
    RouteChange,
    RouteId,
    RouteStatus,
    Stage,
    Traffic,
)


def create(
    deployment: Deployment,
    revision: Revision,
    count: int,
    *,
    fresh: Iterator[RouteId],
    message: str,
    serves: bool = True,
) -> tuple[NewRoute, ...]:
    """Return `count` replicas of `revision`, without traffic until they can serve.

    Then they get it at once, unless `serves` says that the rollout decides when (R-33).

    None of an external revision: its replicas are registered by hand.
    """
    if revision.spec.external:
        return ()
    rollout = deployment.rollout
    ours = rollout is not None and rollout.revision_id == revision.id
    return tuple(
        NewRoute(
            id=next(fresh),
            deployment_id=deployment.id,
            revision_id=revision.id,
            traffic=Traffic.INACTIVE,
            traffic_ratio=1.0 if serves else 0.0,
            health_check=revision.spec.health_check,
            rollout_id=rollout.id if rollout is not None and ours else None,
            message=message,
        )
        for _ in range(count)
    )


def drain(routes: Iterable[Route], *, category: str, message: str) -> tuple[RouteChange, ...]:
    """Send routes away: no traffic from here on; their health stays, as the record of why."""
    return tuple(
        RouteChange(
            route=route,
            category=category,
            message=message,
            status=RouteStatus.TERMINATING,
            stage=Stage.DRAINING,
            traffic=Traffic.INACTIVE,
            traffic_ratio=0.0,
        )
        for route in routes
    )


def waiting(deployment: Deployment, *, category: str, message: str) -> Note:
    """Record that nothing could be done yet, and for what it waits (R-19)."""
    return Note(
        deployment_id=deployment.id,
        route_id=None,
        category=category,
        message=message,
        result="waiting",
    )
