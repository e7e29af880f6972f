"""A farm of HTTP servers on loopback, each answering in one way, known by the name of its kind.

One listening socket on the wildcard address serves every 127.x.y.z address, and the address a
client dialled tells which kind it meets: thousands of targets cost one descriptor and one table
row each. Kinds that need a socket of their own (`refused`, `unanswered`) get one. The farm runs on
the test's own loop and counts what it was asked, so that tests compare with the truth.
"""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self, cast

from tests.fakes.replies import SCRIPTS, TABLE

FIRST_ADDRESS: Final = int(IPv4Address("127.77.0.1"))
BACKLOG: Final = 4096
ANYWHERE: Final = "0.0.0.0"  # all of 127/8 at once
SLOW_BYTE_S: Final = 0.1
SLOWLY: Final = b"HTTP/1.1 200 OK\r\nX-Slow: " + b"." * 150 + b"\r\nContent-Length: 2\r\n\r\nok"
"""Good, and 20 s long: one who stood still for a moment does not find it whole."""
RESET_AFTER_S: Final = 0.02
"""So that what was sent is read first: a reset throws away what waits in the buffers."""
LINGER_0: Final = struct.pack("ii", 1, 0)

OWN_SOCKET: Final = frozenset({"refused", "unanswered"})
KINDS: Final = frozenset(TABLE)
HEAD_CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Plot(NamedTuple):
    """Where one target of the farm lies."""

    host: str
    port: int


class Keeper(Protocol):
    """Who counts what is served, and says how to answer."""

    def accepted(self, host: str, transport: asyncio.Transport, /) -> None:
        """Count a connection."""

    def asked(self, host: str, head: bytes, /) -> str:
        """Count a request; return the kind that answers it."""

    def lost(self, transport: asyncio.Transport, /) -> None:
        """Take note that a connection is closed."""


class Served(asyncio.Protocol):
    """One accepted connection."""

    def __init__(self, farm: Keeper) -> None:
        self._farm = farm
        self._host = ""
        self._requests = 0
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("sockname")
        self._host = name[0] if name else ""
        self._farm.accepted(self._host, self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            self._requests += 1
            self._answer(self._farm.asked(self._host, head))

    def connection_lost(self, _exc: Exception | None) -> None:
        self._farm.lost(self._transport)
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def _answer(self, kind: str) -> None:
        write = self._transport.write
        match kind:
            case "stale" if self._requests > 1:
                self._transport.close()
            case "stale":
                write(SCRIPTS["ok200"].data)
            case "slow_bytes":
                self._drip(iter(SLOWLY))
            case "endless_body":
                write(HEAD_CHUNKED)
                self._pour(b"1000\r\nok" + b"x" * 4094 + b"\r\n")
            case "endless_info":
                self._pour(b"HTTP/1.1 102 Wait\r\n\r\n")
            case "reset":
                reset(self._transport)
            case "reset_body":
                write(SCRIPTS["half_body"].data)
                self._later(RESET_AFTER_S, lambda: reset(self._transport))
            case "half_head":
                write(b"HTTP/1.1 200 OK\r\nX-Half: ")
            case _:
                write(SCRIPTS[kind].data)
                if SCRIPTS[kind].close:
                    self._transport.close()

    def _drip(self, left: Iterator[int]) -> None:
        byte = next(left, None)
        if byte is not None:
            self._transport.write(bytes([byte]))
            self._later(SLOW_BYTE_S, lambda: self._drip(left))

    def _pour(self, piece: bytes) -> None:
        if not self._paused:
            self._transport.write(piece)
        self._later(0.001, lambda: self._pour(piece))

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, call)


def reset(transport: asyncio.Transport) -> None:
    """Close with RST, as a killed process or a firewall does."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
    transport.abort()


def unserved(host: str, kind: str) -> list[socket.socket]:
    """Return a bound socket that refuses or lets wait who connects, and what it takes to be so."""
    own = socket.socket()
    own.bind((host, 0))
    if kind == "refused":
        return [own]
    own.listen(0)  # a full accept queue: further SYNs are dropped by the kernel
    sockets = [own]
    for _ in range(2):
        filler = socket.socket()
        filler.settimeout(0)
        with suppress(BlockingIOError):
            filler.connect(("127.0.0.1" if host == ANYWHERE else host, own.getsockname()[1]))
        sockets.append(filler)
    return sockets


class Farm:
    """Use as `async with Farm() as farm: plot = farm.plant("ok200")`."""

    serving: type[Served] = Served

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        """Requests by address."""
        self.connections: Counter[str] = Counter()
        """Connections ever accepted, by address."""
        self.heads: dict[str, bytes] = {}
        """The head of the last request, by address."""
        self._kinds: dict[str, str] = {}
        self._open: dict[asyncio.Transport, str] = {}
        self._own: list[socket.socket] = []
        self._planted = 0
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        listener = socket.socket()
        listener.bind((ANYWHERE, 0))
        self.port = listener.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: self.serving(self), sock=listener, backlog=BACKLOG
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for transport in tuple(self._open):
            transport.abort()
        if self._server is not None:
            await self._server.wait_closed()
        for own in self._own:
            own.close()

    def plant(self, kind: str) -> Plot:
        """Give a new address to a server of `kind`."""
        if kind not in KINDS:
            raise ValueError(f"no kind {kind!r}; there are {', '.join(sorted(KINDS))}")
        host = str(IPv4Address(FIRST_ADDRESS + self._planted))
        self._planted += 1
        if kind in OWN_SOCKET:
            return self._own_socket(host, kind)
        self._kinds[host] = kind
        return Plot(host, self.port)

    def turn(self, plot: Plot, kind: str) -> None:
        """Let the server at `plot` behave as `kind` from its next request on."""
        self._kinds[plot.host] = kind

    def open_connections(self, plot: Plot) -> int:
        """How many connections the server at `plot` holds now."""
        return sum(1 for host in self._open.values() if host == plot.host)

    def say(self, plot: Plot, data: bytes) -> None:
        """Send `data` on every connection of the server at `plot`, asked or not."""
        for transport, host in self._open.items():
            if host == plot.host:
                transport.write(data)

    def hang_up(self, plot: Plot, *, rst: bool = False) -> int:
        """Close every connection of the server at `plot`; return how many."""
        held = [transport for transport, host in self._open.items() if host == plot.host]
        for transport in held:
            if rst:
                reset(transport)
            else:
                transport.close()
        return len(held)

    def _own_socket(self, host: str, kind: str) -> Plot:
        sockets = unserved(host, kind)
        self._own += sockets
        return Plot(host, sockets[0].getsockname()[1])

    # Called by the served connections.

    def accepted(self, host: str, transport: asyncio.Transport) -> None:
        """Count a connection."""
        self._open[transport] = host
        self.connections[host] += 1

    def asked(self, host: str, head: bytes) -> str:
        """Count a request; return the kind that answers it."""
        self.requests[host] += 1
        self.heads[host] = head
        return self._kinds.get(host, "s404")

    def lost(self, transport: asyncio.Transport) -> None:
        """Take note that a connection is closed."""
        self._open.pop(transport, None)
