"""A controller and two probers on one bus: one dies, and no replica is lost for it."""

import signal
from pathlib import Path

import pytest
from redis.asyncio import Redis

from controller.model import Snapshot
from controller.up.stack import Stack
from probe.wire import PARTITIONS, ReplicaHealthStatus, decode_heartbeat
from tests.fakes.operator import all_ready, operating
from tests.fakes.prober import ProberProcess, until

REPLICAS = 20


@pytest.mark.timeout(120)
async def test_a_second_prober_takes_its_share_and_its_death_costs_no_replica(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S6, S8: what is covered is told by several heartbeats, and nothing is evicted for one."""
    monkeypatch.setenv("FLEETPULSE_PROBE__HEARTBEAT_S", "0.3")
    monkeypatch.setenv("FLEETPULSE_PROBE__HEARTBEAT_TTL_S", "1")
    async with operating(stack) as operator, Redis.from_url(stack.redis_url) as client:
        await operator.apply("chat", REPLICAS)
        before = await operator.until(all_ready(REPLICAS), within_s=30)
        ids = {route.id for route in before.routes}
        first = _writers(operator.sight.statuses)

        async def nothing_lost(snapshot: Snapshot) -> None:
            assert {route.id for route in snapshot.routes if route.active} == ids
            assert all(route.ready for route in snapshot.routes)

        async with ProberProcess.running(stack.redis_url, tmp_path / "second.log") as second:
            await until(lambda: _shared_out(client, probers=2), within_s=20)
            await operator.until(lambda _: len(_writers(operator.sight.statuses)) == 2, within_s=20)
            await operator.throughout(nothing_lost, for_s=3)
            await second.end(signal.SIGKILL)
        await until(lambda: _shared_out(client, probers=1), within_s=20)
        await operator.until(lambda _: _writers(operator.sight.statuses) == first, within_s=20)
        await operator.throughout(nothing_lost, for_s=3)
        assert operator.evictions() == 0
        assert operator.violations() == 0


async def _shared_out(client: Redis, *, probers: int) -> bool:
    """Tell whether so many probers live, and each partition is covered by one of them."""
    keys = [key async for key in client.scan_iter("prober:*", count=1000)]
    beats = [decode_heartbeat(value) for value in await client.mget(keys) if value]
    covered = sorted(partition for beat in beats for partition in beat.partitions)
    return len(beats) == probers and covered == list(range(PARTITIONS))


def _writers(statuses: object) -> set[str]:
    assert isinstance(statuses, dict)
    return {
        status.prober for status in statuses.values() if isinstance(status, ReplicaHealthStatus)
    }
