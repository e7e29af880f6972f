"""`python -m bench.naive KIND COUNT INTERVAL_S PORT`: what one would write first.

A task for each target, gathered, once an interval; generous all the same: uvloop, and as many
connections as there are targets. Says after each sweep how the probes have ended so far.
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import aiohttp
import httpx
import uvloop

from bench.farm import hosts

_TIMEOUT_S: Final = 5.0
_KEEP_S: Final = 60.0
_Get = Callable[[str], Awaitable[int]]


@asynccontextmanager
async def httpx_shared() -> AsyncIterator[_Get]:
    """One client for all; its limits are lifted, or it would open new connections."""
    limits = httpx.Limits(keepalive_expiry=_KEEP_S)
    async with httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_S, limits=limits) as client:

        async def get(url: str) -> int:
            return (await client.get(url)).status_code

        yield get


@asynccontextmanager
async def aiohttp_shared() -> AsyncIterator[_Get]:
    """One session for all, its connector unbounded."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_S)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield partial(_status, session)


@asynccontextmanager
async def aiohttp_each() -> AsyncIterator[_Get]:
    """Make a session for every probe."""
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)

    async def get(url: str) -> int:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            return await _status(session, url)

    yield get


async def _status(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as reply:
        await reply.read()
        return reply.status


KINDS: Final = {each.__name__: each for each in (httpx_shared, aiohttp_shared, aiohttp_each)}


async def probe(kind: str, count: int, interval_s: float, port: int) -> None:
    """Probe all targets at once, once an interval, until told to end."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    counts = {"passed": 0, "failed": 0}
    urls = [f"http://{host}:{port}/health" for host in hosts(count)]

    async def one(url: str) -> None:
        try:
            passed = await get(url) == httpx.codes.OK
        except (httpx.HTTPError, aiohttp.ClientError, TimeoutError, OSError):
            passed = False
        counts["passed" if passed else "failed"] += 1

    async with KINDS[kind]() as get:
        while not over.is_set():
            again = loop.time() + interval_s
            await asyncio.gather(*map(one, urls))
            print(json.dumps(counts), flush=True)
            await asyncio.sleep(max(0.0, again - loop.time()))


def main() -> None:
    """Probe as the command line says."""
    kind, count, interval_s, port = sys.argv[1:]
    uvloop.run(probe(kind, int(count), float(interval_s), int(port)))


if __name__ == "__main__":
    main()
