"""What a change does to a route: the rules that hold whoever decided it.

Used by `controller.db.repository` for every write. Pure.
"""

from dataclasses import replace

from controller.model import Route, RouteChange


def changes_anything(change: RouteChange) -> bool:
    """Tell whether the route would differ afterwards; its reason alone is no difference."""
    return applied(change, now_ms=0) is not change.route


def applied(change: RouteChange, *, now_ms: int) -> Route:
    """Return the route as it is after `change`; the same object when nothing differs.

    A change of status without a stage clears the stage (R-42).
    """
    route = change.route
    status = route.status if change.status is None else change.status
    stage = change.stage
    if stage is None and status is route.status:
        stage = route.stage
    after = replace(
        route,
        status=status,
        stage=stage,
        health=route.health if change.health is None else change.health,
        traffic=route.traffic if change.traffic is None else change.traffic,
        traffic_ratio=route.traffic_ratio if change.traffic_ratio is None else change.traffic_ratio,
        session_id=route.session_id if change.session_id is None else change.session_id,
        host=route.host if change.host is None else change.host,
        port=route.port if change.port is None else change.port,
    )
    if after == route:
        return route
    moved = (status, stage) != (route.status, route.stage)
    return replace(
        after,
        entered_at_ms=now_ms if moved else route.entered_at_ms,
        ready_since_ms=(route.ready_since_ms or now_ms) if after.ready else None,
        version=route.version + 1,
        reason=change.message,
    )
