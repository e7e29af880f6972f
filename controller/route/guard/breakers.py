"""What looks bad at once is not believed: breakers over the fleet and a deployment, and velocity.

Pure counting; asked by `hold`. Routes of a revision that is only being rolled out do not count:
that a new revision fails is no pattern of blindness, and its rollout must be able to turn back.
Nor do those that a rollout keeps out of traffic, which would hide what becomes of those that serve.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from controller.model import Deployment, DeploymentId, Route, RouteStatus, Snapshot

FLEET_BREAKER_PERCENT: Final = 30
FLEET_BREAKER_MIN: Final = 2
"""One replica alone is no pattern: else a fleet of three could never lose a dead one."""
DEPLOYMENT_BREAKER_PERCENT: Final = 50
DEPLOYMENT_BREAKER_MIN: Final = 4
VELOCITY_PERCENT: Final = 5
VELOCITY_MIN: Final = 5
VELOCITY_WINDOW_MS: Final = 60_000


def settled(
    routes: Iterable[Route], deployments: Mapping[DeploymentId, Deployment]
) -> tuple[Route, ...]:
    """Return the routes that have traffic, and are not of a revision being rolled out."""
    return tuple(
        route
        for route in routes
        if route.traffic_ratio > 0
        and (
            (deployment := deployments.get(route.deployment_id)) is None
            or deployment.deploying is None
            or deployment.deploying.id != route.revision_id
        )
    )


def fleet_breaker(routes: Sequence[Route]) -> bool:
    """Tell whether so much of the fleet is not ready that it must not be believed (S9)."""
    return _breaks(routes, percent=FLEET_BREAKER_PERCENT, bad_min=FLEET_BREAKER_MIN, size_min=1)


def deployment_breaker(routes: Sequence[Route]) -> bool:
    """Tell whether half of a deployment of four or more running routes is not ready (S9)."""
    return _breaks(
        routes, percent=DEPLOYMENT_BREAKER_PERCENT, bad_min=1, size_min=DEPLOYMENT_BREAKER_MIN
    )


def held_deployments(snapshot: Snapshot) -> frozenset[DeploymentId]:
    """Return the deployments whose own breaker holds them."""
    by_deployment: dict[DeploymentId, list[Route]] = {}
    for route in settled(snapshot.routes, snapshot.deployments):
        if route.status is RouteStatus.RUNNING:
            by_deployment.setdefault(route.deployment_id, []).append(route)
    return frozenset(key for key, routes in by_deployment.items() if deployment_breaker(routes))


def _breaks(routes: Sequence[Route], *, percent: int, bad_min: int, size_min: int) -> bool:
    running = [route for route in routes if route.status is RouteStatus.RUNNING]
    bad = sum(not route.ready for route in running)
    return len(running) >= size_min and bad >= bad_min and bad * 100 >= percent * len(running)


def too_fast(newly_unhealthy: int, *, fleet: int) -> bool:
    """Tell whether more routes turned unhealthy in a minute than replicas die of themselves.

    >>> too_fast(5, fleet=20), too_fast(6, fleet=20)
    (False, True)
    >>> too_fast(25, fleet=500), too_fast(26, fleet=500)
    (False, True)
    """
    return newly_unhealthy > max(VELOCITY_MIN, fleet * VELOCITY_PERCENT // 100)


def recent(known_ms: Sequence[int], *, newly: int, now_ms: int) -> tuple[int, ...]:
    """Return the moments routes became unhealthy: those of the last minute, and `newly` now.

    Nor those that a clock set back has put further than that ahead: a step holds by itself.

    >>> recent((1_000, 50_000), newly=2, now_ms=61_001)
    (50000, 61001, 61001)
    """
    kept = tuple(at_ms for at_ms in known_ms if abs(now_ms - at_ms) <= VELOCITY_WINDOW_MS)
    return kept + (now_ms,) * newly
