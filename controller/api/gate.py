"""What every request passes before anything looks at its path, and every response on its way out.

Here stand the rules that hold for all: which host was meant, that no other site's page sent it,
who asks, how long a body may take, and the headers that keep a browser from harm.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import anyio
import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from controller.api.access import Principal, Tokens
from controller.api.problems import MEDIA_TYPE, Problem
from controller.settings import is_loopback

BODY_TIMEOUT_S: Final = 10.0
_log = structlog.get_logger("api")
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "connection": "close",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every response, where it does not say otherwise. One request a connection, so that none is
kept open by who only waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who is let in."""

    tokens: Tokens | None
    """None: whoever reaches this port is the operator, so only this machine may."""
    loopback: bool
    """Only names of this machine are answered to: a page of elsewhere cannot borrow one (DNS
    rebinding)."""
    anonymous: Principal


class Refused(Exception):  # noqa: N818 - reads as what it is
    """A request that goes no further."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Gate:
    """An ASGI application around the application."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != ScopeType.HTTP:
            return
        answer = _Answer(send)
        fields = _fields(scope)
        try:
            self._check_host(fields)
            _check_origin(scope, fields)
            scope["user"], scope["auth"] = self._principal(scope, fields), None
            changes = scope["method"] not in _SAFE
            await self._app(scope, _in_time(receive, with_body=changes), answer)
        except Refused as refusal:
            await answer.tell(refusal.status, str(refusal))
        except Exception as error:  # noqa: BLE001 - a fault in one request ends no daemon
            _log.error("api_failed", error=repr(error), exc_info=error)
            await answer.tell(HTTPStatus.INTERNAL_SERVER_ERROR, "see the controller's log")

    def _check_host(self, fields: Mapping[str, str]) -> None:
        meant = fields.get("host", "localhost")
        if self._access.loopback and not is_loopback(_host_of(meant)):
            raise Refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"{meant[:80]!r} is not served here: this port is for this machine alone, ask for "
                "localhost",
            )

    def _principal(self, scope: HTTPScope, fields: Mapping[str, str]) -> Principal | None:
        """Return who asks; None where nobody says so, or says it wrongly."""
        if self._access.tokens is None:
            return self._access.anonymous
        token = _token(scope, fields)
        return None if token is None else self._access.tokens.principal_of(token)


class _Answer:
    """The way out: adds the headers, and knows whether anything was sent yet."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._began = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._began = True
            given = list(message.get("headers", ()))
            known = {name.lower() for name, _ in given}
            added = [
                (name.encode(), value.encode())
                for name, value in _HEADERS.items()
                if name.encode() not in known
            ]
            message["headers"] = [*given, *added]
        await self._send(message)

    async def tell(self, status: HTTPStatus, detail: str) -> None:
        """Answer with a problem, unless an answer is on its way already."""
        if self._began:
            return
        body = msgspec.json.encode(Problem(title=status.phrase, status=status.value, detail=detail))
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        await self({"type": "http.response.start", "status": status.value, "headers": headers})
        await self({"type": "http.response.body", "body": body, "more_body": False})


def _in_time(receive: Receive, *, with_body: bool) -> Receive:
    """Return `receive`, but a body has to be there in time: who sends it slowly holds nothing.

    One that breaks off is refused, too: left to the application it would be a fault of ours.
    """
    deadline = anyio.current_time() + BODY_TIMEOUT_S
    whole = False

    async def receive_in_time() -> Any:  # noqa: ANN401 - litestar's union of messages
        nonlocal whole
        if whole:  # all that can come now is the end of the connection
            return await receive()
        with anyio.move_on_after(deadline - anyio.current_time()):
            message = await receive()
            if with_body and message["type"] == "http.disconnect":
                raise HTTPException("the connection ended before the body", status_code=400)
            whole = not message.get("more_body", False)
            return message
        raise HTTPException(
            f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s", status_code=408
        )

    return receive_in_time


def _check_origin(scope: HTTPScope, fields: Mapping[str, str]) -> None:
    """Refuse changes that a page of another site has a browser send."""
    origin = fields.get("origin")
    if scope["method"] in _SAFE or origin is None:
        return
    if origin.partition("://")[2] != fields.get("host"):
        raise Refused(
            HTTPStatus.FORBIDDEN, f"a page of {origin[:80]!r} may not change anything here"
        )


def _token(scope: HTTPScope, fields: Mapping[str, str]) -> str | None:
    scheme, _, given = fields.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return given.strip()
        # A browser can send nothing else, and sends it by itself: only where it can but look.
        case "basic" if scope["path"] == "/" and scope["method"] in _SAFE:
            try:
                return base64.b64decode(given, validate=True).decode().partition(":")[2]
            except ValueError:  # of any kind: not base64, not of its letters, not text below
                return None
        case _:
            return None


def _fields(scope: HTTPScope) -> Mapping[str, str]:
    found: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in found}


def _host_of(field: str) -> str:
    """Return the host in a Host field.

    >>> _host_of("127.0.0.1:9156"), _host_of("[::1]:9156"), _host_of("localhost")
    ('127.0.0.1', '::1', 'localhost')
    """
    if field.startswith("["):
        return field[1:].partition("]")[0]
    return field.partition(":")[0]
