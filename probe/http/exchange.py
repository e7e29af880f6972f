"""One exchange over httpx, read as the latch reads one: status first, all else bounded.

Called by the detour. Turns what httpx tells and raises into what the judge understands, and
follows how far a probe has come, because a deadline means something else in each phase.
"""

import ssl
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import Final

import httpx

from probe.http.response import (
    BODY_MAX_BYTES,
    HEAD_MAX_BYTES,
    HEADERS_MAX,
    NOT_A_BYTE,
    Fault,
    Reply,
)
from probe.http.roles import Phase

_CAUSES_MAX: Final = 16


class Journey:
    """How far one probe has come, as httpcore tells it by trace events. Durations are seconds."""

    __slots__ = (
        "_mark",
        "asked_at",
        "began_at",
        "connect_s",
        "dialled",
        "first_byte_at",
        "has_proxy",
        "has_tls",
        "phase",
        "reached",
        "received",
        "resolve_s",
        "tls_s",
    )

    def __init__(self, *, has_tls: bool, has_proxy: bool) -> None:
        self.has_tls = has_tls
        self.has_proxy = has_proxy
        self.phase: Phase = "connect"
        self.dialled = False
        self.reached = False  # the replica itself, or the proxy on the way to it
        self.received = 0
        self.resolve_s = self.connect_s = self.tls_s = 0.0
        self.began_at = self.asked_at = self.first_byte_at = self._mark = monotonic()

    async def trace(self, event: str, _info: object) -> None:
        """Take note of an event such as `connection.connect_tcp.started`."""
        now = monotonic()
        source, _, what = event.partition(".")
        match what:
            case "connect_tcp.started" | "connect_unix_socket.started":
                self.dialled, self.phase, self._mark = True, "connect", now
            case "connect_tcp.complete" | "connect_unix_socket.complete":
                self.reached, self.connect_s = True, now - self._mark
                self.phase = "connect" if self._has_tunnel else "tls" if self.has_tls else "reply"
            case "start_tls.started" if source == "proxy" or not self._has_tunnel:
                self.phase, self._mark = "tls", now
            case "start_tls.complete" if source == "proxy" or not self._has_tunnel:
                self.phase, self.tls_s = "reply", now - self._mark
            case "receive_response_headers.started":
                self.asked_at = now
            case "receive_response_headers.complete":
                self.first_byte_at = now
            case _:
                pass

    def times(self) -> dict[str, float]:
        """Return the phases so far, as the judge wants them."""
        return {
            "connect_s": self.connect_s,
            "total_s": monotonic() - self.began_at,
            "resolve_s": self.resolve_s,
            "tls_s": self.tls_s,
        }

    @property
    def _has_tunnel(self) -> bool:
        return self.has_proxy and self.has_tls


async def exchange(
    transport: httpx.AsyncBaseTransport, request: httpx.Request, journey: Journey, *, keep: bool
) -> Reply:
    """Send `request` and read its reply; with `keep` the headers and the body too.

    Raises:
        httpx.TransportError: if there was no reply for a reason below HTTP.
    """
    try:
        response = await transport.handle_async_request(request)
    except httpx.RemoteProtocolError as error:
        if "disconnected" in str(error):
            return NOT_A_BYTE
        return Reply(0, reusable=False, fault=Fault.MALFORMED, detail=str(error))
    try:
        return await _read(response, journey, keep=keep)
    finally:
        with suppress(httpx.HTTPError):
            await response.aclose()


async def _read(response: httpx.Response, journey: Journey, *, keep: bool) -> Reply:
    status, headers = response.status_code, response.headers.raw
    if len(headers) > HEADERS_MAX or sum(len(n) + len(v) for n, v in headers) > HEAD_MAX_BYTES:
        detail = f"head over 16 KiB or {HEADERS_MAX} headers"
        return Reply(0, reusable=False, fault=Fault.TOO_LARGE, detail=detail)
    body: list[bytes] = []
    fault, detail = None, ""
    try:
        async for part in _stream(response):
            journey.received += len(part)
            body.append(part)
            if journey.received > BODY_MAX_BYTES:
                fault, detail = Fault.TOO_LARGE, "body over 64 KiB"
                break
            if not keep:
                body.clear()
    except httpx.RemoteProtocolError as error:
        is_cut = "closed" in str(error) or "disconnected" in str(error)
        fault, detail = Fault.CLOSED if is_cut else Fault.MALFORMED, str(error)
    except httpx.TransportError as error:
        fault, detail = Fault.CLOSED, str(error)
    if not keep:  # the status was said: what becomes of the rest decides nothing
        return Reply(status, reusable=fault is None)
    kept = tuple((name.lower(), value) for name, value in headers)
    whole = b"" if fault is not None else b"".join(body)
    return Reply(status, fault is None, fault, detail, kept, whole)


def _stream(response: httpx.Response) -> httpx.AsyncByteStream:
    """Return the body as it came: nothing is inflated here."""
    stream = response.stream
    if not isinstance(stream, httpx.AsyncByteStream):
        raise TypeError(f"{type(stream).__name__} is not the stream of an asynchronous transport")
    return stream


def root_of(error: BaseException) -> BaseException:
    """Return what lies below an error of httpx: the system's or OpenSSL's, if there is one."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError) or (isinstance(cause, OSError) and cause.errno):
            return cause
    return error


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(_CAUSES_MAX):
        if cause is None:
            return
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        else:
            cause = cause.__cause__ or cause.__context__
