"""The operator's port of a daemon: /metrics, /livez and /readyz, and nothing else.

Used by both daemons, so it imports nothing of the prober but its errors. Deliberately not a web
server: one request per connection, a bounded head, no body, a deadline for everything, a bounded
number of connections. What to say comes in as `Pages`; this module only carries it.
"""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import anyio
import structlog
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.stapled import MultiListener
from prometheus_client import CollectorRegistry
from prometheus_client import exposition as text
from prometheus_client.openmetrics import exposition as openmetrics

from probe.errors import SettingsError

HEAD_MAX_BYTES: Final = 8192
CONNECTIONS_MAX: Final = 32
REQUEST_TIMEOUT_S: Final = 5.0
ACCEPT_PAUSE_S: Final = 1.0
_log = structlog.get_logger("ops")
_TEXT: Final = "text/plain; charset=utf-8"

Listener = MultiListener[SocketStream]
Trouble = Callable[[], str | None]
"""Says in one sentence what is wrong, or None."""


@dataclass(frozen=True, slots=True)
class Pages:
    """What the port shows."""

    registry: CollectorRegistry
    live: Trouble
    """Wrong means: restart me."""
    ready: Trouble
    """Wrong means: do not count on me now, a restart would not help."""
    before: Callable[[], Awaitable[None]] | None = None
    """Awaited before any page is made, where what it shows lies elsewhere; bounded in time."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a page says."""

    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT


async def bind(host: str, port: int) -> Listener:
    """Listen on an address before anything else is started; port 0 picks a free one.

    Raises:
        SettingsError: if the address cannot be bound.
    """
    try:
        return await anyio.create_tcp_listener(local_host=host, local_port=port)
    except OSError as error:
        cause = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise SettingsError(
            f"the metrics address {host}:{port} cannot be bound ({cause}): "
            "choose another with --metrics; port 0 picks a free one"
        ) from error


def address_of(listener: Listener) -> str:
    """Return where a listener listens, as HOST:PORT."""
    host, port = listener.extra(SocketAttribute.raw_socket).getsockname()[:2]  # noqa: S610 - not Django
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(listener: Listener, pages: Pages) -> None:
    """Serve `pages` until cancelled, then close the listener."""
    open_connections = 0

    async def handle(stream: SocketStream) -> None:
        nonlocal open_connections
        if open_connections >= CONNECTIONS_MAX:
            await stream.aclose()
            return
        open_connections += 1
        try:
            await _converse(stream, pages)
        finally:
            open_connections -= 1

    async with listener:
        while True:
            try:
                await listener.serve(handle)
            except* OSError:  # no descriptor left: this port must not end who ran out of them
                _log.warning("accept_failed", again_in_s=ACCEPT_PAUSE_S)
            await anyio.sleep(ACCEPT_PAUSE_S)


async def _converse(stream: SocketStream, pages: Pages) -> None:
    """Read one request, answer it, close; a client that is slow or gone is its own problem."""
    async with stream:
        with anyio.move_on_after(REQUEST_TIMEOUT_S):
            try:
                head = await BufferedByteReceiveStream(stream).receive_until(
                    b"\r\n\r\n", HEAD_MAX_BYTES
                )
                if pages.before is not None:
                    await pages.before()
                with_body, reply = _respond_safely(head, pages)
                await stream.send(_encode(reply, with_body=with_body))
            except anyio.DelimiterNotFound:
                reply = Reply(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"head too large\n")
                await stream.send(_encode(reply, with_body=True))
            except (anyio.IncompleteRead, anyio.BrokenResourceError, anyio.EndOfStream):
                return


def _respond_safely(head: bytes, pages: Pages) -> tuple[bool, Reply]:
    """Reply with 500 where a page cannot be made: a fault in an instrument ends no daemon."""
    try:
        return respond(head, pages)
    except Exception:  # noqa: BLE001 - as the docstring says
        _log.exception("page_failed")
        return True, Reply(HTTPStatus.INTERNAL_SERVER_ERROR, b"see the log\n")


def respond(head: bytes, pages: Pages) -> tuple[bool, Reply]:
    """Decide the reply to a request head, and whether its body is wanted."""
    request_line, _, fields = head.decode("latin-1").partition("\r\n")
    match request_line.split(" "):
        case ["GET" | "HEAD" as method, target, version] if version.startswith("HTTP/1."):
            accept = _field(fields, "accept")
            return method == "GET", page(target.partition("?")[0], accept=accept, pages=pages)
        case [_, _, version] if version.startswith("HTTP/1."):
            return True, Reply(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n")
        case _:
            return True, Reply(HTTPStatus.BAD_REQUEST, b"not an HTTP/1 request\n")


def page(path: str, *, accept: str, pages: Pages) -> Reply:
    """Return one page, for any server."""
    match path:
        case "/metrics":
            if "application/openmetrics-text" in accept:
                body: bytes = openmetrics.generate_latest(pages.registry)  # type: ignore[no-untyped-call] # the library's gap
                return Reply(HTTPStatus.OK, body, openmetrics.CONTENT_TYPE_LATEST)
            body = text.generate_latest(pages.registry)
            return Reply(HTTPStatus.OK, body, text.CONTENT_TYPE_PLAIN_0_0_4)
        case "/livez":
            return _verdict(pages.live())
        case "/readyz":
            return _verdict(pages.ready())
        case _:
            return Reply(HTTPStatus.NOT_FOUND, b"try /metrics, /livez or /readyz\n")


def _verdict(trouble: str | None) -> Reply:
    if trouble is None:
        return Reply(HTTPStatus.OK, b"ok\n")
    return Reply(HTTPStatus.SERVICE_UNAVAILABLE, f"{trouble}\n".encode())


def _field(fields: str, name: str) -> str:
    values = [
        value.strip()
        for line in fields.split("\r\n")
        for key, colon, value in [line.partition(":")]
        if colon and key.lower() == name
    ]
    return ", ".join(values)


def _encode(reply: Reply, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {reply.status.value} {reply.status.phrase}\r\n"
        f"Content-Type: {reply.content_type}\r\n"
        f"Content-Length: {len(reply.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (reply.body if with_body else b"")
