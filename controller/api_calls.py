"""One call of a controller's API: how it is asked, and how what it answers is read.

Used by `controller.client`, which knows the paths. What the API refuses is raised as the error that
it was there, with its sentence; every other answer is no answer.
"""

from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import httpx
import msgspec

from controller.errors import (
    ApiUnreachable,
    Conflict,
    ControllerError,
    Denied,
    InvalidInput,
    NotFound,
    Stale,
)

PAGE: Final = 10_000
_Found = TypeVar("_Found")
_RAISES: Final[Mapping[int, type[ControllerError]]] = {
    400: InvalidInput,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    412: Stale,
    413: InvalidInput,
    422: InvalidInput,
}


class Wish(msgspec.Struct, frozen=True):
    """What a change is asked with."""

    reason: str
    expected_version: int | None
    body: Mapping[str, Any] | None = None


class ApiCalls:
    """Calls of one API. Each raises ApiUnreachable if it does not answer."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        """Ask through `http`, whose base URL is the API's, and which knows the token."""
        self._http = http

    async def get(
        self, path: str, kind: type[_Found], params: Mapping[str, str | int] | None = None
    ) -> _Found:
        """Return what stands at a path."""
        return await self._send(self._http.build_request("GET", path, params=params), kind)

    async def items(self, path: str, kind: type[_Found], **params: int) -> tuple[_Found, ...]:
        """Return a listing that comes whole."""
        return (await self.get(path, _Page[kind], params)).items  # type: ignore[valid-type]

    async def pages(self, path: str, kind: type[_Found], **params: str) -> tuple[_Found, ...]:
        """Return a listing that comes in pages, all of them."""
        found: list[_Found] = []
        asked: dict[str, str | int] = {**params, "limit": PAGE}
        while True:
            page = await self.get(path, _Page[kind], asked)  # type: ignore[valid-type]
            found += page.items
            if page.next is None:
                return tuple(found)
            asked["after"] = page.next

    async def ask(self, method: str, path: str, kind: type[_Found], wish: Wish) -> _Found:
        """Ask for a change; return what it came to."""
        headers = {}
        if wish.expected_version is not None:
            headers["if-match"] = f'"{wish.expected_version}"'
        content = None
        if wish.body is not None:
            headers["content-type"] = "application/json"
            content = msgspec.json.encode(wish.body)
        params = {"reason": wish.reason} if wish.reason else None
        request = self._http.build_request(
            method, path, params=params, headers=headers, content=content
        )
        return await self._send(request, kind)

    async def _send(self, request: httpx.Request, kind: type[_Found]) -> _Found:
        where = f"the API at {self._http.base_url}"
        try:
            response = await self._http.send(request)
        except httpx.HTTPError as error:
            raise ApiUnreachable(
                f"{where} does not answer ({str(error) or type(error).__name__}): is a controller "
                "there, and is this its address?"
            ) from error
        if response.is_success:
            return _decoded(response, kind)
        detail = _detail(response)
        if response.status_code in _RAISES:
            raise _RAISES[response.status_code](detail)
        raise ApiUnreachable(f"{where} answered {response.status_code}: {detail}")


class _Page(msgspec.Struct, Generic[_Found], frozen=True):
    """One page of a listing."""

    items: tuple[_Found, ...]
    next: str | None = None


class _Problem(msgspec.Struct, frozen=True):
    """What is read of a problem."""

    detail: str


def _decoded(response: httpx.Response, kind: type[_Found]) -> _Found:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiUnreachable(
            f"what {response.url} answered is not of this API ({error}): is it a controller of "
            "this version?"
        ) from error


def _detail(response: httpx.Response) -> str:
    try:
        return msgspec.json.decode(response.content, type=_Problem).detail
    except (msgspec.DecodeError, UnicodeDecodeError):
        return response.reason_phrase or "no reason given"
