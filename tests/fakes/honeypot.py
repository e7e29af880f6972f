"""A server on every loopback address that knows which of them nobody may dial.

Replica and honeypot share a port, so that only the address tells them apart.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Network, ip_address
from typing import Final, cast

from tests.fakes.asker import until

ALLOWED: Final = IPv4Network("127.128.0.0/9")
REPLICA: Final = "127.128.0.1"


class Honeypot:
    """Counts who is dialled; answers every request with `reply`."""

    def __init__(self) -> None:
        self.port = 0
        self.visits = 0
        """Connections to addresses that may be dialled."""
        self.hits: list[str] = []
        """Addresses dialled that must not be."""
        self.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        self.open: set[asyncio.Transport] = set()

    def accepted(self, address: str) -> None:
        """Count a connection to `address`."""
        here = ip_address(address.partition("%")[0])
        if here.version == 4 and here in ALLOWED:
            self.visits += 1
        else:
            self.hits.append(address)


class _Served(asyncio.Protocol):
    def __init__(self, honeypot: Honeypot) -> None:
        self._honeypot = honeypot

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("sockname")
        self._honeypot.open.add(self._transport)
        self._honeypot.accepted(name[0] if isinstance(name, tuple) else "::")

    def data_received(self, _data: bytes) -> None:
        self._transport.write(self._honeypot.reply)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._honeypot.open.discard(self._transport)


@asynccontextmanager
async def honeypot(path: str | None = None) -> AsyncIterator[Honeypot]:
    """Serve on one port of all loopback addresses, and on the socket at `path`."""
    pot = Honeypot()
    loop = asyncio.get_running_loop()
    four = socket.create_server(("0.0.0.0", 0), backlog=4096)
    pot.port = four.getsockname()[1]
    six = socket.create_server(("::1", pot.port), family=socket.AF_INET6)
    servers = [await loop.create_server(lambda: _Served(pot), sock=sock) for sock in (four, six)]
    if path is not None:
        unix = await loop.create_unix_server(lambda: _Served(pot), path)
        servers.append(unix)
    try:
        yield pot
    finally:
        for server in servers:
            server.close()
        for transport in tuple(pot.open):
            transport.abort()
        await until(lambda: not pot.open)
