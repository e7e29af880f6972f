"""`/openapi.json`: the API as it describes itself, made once from the handlers' own types."""

from collections.abc import Callable
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final

import msgspec
from litestar import Litestar, Response
from litestar.di import NamedDependency
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
)


class Described:
    """The description, made when it is first asked for: it takes a moment, and few ask."""

    def __init__(self, describing: Callable[[], Litestar]) -> None:
        """Describe what `describing` builds: litestar hangs its own pages on what it describes."""
        self._describing = describing

    @cached_property
    def document(self) -> Any:  # noqa: ANN401 - a JSON document
        """Return the description."""
        return _portable(msgspec.to_builtins(self._describing().openapi_schema.to_schema()))


@get("/openapi.json", opt={ROLE: Role.VIEWER}, include_in_schema=False)
async def openapi(described: NamedDependency[Described]) -> Response[bytes]:
    """Describe the API."""
    return Response(msgspec.json.encode(described.document), media_type="application/json")


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
