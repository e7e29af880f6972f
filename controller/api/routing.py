"""How a path is declared: what it does, who may, and which errors it may answer with.

A path without a role cannot be declared, so none is open by oversight.
"""

from collections.abc import Awaitable, Callable
from inspect import getdoc
from typing import Annotated, Any, Final, TypedDict

from litestar import HttpMethod, Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.params import HeaderParameter, Parameter

from controller.api.access import Principal, Role
from controller.api.problems import documented
from controller.api.views import NUMBER_MAX
from controller.explanation import Explanation
from controller.service import Service

ROLE: Final = "role"
"""The key of a route's options that says who may."""
REASON_MAX_CHARS: Final = 500
Name = Annotated[
    str,
    Parameter(pattern="^[!-~]{1,128}$", description="The deployment's name."),
]
RouteIdText = Annotated[
    str,
    Parameter(pattern="^[!-~]{1,64}$", description="The route's id."),
]
Number = Annotated[int, Parameter(ge=1, le=NUMBER_MAX, description="Of the revision.")]
RolloutIdText = Annotated[
    str,
    Parameter(pattern="^[!-~]{1,64}$", description="The rollout's id."),
]


class By(TypedDict):
    """Who wants a change, why, and at which version."""

    actor: str
    reason: str
    expected_version: int | None


Asked = NamedDependency[Service]
"""The verbs, as a handler is given them."""
GivenBy = NamedDependency[By]
Explains = Callable[[str], Awaitable[Explanation]]
"""Explains the deployment of a name, or the route of an id."""
Explained = NamedDependency[Explains]


def provide_by(
    request: Request[Principal, Any, Any],
    reason: Annotated[
        str,
        Parameter(
            pattern=r"\A[^\x00-\x1f\x7f]*\Z",
            max_length=REASON_MAX_CHARS,
            description="Why; kept in the audit log.",
        ),
    ] = "",
    if_match: Annotated[
        str | None,
        HeaderParameter(
            name="if-match",
            pattern=r'^"[0-9]{1,18}"$',
            description="The ETag that was decided on; another one now is refused with 412.",
        ),
    ] = None,
) -> By:
    """Say who wants a change."""
    version = None if if_match is None else int(if_match.strip('"'))
    return By(actor=request.user.name, reason=reason, expected_version=version)


def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let those pass that the route is for.

    Raises:
        HTTPException: if nobody says who asks, or who asks may not.
    """
    if connection.scope.get("method") == HttpMethod.OPTIONS:  # litestar's own: tells the methods
        return
    needed: Role | None = handler.opt[ROLE]
    if needed is None:
        return
    principal: Principal | None = connection.scope["user"]
    if principal is None:
        # A browser asks its user for a password: that is how a person shows a token.
        scheme = "Basic" if connection.scope["path"] == "/" else "Bearer"
        raise HTTPException(
            "a token is needed here: send `Authorization: Bearer TOKEN`",
            status_code=401,
            headers={"www-authenticate": f'{scheme} realm="fleetpulse"'},
        )
    if not principal.role.covers(needed):
        raise HTTPException(
            f"{principal.name!r} is a {principal.role}; this needs the role {needed}",
            status_code=403,
        )


Decorator = Callable[[Callable[..., Any]], HTTPRouteHandler]


def looks(path: str, *errors: int, **given: Any) -> Decorator:  # noqa: ANN401 - litestar's own
    """Declare a path that changes nothing, for viewers."""
    return declare(path, HttpMethod.GET, Role.VIEWER, *errors, **given)


def changes(path: str, method: HttpMethod, **given: Any) -> Decorator:  # noqa: ANN401 - same
    """Declare a path that changes something, for operators."""
    return declare(path, method, Role.OPERATOR, 404, 409, 412, **given)


def declare(path: str, method: HttpMethod, role: Role, *errors: int, **given: Any) -> Decorator:  # noqa: ANN401 - same
    """Declare a path, who may, and the errors that it may answer with beside those of every one."""
    reads_body = (400, 413, 415) if "dto" in given else ()

    def of(handler: Callable[..., Any]) -> HTTPRouteHandler:
        name = handler.__name__
        return HTTPRouteHandler(
            path,
            http_method=method,
            opt={ROLE: role},
            operation_id=name,
            summary=(getdoc(handler) or name).partition("\n")[0],
            responses=documented(401, 403, 422, 503, *errors, *reads_body),
            **({"status_code": 200} | given),
        )(handler)

    return of
