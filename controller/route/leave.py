"""How a route is sent away; every room that ends a single route says it the same way."""

from controller.model import Route, RouteChange, RouteStatus, Stage, Traffic


def leave(route: Route, *, category: str, message: str, error_code: str = "") -> RouteChange:
    """Send a route away: no traffic from here on; its health stays, as the record of why."""
    return RouteChange(
        route=route,
        category=category,
        message=message,
        error_code=error_code,
        status=RouteStatus.TERMINATING,
        stage=Stage.DRAINING,
        traffic=Traffic.INACTIVE,
        traffic_ratio=0.0,
    )
