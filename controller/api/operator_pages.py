"""`/metrics`, `/livez` and `/readyz` beside the API: the same pages as on the prober's port."""

from typing import Any, Final

from litestar import HttpMethod, Request, Response
from litestar.di import NamedDependency
from litestar.handlers import route

from controller.api.access import Role
from controller.api.routing import ROLE
from probe import ops

_METHODS: Final = [HttpMethod.GET, HttpMethod.HEAD]

Shown = NamedDependency[ops.Pages]


@route("/metrics", http_method=_METHODS, opt={ROLE: Role.VIEWER}, include_in_schema=False)
async def metrics(request: Request[Any, Any, Any], pages: Shown) -> Response[bytes]:
    """Show the metrics, in the format that is asked for."""
    return _told(request, pages)


@route(["/livez", "/readyz"], http_method=_METHODS, opt={ROLE: None}, include_in_schema=False)
async def verdict(request: Request[Any, Any, Any], pages: Shown) -> Response[bytes]:
    """Tell a supervisor whether to restart, or to count on this controller."""
    return _told(request, pages)


def _told(request: Request[Any, Any, Any], pages: ops.Pages) -> Response[bytes]:
    reply = ops.page(request.url.path, accept=request.headers.get("accept", ""), pages=pages)
    kind = reply.content_type.removesuffix("; charset=utf-8")  # litestar says it again
    return Response(reply.body, status_code=reply.status.value, media_type=kind)


HANDLERS: Final = (metrics, verdict)
