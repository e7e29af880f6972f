"""Errors as problem details (RFC 9457): the sentence that the command line would print, too.

Every error leaves here, whoever raised it: our own, the router's, or a fault nobody meant.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec

from controller.errors import (
    Conflict,
    ControllerError,
    InvalidInput,
    NotFound,
    Stale,
    Unreachable,
)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 2
_SHOWN_CHARS: Final = 80
_log = structlog.get_logger("api")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    """One sentence, with the value and the remedy."""


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None
) -> Response[Problem]:
    """Return the response that tells of an error."""
    found = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return Response(found, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def documented(*statuses: int) -> dict[int, ResponseSpec]:
    """Return how the API's description tells of errors."""
    return {
        status: ResponseSpec(
            Problem,
            generate_examples=False,
            description=HTTPStatus(status).phrase,
            media_type=MEDIA_TYPE,
        )
        for status in statuses
    }


_STATUSES: Final[tuple[tuple[type[ControllerError], int], ...]] = (
    (InvalidInput, 422),
    (NotFound, 404),
    (Stale, 412),
    (Conflict, 409),
)


def of_ours(_: Request[Any, Any, Any], error: ControllerError) -> Response[Problem]:
    """Tell an error that was raised on purpose."""
    if isinstance(error, Unreachable):
        return problem(503, str(error), headers={"retry-after": str(RETRY_AFTER_S)})
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return problem(status, str(error))
    return unforeseen(_, error)


def of_router(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """Tell what routing, guards and the decoding of parameters refused."""
    headers = error.headers or {}
    if isinstance(error, ValidationException):
        return problem(422, _parameters(request, error) or error.detail)
    if error.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
        return unforeseen(request, error)
    return problem(error.status_code, _sentence(request, error), headers=headers)


def unforeseen(_: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Tell a fault of ours, and nothing of its inside."""
    _log.error("api_failed", error=repr(error), exc_info=error)
    return problem(500, "a fault of the controller, not of the request; its log has more")


def _sentence(request: Request[Any, Any, Any], error: HTTPException) -> str:
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return f"there is no {request.url.path!r}; /openapi.json lists what there is"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("allow", "")
            return f"{request.method} is not for {request.url.path!r}; use {allowed or 'another'}"
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return "the body is larger than 1 MiB; send less"
        case _:
            return error.detail


def _parameters(request: Request[Any, Any, Any], error: ValidationException) -> str:
    """Return what is wrong with each parameter, in one sentence."""
    wrong = error.extra if isinstance(error.extra, list) else []
    return "; ".join(_parameter(request, each) for each in wrong if isinstance(each, dict))


def _parameter(request: Request[Any, Any, Any], wrong: Mapping[str, Any]) -> str:
    key = str(wrong.get("key"))
    if key == "data":
        return "the body is missing; send a JSON object"
    given = request.path_params | dict(request.query_params) | dict(request.headers)
    name = key if key in given else key.replace("_", "-")
    message = str(wrong.get("message")).replace("`", "")
    return f"{name}: {message}, found {str(given.get(name))[:_SHOWN_CHARS]!r}"
