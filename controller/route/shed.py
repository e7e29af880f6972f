"""Stop traffic quickly, terminate slowly: who fails gets no new requests, and loses nothing else.

The reversible half of dealing with a failing replica (S12); called by classify_health, in the same
write as the verdict. A route so taken out of traffic keeps its `traffic_ratio`, which is how it
differs from one a rollout keeps out (ratio 0), and only this room brings it back.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from controller.model import Health, Route, RouteChange, RouteId, RouteStatus, Traffic
from controller.route.guard import BusView, confirmed

CATEGORY = "classify_health"
STOPPED = "TRAFFIC_STOPPED"


def is_shed(route: Route) -> bool:
    """Tell whether a route is out of traffic by this rule, rather than by a rollout's wish."""
    return route.traffic is Traffic.INACTIVE and route.traffic_ratio > 0


def floor_of(serving: int) -> int:
    """Return how many of a deployment's routes keep their traffic whatever is said of them.

    >>> [floor_of(size) for size in (1, 2, 3, 4)]
    [1, 1, 2, 2]
    """
    return -(-serving // 2)


def with_traffic(
    changes: Iterable[RouteChange],
    routes: Iterable[Route],
    fleet: Iterable[Route],
    view: BusView,
) -> tuple[RouteChange, ...]:
    """Return `changes` of health with what follows for traffic, and what else is due of that.

    `routes` are those that may be changed, `fleet` all of them, in order of creation.
    """
    by_id = {change.route.id: change for change in changes}
    traffic: dict[RouteId, Traffic] = {}
    for serving in _serving(fleet).values():
        if any(is_shed(route) or _unhealthy(route, by_id) for route in serving):
            traffic |= _wanted(serving, by_id, view)
    followed = tuple(
        replace(change, traffic=traffic.get(route_id)) for route_id, change in by_id.items()
    )
    return followed + tuple(
        _alone(route, traffic[route.id])
        for route in routes
        if route.id in traffic and route.id not in by_id
    )


def _serving(routes: Iterable[Route]) -> Mapping[str, list[Route]]:
    """Return the routes that are to serve, by deployment: with traffic, or out of it by us."""
    serving: dict[str, list[Route]] = {}
    for route in routes:
        to_serve = route.traffic is Traffic.ACTIVE or is_shed(route)
        if route.status is RouteStatus.RUNNING and to_serve:
            serving.setdefault(route.deployment_id, []).append(route)
    return serving


def _wanted(
    serving: list[Route], changes: Mapping[RouteId, RouteChange], view: BusView
) -> dict[RouteId, Traffic]:
    """Return the new traffic of those whose traffic changes; who is out already stays first."""
    may_stop = len(serving) - floor_of(len(serving))
    out = [route for route in serving if is_shed(route) and not _ready(route, changes)]
    failing = [
        route
        for route in serving
        if not is_shed(route) and _unhealthy(route, changes) and confirmed(route, view)
    ]
    stopped = {route.id for route in (out + failing)[:may_stop]}
    return {
        route.id: Traffic.INACTIVE if route.id in stopped else Traffic.ACTIVE
        for route in serving
        if (route.id in stopped) is not is_shed(route)
    }


def _health(route: Route, changes: Mapping[RouteId, RouteChange]) -> Health:
    change = changes.get(route.id)
    return route.health if change is None or change.health is None else change.health


def _ready(route: Route, changes: Mapping[RouteId, RouteChange]) -> bool:
    return route.health_check is None or _health(route, changes) is Health.HEALTHY


def _unhealthy(route: Route, changes: Mapping[RouteId, RouteChange]) -> bool:
    return _health(route, changes) is Health.UNHEALTHY


def _alone(route: Route, traffic: Traffic) -> RouteChange:
    if traffic is Traffic.ACTIVE:
        why = "half of the deployment's routes keep their traffic, and it is one of them again"
    else:
        why = "it fails, and others of its deployment can take its traffic"
    return RouteChange(
        route=route,
        category=CATEGORY,
        message=f"{route.health}: {why}",
        error_code=STOPPED if traffic is Traffic.INACTIVE else "",
        traffic=traffic,
    )
