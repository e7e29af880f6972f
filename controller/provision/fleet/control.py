"""The fleet's own small HTTP service: see `messages` for what it understands."""

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

import httptools
import msgspec

from controller.provision.fleet.fleet import Fleet
from controller.provision.fleet.messages import Inject, Mend, Wanted

_BODY_MAX_BYTES = 64 * 1024 * 1024
"""Room for a hundred thousand replicas in one call."""
_ids = msgspec.json.Decoder(tuple[str, ...])
_wanted = msgspec.json.Decoder(tuple[Wanted, ...])
_inject = msgspec.json.Decoder(Inject)
_mend = msgspec.json.Decoder(Mend)
_encode = msgspec.json.Encoder().encode

Handler = Callable[[bytes], object]


def handlers(fleet: Fleet) -> Mapping[str, Handler]:
    """Return what each path does with the body posted to it."""
    return {
        "/start": lambda body: fleet.start(_wanted.decode(body)),
        "/inspect": lambda body: fleet.inspect(_ids.decode(body)),
        "/stop": lambda body: fleet.stop(_ids.decode(body)),
        "/inject": lambda body: fleet.inject(_inject.decode(body)),
        "/repair": lambda body: fleet.repair(_mend.decode(body)),
        "/counts": lambda body: fleet.counts(_ids.decode(body)),
    }


class Control(asyncio.Protocol):
    """One client's connection: a request at a time, answered before the next is read."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._path = ""
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        # A stream socket's; uvloop's does not inherit from asyncio's, so it cannot be checked.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse; drop a client that does not speak HTTP."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._close()

    def on_url(self, url: bytes) -> None:
        """Begin a request."""
        self._path += url.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Gather the body, within reason."""
        self._body += body
        if len(self._body) > _BODY_MAX_BYTES:
            self._close()

    def on_message_complete(self) -> None:
        """Answer."""
        path, body = self._path, bytes(self._body)
        self._path = ""
        self._body.clear()
        handler = self._handlers.get(path)
        if handler is None:
            self._reply("404 Not Found", f"no such path: {path}".encode())
            return
        try:
            answer = handler(body)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            self._reply("400 Bad Request", str(error).encode())
            return
        self._reply("200 OK", _encode(answer))

    def _reply(self, status: str, body: bytes) -> None:
        if self._transport is not None:
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n"
            self._transport.write(head.encode() + body)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
