"""`/v1/routes`, and the audit log: what is not asked below one deployment's name."""

from typing import Annotated, Final

from litestar import HttpMethod, Response
from litestar.params import Parameter

from controller.api.paging import After, Entries, Limit, page_of
from controller.api.routing import Asked, Explained, GivenBy, Name, RouteIdText, changes, looks
from controller.api.views import (
    Audit,
    AuditView,
    History,
    HistoryView,
    Routes,
    RouteView,
    all_shown,
    route_shown,
)
from controller.explanation import Explanation
from controller.model import RouteId

OfDeployment = Annotated[Name | None, Parameter(description="Only those of this deployment.")]


@looks("/v1/routes", 404)
async def list_routes(
    verbs: Asked, deployment: OfDeployment = None, limit: Limit = 1000, after: After = None
) -> Routes:
    """List the routes that have not ended, oldest first."""
    items, following = page_of(await verbs.list_routes(deployment), limit=limit, after=after)
    return Routes(items=all_shown(items, RouteView), next=following)


@looks("/v1/routes/{route_id:str}", 404)
async def get_route(verbs: Asked, route_id: RouteIdText) -> Response[RouteView]:
    """Show a route, also one that ended; its ETag is its version."""
    return route_shown(await verbs.get_route(RouteId(route_id)))


@looks("/v1/routes/{route_id:str}/history", 404)
async def route_history(verbs: Asked, route_id: RouteIdText, limit: Entries = 50) -> History:
    """List what happened to a route, newest first."""
    entries = await verbs.route_history(RouteId(route_id), limit=limit)
    return History(items=all_shown(entries, HistoryView))


@looks("/v1/routes/{route_id:str}/explain", 404)
async def explain_route(explained: Explained, route_id: RouteIdText) -> Explanation:
    """Tell why a route is where it is, which rule fired, and what happens next."""
    return await explained(route_id)


@changes("/v1/routes/{route_id:str}/drain", HttpMethod.POST, status_code=200)
async def drain_route(verbs: Asked, route_id: RouteIdText, by: GivenBy) -> Response[RouteView]:
    """Take a replica out; If-Match is of the route's version."""
    return route_shown(await verbs.drain_route(RouteId(route_id), **by))


@looks("/v1/audit")
async def list_audit(verbs: Asked, limit: Entries = 50) -> Audit:
    """List who asked for what, newest first."""
    return Audit(items=all_shown(await verbs.list_audit(limit=limit), AuditView))


HANDLERS: Final = (list_routes, get_route, route_history, explain_route, drain_route, list_audit)
