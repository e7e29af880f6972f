"""A real prober process for tests, ended with its test; and a look at what it wrote."""

import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from redis.asyncio import Redis

from probe.wire import Keys, ReplicaHealthStatus, ReplicaId, decode_status

START_WITHIN_S: Final = 10.0


class ProberProcess(NamedTuple):
    """One running `python -m probe`."""

    process: Process
    port: int
    log: Path

    @classmethod
    @asynccontextmanager
    async def running(cls, redis_url: str, log: Path, *arguments: str) -> AsyncIterator[Self]:
        """Start it and wait until it says where its metrics are; kill what is left at the end."""
        command = [sys.executable, "-m", "probe", "--redis", redis_url, "--allow", "127.0.0.0/8"]
        with log.open("wb") as stderr:
            process = await anyio.open_process(
                [*command, "--metrics", "127.0.0.1:0", *arguments], stderr=stderr
            )
        async with process:
            try:
                assert process.stdout is not None
                with anyio.fail_after(START_WITHIN_S):
                    said = await TextReceiveStream(process.stdout).receive()
                found = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", said)
                assert found is not None, said
                yield cls(process, int(found[1]), log)
            finally:
                if process.returncode is None:
                    process.kill()

    async def end(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit code."""
        self.process.send_signal(sign)
        with anyio.fail_after(10):
            return await self.process.wait()

    def said(self) -> str:
        """Return what it logged so far."""
        return self.log.read_text()

    async def get(self, path: str) -> str:
        """Return the reply to a GET on its port, head and body."""
        received = b""
        async with await anyio.connect_tcp("127.0.0.1", self.port) as stream:
            await stream.send(f"GET {path} HTTP/1.1\r\n\r\n".encode())
            async for chunk in stream:
                received += chunk
        return received.decode()

    async def metric(self, name: str) -> float:
        """Return a metric's value, summed over its series."""
        lines = (await self.get("/metrics")).splitlines()
        values = [line for line in lines if re.match(rf"fleetpulse_{name}[{{ ]", line)]
        return sum(float(line.rpartition(" ")[2]) for line in values)


async def until(condition: Callable[[], Awaitable[bool]], *, within_s: float = 10.0) -> None:
    """Ask again every 20 ms until `condition` holds."""
    with anyio.fail_after(within_s):
        while not await condition():  # noqa: ASYNC110 - another process has no event to wait for
            await anyio.sleep(0.02)


async def status_of(client: Redis, replica_id: ReplicaId) -> ReplicaHealthStatus | None:
    """Read one status as it stands on the bus."""
    value = await client.get(Keys().status(replica_id))
    return None if value is None else decode_status(value)
