"""A real prober that knows itself: gives way to load, and falls silent when it misjudges."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import pytest
from redis.asyncio import Redis

from controller.embedded import EmbeddedValkey
from probe import daemon
from probe.bus.targets import TargetFeed
from probe.health import Outcome, ended
from probe.reasons import Reason
from probe.selfwatch import selftest
from probe.settings import Settings
from probe.wire import Keys, ProberHeartbeat, ReplicaProbeTarget, decode_heartbeat
from tests.fakes.entries import replica
from tests.fakes.entries import target as entry
from tests.fakes.farm import Farm
from tests.fakes.prober import ProberProcess, status_of, until

CPU_GROUPS: Final = Path("/sys/fs/cgroup/cpu")
PERIOD_US: Final = 100_000


@pytest.fixture
async def farm() -> AsyncIterator[Farm]:
    async with Farm() as planted:
        yield planted


async def load(bus: EmbeddedValkey, *targets: ReplicaProbeTarget) -> None:
    feed = TargetFeed(Redis.from_url(bus.url))
    await feed.load(targets)
    await feed.aclose()


async def heartbeat_of(client: Redis) -> ProberHeartbeat:
    (key,) = [key async for key in client.scan_iter("prober:*")]
    return decode_heartbeat(await client.get(key) or b"")


def targets(farm: Farm, count: int, **fields: object) -> list[ReplicaProbeTarget]:
    plots = [farm.plant("ok200") for _ in range(count)]
    return [
        entry(n, replica_host=plot.host, inference_port=plot.port, **fields)
        for n, plot in enumerate(plots)
    ]


async def test_it_says_what_it_could_do_and_that_it_trusts_itself(
    bus: EmbeddedValkey, farm: Farm, tmp_path: Path
) -> None:
    """S7, R-53."""
    await load(bus, *targets(farm, 50, interval_s=0.5))
    async with ProberProcess.running(bus.url, tmp_path / "log") as prober:

        async def known() -> bool:
            return await prober.metric("probes_per_second_possible") > 0

        async def tested() -> bool:
            return await prober.metric("self_tests_total") >= 6

        await until(known)
        await until(tested)
        page = await prober.get("/metrics")
        assert 'fleetpulse_self_tests_total{outcome="right"} 0.0' not in page
        assert 'fleetpulse_self_tests_total{outcome="wrong"} 0.0' in page
        assert await prober.metric("prober_sick") == 0
        assert await prober.metric("probe_demand_per_second") == pytest.approx(100)
        assert await prober.metric("interval_stretch_ratio") == 1
        assert 0 < await prober.metric("loop_busy_ratio") <= 1
        assert await prober.metric("slot_wait_seconds_count") > 0


@contextmanager
def quota(process_id: int, cores: float) -> Iterator[None]:
    """Let a process have no more than so much CPU; a kernel without such groups is no fault."""
    group = CPU_GROUPS / f"fleetpulse-{process_id}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no CPU groups here: {error}")
    try:
        (group / "cpu.cfs_quota_us").write_text(str(int(cores * PERIOD_US)))
        (group / "cgroup.procs").write_text(str(process_id))
        yield
    finally:
        with suppress(ProcessLookupError):
            (CPU_GROUPS / "cgroup.procs").write_text(str(process_id))
        group.rmdir()


@pytest.mark.slow
async def test_with_too_little_cpu_it_stretches_intervals_says_so_and_harms_nobody(
    bus: EmbeddedValkey, farm: Farm, tmp_path: Path
) -> None:
    """S1, R-53: a quota of 4 % of a core; each probe is less often, and none fails for it."""
    await load(bus, *targets(farm, 200, interval_s=0.1, timeout_s=2.0, max_retries=1))
    async with (
        ProberProcess.running(bus.url, tmp_path / "log") as prober,
        Redis.from_url(bus.url) as client,
    ):

        async def all_healthy() -> bool:
            return 'state="healthy"} 200.0' in await prober.get("/metrics")

        async def stretched() -> bool:
            return await prober.metric("interval_stretch_ratio") > 1.2

        async def said_on_the_bus() -> bool:
            return (await heartbeat_of(client)).interval_stretch > 1.2

        await until(all_healthy)
        with quota(prober.process.pid, cores=0.04):
            await until(stretched, within_s=30)
            await until(said_on_the_bus, within_s=30)
            assert await prober.metric("prober_sick") == 0
            assert await prober.metric("loop_busy_ratio") > 0.5
        line = re.search(r"event=intervals_stretched.*", prober.said())
        assert line is not None
        assert "by=1." in line[0]
        statuses = [await status_of(client, replica(n)) for n in range(200)]
        assert [status for status in statuses if status is None or not status.healthy] == []
        assert "Traceback" not in prober.said()


@asynccontextmanager
async def in_process(bus: EmbeddedValkey) -> AsyncIterator[list[str]]:
    """Run the daemon in this process, so that a test may break its judgement."""
    settings = Settings(
        redis_url=bus.url, allow=("127.0.0.0/8",), metrics="127.0.0.1:0", heartbeat_s=0.2
    )
    said: list[str] = []

    async def run() -> None:
        show = daemon.on_port(settings, said.append)
        await daemon.run(settings, once=False, show=show)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        yield said
        group.cancel_scope.cancel()


async def test_a_prober_that_misjudges_writes_nothing_owns_nothing_and_recovers(
    bus: EmbeddedValkey, farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S7: on the real daemon; its heartbeat says why, and after a few right ones it is back."""
    monkeypatch.setattr(selftest, "PERIOD_S", 0.1)
    await load(bus, *targets(farm, 3, interval_s=0.2, max_retries=1000))
    async with Redis.from_url(bus.url) as client, in_process(bus):

        async def seq() -> int:
            status = await status_of(client, replica(1))
            return 0 if status is None else status.seq

        async def written() -> bool:
            return await seq() > 0

        async def sick() -> bool:
            return bool((await heartbeat_of(client)).sick)

        async def given_up() -> bool:
            return (await heartbeat_of(client)).partitions == ()

        async def well() -> bool:
            beat = await heartbeat_of(client)
            return not beat.sick and len(beat.partitions) == 64

        def lie(*_arguments: object, **_named: object) -> Outcome:
            return ended(Reason.STATUS_UNEXPECTED, http_status=500)

        await until(written)
        with monkeypatch.context() as broken:
            for way in ("replied", "answered"):
                broken.setattr(selftest.OwnJudge, way, lie)
            await until(sick)
            await until(given_up)
            before = await seq()
            asked = sum(farm.requests.values())
            await anyio.sleep(0.5)  # five rounds of the self-test: time to write, were it to
            assert await seq() == before
            assert sum(farm.requests.values()) <= asked + 3
        await until(well)

        async def written_again() -> bool:
            return await seq() > before

        await until(written_again)
        status = await status_of(client, replica(1))
        assert status is not None
        assert status.healthy
        assert await client.ttl(Keys().status(replica(1))) > 0
