"""A steady stream of requests, sent only to what a proxy that follows the bus knows.

As a proxy would: events for hints, an endpoint's keys for the truth, a route chosen by its share
of the traffic. Every request has a socket of its own and is sent once: one that fails has failed.
"""

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from tests.fakes.appproxy import parse

FOLLOW_S: Final = 0.1
"""How far behind the bus it may be, as proxies are; replicas have a second of grace here."""
FRESH_S: Final = 0.3
"""It does not send by older knowledge than that: a busy machine lets this process stand still."""
ANSWER_WITHIN_S: Final = 10.0
PUBLISHED_WITHIN_S: Final = 30.0
KEPT: Final = 20
"""Failures that are told of one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One route, as the proxy knows it."""

    route_id: str
    address: tuple[str, int]
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An endpoint's routes in one version."""

    version: tuple[int, int]
    targets: Sequence[Target]

    @property
    def serving(self) -> Sequence[Target]:
        """Return those that get any traffic."""
        return [target for target in self.targets if target.weight > 0]

    @property
    def routes(self) -> set[str]:
        """Return the routes that get any traffic."""
        return {target.route_id for target in self.serving}


@dataclass(slots=True)
class Stream:
    """Sends, and counts what came of it."""

    client: Any
    """Of the bus, with text for replies; its stubs cannot tell."""
    rate_per_s: float
    prefix: str = ""
    """Of all keys."""
    sent: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """By reason."""
    told: list[str] = field(default_factory=list)
    """The first failures in full."""
    tables: list[Table] = field(default_factory=list)
    """Every version that was followed, in order."""
    slowest_s: float = 0.0
    _sent_before: int = 0
    _seen_at: float = 0.0
    _last_id: str = "0-0"
    _looked: bool = False
    _chance: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - repeatable
    _reading: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def failed(self) -> int:
        """Return how many requests were not answered well."""
        return self.failures.total()

    @property
    def serving(self) -> set[str]:
        """Return which routes get traffic now."""
        return self.tables[-1].routes if self.tables else set()

    @property
    def ever(self) -> set[str]:
        """Return every route that got traffic in any version."""
        return {route for table in self.tables for route in table.routes}

    @property
    def fewest(self) -> int:
        """Return with how few routes it ever had to do."""
        return min(len(table.routes) for table in self.tables)

    def begin(self) -> None:
        """Begin the figures anew; failures stay."""
        del self.tables[:-1]
        self._sent_before, self.slowest_s = self.sent, 0.0

    def figures(self) -> dict[str, object]:
        """Return what was counted, for people."""
        return {
            "requests": self.sent - self._sent_before,
            "failed": self.failed,
            "reasons": dict(self.failures),
            "tables": len(self.tables),
            "fewest_routes": self.fewest,
            "slowest_s": round(self.slowest_s, 3),
        }

    async def follow(self) -> None:
        """Read what changed; a reader at a time."""
        async with self._reading:
            at = time.monotonic()
            if await self._news():
                await self._read()
            self._seen_at = at

    async def keep_following(self) -> None:
        """Follow for as long as it is not cancelled."""
        while True:
            await self.follow()
            await anyio.sleep(FOLLOW_S)

    async def keep_sending(self, group: TaskGroup, stop: anyio.Event) -> None:
        """Start requests at the rate, whatever became of those before."""
        began = time.monotonic()
        while not stop.is_set():
            self.sent += 1
            group.start_soon(self._request)
            due = began + self.sent / self.rate_per_s
            await anyio.sleep(max(0.0, due - time.monotonic()))
            # After a standstill it goes on at its rate, and makes up for nothing.
            began = max(began, time.monotonic() - self.sent / self.rate_per_s)

    async def _request(self) -> None:
        if time.monotonic() - self._seen_at > FRESH_S:
            await self.follow()
        serving = self.tables[-1].serving
        if not serving:
            self._fail("no route", "nothing is published")
            return
        weights = [target.weight for target in serving]
        (target,) = self._chance.choices(serving, weights)
        began = time.monotonic()
        try:
            with anyio.fail_after(ANSWER_WITHIN_S):
                reply = await _ask(target.address)
        except (OSError, TimeoutError, anyio.BrokenResourceError) as error:
            self._fail(type(error).__name__, f"{target}: {error!r}")
            return
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        head, _, body = reply.partition(b"\r\n\r\n")
        status = head.partition(b"\r\n")[0].decode()
        if status != "HTTP/1.1 200 OK" or body.decode() != target.route_id:
            self._fail(status or "closed without an answer", f"{target}: {body!r}")

    def _fail(self, reason: str, text: str) -> None:
        self.failures[reason] += 1
        if len(self.told) < KEPT:
            age_s = time.monotonic() - self._seen_at
            self.told.append(
                f"request {self.sent}, table {len(self.tables)}, {age_s:.2f} s: {text}"
            )

    async def _news(self) -> bool:
        """Tell whether there is anything to read: the first time always."""
        found = await self.client.xrange(f"{self.prefix}events", min=f"({self._last_id}")
        if found:
            self._last_id = found[-1][0]
        first, self._looked = not self._looked, True
        return first or bool(found)

    async def _read(self) -> None:
        async for key in self.client.scan_iter(
            match=f"{self.prefix}endpoint.*.route_connection_info"
        ):
            table = await self._table(key)
            if not self.tables or table.version > self.tables[-1].version:
                self.tables.append(table)

    async def _table(self, key: str) -> Table:
        """Read one endpoint's table with the shares that belong to it."""
        while True:
            value = await self.client.get(key)
            version, entries = parse(value)
            endpoint = key.removesuffix(".route_connection_info")
            names = [f"{endpoint}.session.{e['session_id']}.traffic_ratio" for e in entries]
            *ratios, again = await self.client.mget([*names, key])
            if again == value:
                break
        return Table(
            version=version,
            targets=[
                Target(
                    route_id=e["route_id"],
                    address=(e["kernel_host"], e["kernel_port"]),
                    weight=1.0 if ratio is None else float(ratio),
                )
                for e, ratio in zip(entries, ratios, strict=True)
            ],
        )


async def _ask(address: tuple[str, int]) -> bytes:
    received = b""
    async with await anyio.connect_tcp(*address) as stream:
        await stream.send(b"GET /health HTTP/1.1\r\nhost: replica\r\nconnection: close\r\n\r\n")
        async for chunk in stream:
            received += chunk
    return received


@asynccontextmanager
async def streaming(
    redis_url: str, *, rate_per_s: float, prefix: str = ""
) -> AsyncIterator[Stream]:
    """Send to the one endpoint there is, from its first route on, until the block ends.

    What is on its way at the end is waited for.
    """
    client = Redis.from_url(redis_url, decode_responses=True)
    stream, stop = Stream(client, rate_per_s, prefix), anyio.Event()
    try:
        with anyio.fail_after(PUBLISHED_WITHIN_S):
            while not stream.serving:
                await stream.follow()
                await anyio.sleep(FOLLOW_S)
        async with anyio.create_task_group() as following:
            following.start_soon(stream.keep_following)
            async with anyio.create_task_group() as sending:
                sending.start_soon(stream.keep_sending, sending, stop)
                yield stream
                stop.set()
            following.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await client.aclose()
