"""A proxy that follows the real system: always somewhere to send to, and never to who is gone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from redis.asyncio import Redis

from controller.model import Snapshot
from controller.up.stack import Stack
from tests.fakes.appproxy import FakeAppProxy
from tests.fakes.operator import all_ready, operating

REPLICAS = 4


class Traffic:
    """Knocks at every address a proxy knows, again and again."""

    def __init__(self, stack: Stack) -> None:
        self._client = Redis.from_url(stack.redis_url)
        self.reader = FakeAppProxy(self._client)
        self.fewest = REPLICAS
        self.unanswered: list[str] = []

    @property
    def routes(self) -> dict[str, tuple[str, int]]:
        """Return what the proxy would send to, of all its endpoints."""
        known = self.reader.endpoints.values()
        return {key: address for each in known for key, address in each.routes.items()}

    async def look(self) -> None:
        """Read the news, and knock everywhere."""
        await self.reader.tick()
        if not self.reader.endpoints:
            return
        self.fewest = min(self.fewest, len(self.routes))
        for route_id, address in self.routes.items():
            if not await _answers(address):
                await self.reader.tick()  # this very process may have stood still meanwhile
                if route_id in self.routes:
                    self.unanswered.append(route_id)

    async def flush(self) -> None:
        """Let the bus lose its memory, and the proxy as well."""
        await self._client.flushall()

    async def aclose(self) -> None:
        await self._client.aclose()


async def _answers(address: tuple[str, int]) -> bool:
    try:
        stream = await anyio.connect_tcp(*address)
    except OSError:
        return False
    await stream.aclose()
    return True


@asynccontextmanager
async def traffic_on(stack: Stack) -> AsyncIterator[Traffic]:
    traffic = Traffic(stack)

    async def flow() -> None:
        while True:
            await traffic.look()
            await anyio.sleep(0.05)  # the rate of requests, not a wait

    async with anyio.create_task_group() as group:
        group.start_soon(flow)
        yield traffic
        group.cancel_scope.cancel()
    await traffic.aclose()


async def test_a_proxy_follows_a_rollout_a_flush_and_the_end(stack: Stack) -> None:
    """R-47, R-48, S4: with the real fleet behind the addresses."""
    async with operating(stack) as operator:
        await operator.apply("chat", REPLICAS)
        await operator.until(all_ready(REPLICAS), within_s=30)
        async with traffic_on(stack) as traffic:

            def followed(snapshot: Snapshot) -> bool:
                ready = {route.id for route in snapshot.routes if route.ready}
                return bool(traffic.reader.endpoints) and {*traffic.routes} == ready

            first = await operator.until(followed, within_s=20)
            traffic.fewest = REPLICAS
            await operator.apply("chat", REPLICAS, version=2)

            def replaced(snapshot: Snapshot) -> bool:
                old = {route.id for route in first.routes} & {*traffic.routes}
                return not old and all_ready(REPLICAS)(snapshot) and followed(snapshot)

            await operator.until(replaced, within_s=40)
            await traffic.flush()
            traffic.reader.restart()
            await operator.until(followed, within_s=20)
            assert (traffic.fewest, traffic.unanswered) == (REPLICAS, [])
            await operator.service.delete("chat")
            await operator.until(lambda s: not s.deployments and not traffic.routes, within_s=20)
        assert traffic.unanswered == []
        assert operator.violations() == 0
