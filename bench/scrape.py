"""`python -m bench.scrape COUNT INTERVAL_S PORT FARM_PORT`: scrapes blackbox_exporter.

One kept connection for each target, as Prometheus has it, each scraped at its own time in the
interval. Ends when it is told to; what it costs is not counted.
"""

import asyncio
import re
import signal
import sys
from typing import Final, cast

import uvloop

from bench.farm import hosts

_TICK_S: Final = 0.01
_CONNECT_TRIES: Final = 100
_CONNECT_PAUSE_S: Final = 0.05


class Scrape(asyncio.Protocol):
    """One target's scrapes; while one is under way no other begins."""

    def __init__(self, path: str) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nHost: blackbox\r\n\r\n".encode()
        self._transport: asyncio.WriteTransport | None = None
        self._page = b""
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        """Let the next scrape begin once the page is whole."""
        self._page += data
        if _whole(self._page):
            self._page = b""
            self._waits = False

    def ask(self) -> None:
        """Scrape, unless the last page is still under way."""
        if self._transport is not None and not self._waits:
            self._waits = True
            self._transport.write(self._request)


def _whole(page: bytes) -> bool:
    head, _, body = page.partition(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: (\d+)", head)
    return len(body) >= int(length[1]) if length else body.endswith(b"\r\n0\r\n\r\n")


async def scrape(count: int, interval_s: float, port: int, farm_port: int) -> None:
    """Scrape every target once an interval, until told to end."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    scrapes = []
    for host in hosts(count):
        path = f"/probe?module=http_2xx&target=http://{host}:{farm_port}/health"
        scrapes.append(await _connected(Scrape(path), port))
    began, done = loop.time(), 0
    while not over.is_set():
        await asyncio.sleep(_TICK_S)
        due = int((loop.time() - began) * count / interval_s)
        for number in range(done, due):
            scrapes[number % count].ask()
        done = due


async def _connected(one: Scrape, port: int) -> Scrape:
    """Connect; the exporter needs a moment before it listens."""
    loop = asyncio.get_running_loop()
    for _ in range(_CONNECT_TRIES):
        try:
            await loop.create_connection(lambda: one, "127.0.0.1", port)
        except OSError:
            await asyncio.sleep(_CONNECT_PAUSE_S)
        else:
            return one
    sys.exit(f"nothing listens on port {port}")


def main() -> None:
    """Scrape as the command line says."""
    count, interval_s, port, farm_port = sys.argv[1:]
    uvloop.run(scrape(int(count), float(interval_s), int(port), int(farm_port)))


if __name__ == "__main__":
    main()
