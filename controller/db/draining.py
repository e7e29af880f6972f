"""One replica taken out by hand.

Used by `controller.service`, inside its transaction. The deployment's version moves with it, as its
routes are what it is decided on, and as that is how the controller hears of it.
"""

from sqlalchemy import select

from controller.change import applied
from controller.db.asker import Asker
from controller.db.audit import note_verb
from controller.db.bulk import move_routes
from controller.db.deployments import find_to_change, move_deployment
from controller.db.events import route_changed
from controller.db.history import write_events
from controller.db.rows import route_of, select_routes
from controller.db.session import Write
from controller.db.tables import TERMINAL, deployments, routes
from controller.errors import Conflict, NotFound, Stale
from controller.model import Route, RouteId, RouteStatus
from controller.route.leave import leave

CATEGORY = "drain_route"


async def drain(
    write: Write, route_id: RouteId, by: Asker, *, expected_version: int | None
) -> Route:
    """Send one route away, and return it as it is then; one that is leaving stays as it is.

    Raises:
        NotFound: if there never was such a route.
        Conflict: if it has ended (R-34).
        Stale: if it is at another version than expected.
    """
    name = await write.connection.scalar(
        select(deployments.c.name)
        .join(routes, routes.c.deployment_id == deployments.c.id)
        .where(routes.c.id == route_id)
    )
    if name is None:
        raise NotFound(f"there is no route {route_id!r}; see `fleetpulse route list`")
    seen = await find_to_change(write, name)  # locked before its routes, as everywhere
    query = select_routes(routes.c.id == route_id).with_for_update(of=routes)
    route = route_of((await write.connection.execute(query)).one())
    if seen is None or route.status in TERMINAL:
        raise Conflict(f"route {route_id} has ended ({route.status}); there is nothing to drain")
    if expected_version not in (None, route.version):
        raise Stale(
            f"route {route_id} was to be at version {expected_version}, it is at version "
            f"{route.version}; look again and decide anew"
        )
    if route.status is RouteStatus.TERMINATING:
        return route
    change = leave(route, category=CATEGORY, message=by.says("drained it"))
    after = applied(change, now_ms=write.now_ms)
    await move_deployment(write, seen, {})
    written = await move_routes(write.connection, {route.id: (route.version, after)})
    await write_events(write, [route_changed(change, after, rollout_id=written[route.id])])
    await note_verb(write, "drain", by, deployment_id=seen.id, route_id=route.id)
    return after
