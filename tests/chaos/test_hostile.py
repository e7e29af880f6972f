"""Every way to answer badly, hundreds of times at once, beside replicas that are well."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import pytest
from redis.asyncio import Redis

from probe.bus.targets import TargetFeed
from probe.wire import (
    Keys,
    Reason,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    decode_status,
)
from tests.fakes.entries import replica
from tests.fakes.farm import Farm
from tests.fakes.prober import ProberProcess, until
from tests.fakes.replies import TABLE
from tests.fakes.services import Services

FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
OF_EACH: Final = 500 if FULL else 10
NEIGHBOURS: Final = 1000 if FULL else 50
INTERVAL_S: Final = 10.0 if FULL else 2.0
TIMEOUT_S: Final = 2.0 if FULL else 1.0
ROUNDS: Final = 5
"""How many intervals the fleet is watched for, once every verdict stands."""
GROWTH_MAX_BYTES: Final = 20 * 2**20
AGE_MAX_INTERVALS: Final = 1.5

POURING: Final = ("endless_body", "endless_info")
"""Each costs the farm, which is one process, a write a millisecond."""
HOSTILE: Final = tuple(kind for kind in TABLE if kind not in {"ok200", *POURING})
assert len(HOSTILE) >= 24


class Found(NamedTuple):
    """What one run came to."""

    wrong: Counter[str]
    oldest_neighbour_s: float
    growth_bytes: int
    hostile: int


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    running = Services()
    yield running
    running.close()


def plant(farm: Farm) -> dict[ReplicaId, tuple[str, ReplicaProbeTarget]]:
    """Plant the neighbours, and as many as asked of each kind; return what each one is."""
    kinds = ["ok200"] * NEIGHBOURS
    kinds += [kind for kind in HOSTILE for _ in range(OF_EACH)]
    kinds += [kind for kind in POURING for _ in range(OF_EACH // 10)]
    planted: dict[ReplicaId, tuple[str, ReplicaProbeTarget]] = {}
    for number, kind in enumerate(kinds):
        plot = farm.plant(kind)
        target = ReplicaProbeTarget(
            replica_id=replica(number),
            replica_host=plot.host,
            inference_port=plot.port,
            health_path="/health",
            interval_s=INTERVAL_S,
            timeout_s=TIMEOUT_S,
            connect_timeout_s=TIMEOUT_S / 2,
            max_retries=1,
            deployment="neighbours" if kind == "ok200" else kind,
        )
        planted[target.replica_id] = kind, target
    return planted


async def watched(url: str, farm: Farm, log: Path) -> Found:
    """Let a prober watch the fleet; look at its statuses and its memory."""
    planted = plant(farm)
    async with Redis.from_url(url) as client:
        await client.flushall()
        await TargetFeed(client).load([target for _, target in planted.values()])
        async with ProberProcess.running(url, log) as prober:

            async def settled() -> bool:
                return not wrong(await statuses(client, planted), planted)

            with anyio.move_on_after(3 * INTERVAL_S + 10):  # what is still wrong then is told
                await until(settled, within_s=600)
            await anyio.sleep(INTERVAL_S)
            before, oldest_s = resident(prober), 0.0
            for _ in range(int(ROUNDS * INTERVAL_S)):
                await anyio.sleep(1.0)
                oldest_s = max(oldest_s, await oldest_neighbour(client, planted))
            growth = resident(prober) - before
            found = wrong(await statuses(client, planted), planted, busy=True)
    return Found(found, oldest_s, growth, len(planted) - NEIGHBOURS)


async def statuses(
    client: Redis, planted: dict[ReplicaId, tuple[str, ReplicaProbeTarget]]
) -> dict[ReplicaId, ReplicaHealthStatus]:
    values = await client.mget([Keys().status(one) for one in planted])
    return {
        one: decode_status(value)
        for one, value in zip(planted, values, strict=True)
        if value is not None
    }


def wrong(
    found: dict[ReplicaId, ReplicaHealthStatus],
    planted: dict[ReplicaId, tuple[str, ReplicaProbeTarget]],
    *,
    busy: bool = False,
) -> Counter[str]:
    """Count statuses that are missing, or not as the reply table says, by kind.

    With `busy` the last probe may have been void for a lag of ours; the verdict has to be right.
    """
    counts: Counter[str] = Counter()
    for one, (kind, _) in planted.items():
        status, meant = found.get(one), TABLE[kind].reason
        if status is None:
            counts[f"{kind}: no status"] += 1
        elif busy and status.reason is Reason.LOCAL_LAG and status.healthy is (meant is Reason.OK):
            continue
        elif status.reason is not meant or status.healthy is not (meant is Reason.OK):
            counts[f"{kind}: {status.reason}, healthy={status.healthy}"] += 1
    return counts


async def oldest_neighbour(
    client: Redis, planted: dict[ReplicaId, tuple[str, ReplicaProbeTarget]]
) -> float:
    """Return how long ago the replica that is well was last found so, of the worst off."""
    found = await statuses(client, planted)
    seconds, micros = await client.time()
    now = seconds + micros / 1e6
    return max(now - found[one].last_check for one, (kind, _) in planted.items() if kind == "ok200")


def resident(prober: ProberProcess) -> int:
    """Return the prober's resident memory."""
    pages = Path(f"/proc/{prober.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(400)
@pytest.mark.xdist_group("chaos")
async def test_a_hostile_crowd_is_judged_right_and_harms_no_neighbour(services: Services) -> None:
    """R-54: verdicts as the reply table has them, memory flat, neighbours looked after in time."""
    async with Farm() as farm:
        with tempfile.TemporaryDirectory() as directory:
            found = await watched(services.bus("valkey").url, farm, Path(directory, "probe.log"))
    print(json.dumps(found._asdict()))  # noqa: T201 - the figures, shown with -s
    assert not found.wrong, found
    assert found.oldest_neighbour_s <= AGE_MAX_INTERVALS * INTERVAL_S, found
    assert found.growth_bytes <= GROWTH_MAX_BYTES, found
