"""`/openapi.json`: the API as it describes itself, made once from the handlers' own types."""

from importlib.metadata import version
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response
from litestar.handlers import get
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

from controller.api.access import Role
from controller.api.routing import ROLE

CONFIG: Final = OpenAPIConfig(
    title="fleetpulse",
    version=version("fleetpulse"),
    description="Deployments, revisions, rollouts and routes: the verbs of `fleetpulse`.",
    components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
    security=[{"token": []}, {}],
    render_plugins=[],
)


@get("/openapi.json", opt={ROLE: Role.VIEWER}, include_in_schema=False)
async def openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Describe the API."""
    body = msgspec.json.encode(description(request.app))
    return Response(body, media_type="application/json")


def description(app: Litestar) -> Any:  # noqa: ANN401 - a JSON document
    """Return the description of an application."""
    return _portable(msgspec.to_builtins(app.openapi_schema.to_schema()))


def _portable(value: Any) -> Any:  # noqa: ANN401 - same
    """Return a document whose patterns are anchored as other languages do it, too."""
    match value:
        case dict():
            return {
                key: each.replace(r"\A", "^").replace(r"\Z", "$")
                if key == "pattern" and isinstance(each, str)
                else _portable(each)
                for key, each in value.items()
            }
        case list() | tuple():
            return [_portable(each) for each in value]
        case _:
            return value


HANDLERS: Final = (openapi,)
