"""An HTTP/2 server on loopback that answers by path, and a forward proxy, both as bad as asked."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived
from h2.exceptions import ProtocolError

from tests.fakes.asker import until
from tests.fakes.farm import Plot

LONG = 100 * 1024


class Http2Server:
    """Counts what it is asked: by path, and connections."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        """Of the last request."""
        self.connections = 0
        self.open: set[asyncio.Transport] = set()

    def hang_up(self) -> None:
        """Close every connection."""
        for transport in tuple(self.open):
            transport.close()


class _Served(asyncio.Protocol):
    """One connection. `/200` answers 200, `/hang` never, `/reset` resets the stream, ..."""

    def __init__(self, server: Http2Server) -> None:
        self._server = server
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections += 1
        self._server.open.add(self._transport)
        self._h2.initiate_connection()
        self._transport.write(self._h2.data_to_send())

    def connection_lost(self, _exc: Exception | None) -> None:
        self._server.open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._transport.close()
            return
        for event in events:
            if isinstance(event, RequestReceived):
                headers = {str(name): str(value) for name, value in event.headers or []}
                self._server.headers = headers
                self._server.requests[headers[":path"]] += 1
                self._answer(headers[":path"], event.stream_id)
        self._transport.write(self._h2.data_to_send())

    def _answer(self, path: str, stream: int) -> None:
        match path.strip("/"):
            case "hang":
                pass
            case "reset":
                self._h2.reset_stream(stream)
            case "close":
                self._transport.close()
            case "garbage":
                self._transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            case "cut":
                self._h2.send_headers(stream, [(":status", "200"), ("content-length", "10")])
                self._h2.send_data(stream, b"12345")
                self._transport.write(self._h2.data_to_send())
                self._transport.close()
            case "long":
                self._h2.send_headers(stream, [(":status", "200")])
                window = self._h2.local_flow_control_window(stream)
                for _ in range(min(LONG, window) // 16384):
                    self._h2.send_data(stream, b"x" * 16384)
            case "many":
                extra = [(f"x-{number}", "1") for number in range(150)]
                self._h2.send_headers(stream, [(":status", "200"), *extra], end_stream=True)
            case code:
                self._h2.send_headers(stream, [(":status", code), ("x-model", "llama")])
                self._h2.send_data(stream, b'{"ready": true}', end_stream=True)


@asynccontextmanager
async def http2_server(
    context: ssl.SSLContext | None = None, host: str = "127.128.0.1", path: str | None = None
) -> AsyncIterator[tuple[Http2Server, Plot]]:
    """Serve HTTP/2 on a free port of `host`, over TLS where `context` is given."""
    server = Http2Server()
    if context is not None:
        context.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    if path is not None:
        listening = await loop.create_unix_server(lambda: _Served(server), path, ssl=context)
        plot = Plot(f"unix:{path}", 1)
    else:
        listening = await loop.create_server(lambda: _Served(server), host, 0, ssl=context)
        plot = Plot(host, listening.sockets[0].getsockname()[1])
    try:
        yield server, plot
    finally:
        listening.close()
        for transport in tuple(server.open):
            transport.abort()
        await until(lambda: not server.open)


class ForwardingProxy:
    """Forwards what it is asked for; `mood` makes it answer by itself instead."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        """The request lines."""
        self.heads: list[bytes] = []
        self.mood = ""
        """A status line to answer with, or `hang`."""
        self.names: dict[str, str] = {}
        """Where names are, in the proxy's eyes."""
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            line = head.split(b"\r\n", 1)[0].decode()
            self.asked.append(line)
            self.heads.append(head)
            if self.mood == "hang":
                await reader.read()
            if self.mood:
                writer.write(f"HTTP/1.1 {self.mood}\r\nContent-Length: 0\r\n\r\n".encode())
            else:
                await self._forward(line, head, reader, writer)
        self.writers.discard(writer)
        writer.close()

    def hang_up(self) -> None:
        """Close every connection."""
        for writer in tuple(self.writers):
            writer.transport.abort()

    async def _forward(
        self,
        line: str,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        method, url, _ = line.split(" ")
        place = url if method == "CONNECT" else url.removeprefix("http://").partition("/")[0]
        host, _, port = place.rpartition(":")
        try:
            there = await asyncio.open_connection(self.names.get(host, host), int(port))
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            there[1].write(head.replace(f"http://{place}".encode(), b"", 1))
        self.writers.add(there[1])
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
        self.writers.discard(there[1])


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def forwarding_proxy() -> AsyncIterator[tuple[ForwardingProxy, Plot]]:
    """Run a proxy on a free port."""
    proxy = ForwardingProxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield proxy, Plot(host, port)
    finally:
        server.close()
        proxy.hang_up()
        await until(lambda: not proxy.writers)
