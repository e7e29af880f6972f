"""2,000 servers that know nothing of us, probed by the prober alone, fed by hand."""

import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import cycle
from pathlib import Path

import anyio
import pytest
from redis.asyncio import Redis

from probe.wire import Keys, Reason, ReplicaHealthStatus, decode_status
from tests.fakes.entries import replica
from tests.fakes.farm import Farm
from tests.fakes.prober import ProberProcess, until
from tests.fakes.services import Services

FLEETPULSE = Path(sys.executable).with_name("fleetpulse")
TARGETS = 2000
VERDICTS = {
    "ok200": (Reason.OK, ""),
    "s503": (Reason.STATUS_UNEXPECTED, "503"),
    "refused": (Reason.CONNECT_REFUSED, ""),
    "hang": (Reason.RESPONSE_TIMEOUT, "no byte"),
    "reset": (Reason.CONNECT_RESET, ""),
    "garbage": (Reason.RESPONSE_MALFORMED, ""),
    "slow_bytes": (Reason.RESPONSE_TIMEOUT, "bytes"),
}
"""What each kind must come to; the detail tells a hang from slow bytes."""
WITHOUT_TTL = frozenset({"route_probe_versions", "route_health_changes", "bus_epoch", "probers"})


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    running = Services()
    yield running
    running.close()


@pytest.fixture
async def farm() -> AsyncIterator[Farm]:
    async with Farm() as planted:
        yield planted


def fleet(farm: Farm) -> dict[str, tuple[str, dict[str, object]]]:
    """Plant the farm; return the kind and the target of every replica."""
    kinds = cycle(["ok200"] * 5 + list(VERDICTS))
    planted: dict[str, tuple[str, dict[str, object]]] = {}
    for number in range(TARGETS):
        kind = next(kinds)
        plot = farm.plant(kind)
        planted[replica(number)] = (
            kind,
            {
                "replica_id": replica(number),
                "replica_host": plot.host,
                "inference_port": plot.port,
                "health_path": "/health",
                "interval_s": 1.0,
                "timeout_s": 2.0,
                "max_retries": 2,
            },
        )
    return planted


@pytest.mark.timeout(180)
@pytest.mark.parametrize("server", ["valkey", "redis7"])
async def test_every_status_of_2000_foreign_targets_is_right(
    server: str, services: Services, farm: Farm, tmp_path: Path
) -> None:
    bus = services.bus(server)
    planted = fleet(farm)
    async with Redis.from_url(bus.url) as client:
        await client.flushall()
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as lines:
            lines.write("\n".join(json.dumps(target) for _, target in planted.values()))
            lines.flush()
            await anyio.run_process(
                [FLEETPULSE, "targets", "load", lines.name, "--redis", bus.url],
                stderr=subprocess.STDOUT,
            )
        async with ProberProcess.running(bus.url, tmp_path / "prober.log"):

            async def settled() -> bool:
                found = await statuses(client, planted)
                return len(found) == TARGETS and all(
                    s.healthy or s.consecutive_failures >= 2 for s in found.values()
                )

            await until(settled, within_s=60)
            found = await statuses(client, planted)
        wrong = {
            kind: (status.reason, status.detail, status.healthy)
            for replica_id, (kind, _) in planted.items()
            for status in [found[replica_id]]
            if status.reason is not VERDICTS[kind][0]
            or VERDICTS[kind][1] not in status.detail + str(status.http_status)
            or status.healthy is not (kind == "ok200")
        }
        assert wrong == {}
        await every_key_lives_for_a_time(client)


async def statuses(
    client: Redis, planted: dict[str, tuple[str, dict[str, object]]]
) -> dict[str, ReplicaHealthStatus]:
    values = await client.mget([Keys().status(replica_id) for replica_id in planted])  # type: ignore[arg-type]
    return {
        replica_id: decode_status(value)
        for replica_id, value in zip(planted, values, strict=True)
        if value is not None
    }


async def every_key_lives_for_a_time(client: Redis) -> None:
    """R-64: TTL between 1 and 120 for statuses, and none of our keys without one."""
    names = [key.decode() async for key in client.scan_iter(count=1000)]
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.ttl(name)
    for name, ttl in zip(names, await pipeline.execute(), strict=True):
        if name.startswith("route_health:"):
            assert 1 <= ttl <= 120, name
        elif name not in WITHOUT_TTL and not name.startswith("route_probe_index:"):
            assert ttl > 0, name
