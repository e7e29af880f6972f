"""One HTTP server of a test: on any kind of socket, with or without TLS, with a will of its own."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from tests.fakes.farm import Plot

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"


class Talker:
    """Answers by path with whole replies, 200 by default, and counts what it was asked.

    `patience_s` is how long it lets a connection idle, as servers do.
    """

    def __init__(self, *, patience_s: float | None = None) -> None:
        self.replies: dict[str, bytes] = {}
        self.patience_s = patience_s
        self.asked: list[str] = []
        self.connections = 0
        self.resumed = 0
        self.plot = Plot("", 0)
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def open_connections(self) -> int:
        return len(self._writers)

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        secure = writer.get_extra_info("ssl_object")
        self.resumed += bool(secure is not None and secure.session_reused)
        self._writers.add(writer)
        try:
            while True:
                async with asyncio.timeout(self.patience_s):
                    head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                self.asked.append(path)
                writer.write(self.replies.get(path, OK))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client's way to end, or ours
        finally:
            self._writers.discard(writer)
            writer.close()


@asynccontextmanager
async def talking(
    host: str = "127.0.0.1",
    *,
    port: int = 0,
    secure: ssl.SSLContext | None = None,
    path: Path | None = None,
    patience_s: float | None = None,
) -> AsyncIterator[Talker]:
    """Run a talker at an address, or at the path of a socket."""
    talker = Talker(patience_s=patience_s)
    if path is not None:
        server = await asyncio.start_unix_server(talker.serve, path)
        talker.plot = Plot(f"unix:{path}", 1)
    else:
        server = await asyncio.start_server(talker.serve, host, port, ssl=secure, backlog=4096)
        talker.plot = Plot(host, server.sockets[0].getsockname()[1])
    async with AsyncExitStack() as stack:
        stack.callback(server.close)
        stack.callback(talker.hang_up)
        yield talker
