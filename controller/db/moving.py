"""Routes changed by compare-and-set, together with their history.

Used by `repository` for what handlers decide, and by `activation` for what a verb moves; inside
the transaction of its caller.
"""

from collections.abc import Sequence

from controller.change import applied
from controller.db import history
from controller.db.bulk import move_routes
from controller.db.events import Event, route_changed
from controller.db.session import Write
from controller.model import RouteChange, RouteId


async def write_changes(write: Write, changes: Sequence[RouteChange]) -> list[RouteId]:
    """Write changes with their history; return the routes that were not as seen."""
    # The first counts: a second change of the same route in one batch loses.
    first = {change.route.id: change for change in reversed(changes)}
    moves = {
        route_id: (change.route.version, applied(change, now_ms=write.now_ms))
        for route_id, change in first.items()
    }
    written = await move_routes(write.connection, moves)
    events: list[Event] = []
    lost: list[RouteId] = []
    for change in changes:
        route_id = change.route.id
        if first[route_id] is change and route_id in written:
            after = moves[route_id][1]
            events.append(route_changed(change, after, rollout_id=written[route_id]))
        else:
            lost.append(route_id)
    await history.write_events(write, events)
    return lost
