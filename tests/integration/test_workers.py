"""`fleetpulse probe --workers`: several processes, one prober."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from redis.asyncio import Redis

from controller.embedded import EmbeddedValkey
from probe.bus.targets import TargetFeed
from probe.wire import Keys, ReplicaProbeTarget, decode_heartbeat
from tests.fakes.entries import replica, target
from tests.fakes.farm import Farm, Plot
from tests.fakes.prober import ProberProcess, status_of, until

TARGETS = 40
SOON = {"FLEETPULSE_PROBE__HEARTBEAT_S": "0.3", "FLEETPULSE_PROBE__HEARTBEAT_TTL_S": "1"}


@pytest.fixture
async def farm() -> AsyncIterator[Farm]:
    async with Farm() as planted:
        yield planted


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker that died be missed within a second."""
    for name, value in SOON.items():
        monkeypatch.setenv(name, value)


async def plant(bus: EmbeddedValkey, farm: Farm, *, interval_s: float = 0.5) -> list[Plot]:
    plots = [farm.plant("ok200") for _ in range(TARGETS)]
    feed = TargetFeed(Redis.from_url(bus.url))
    await feed.load([entry(number, plot, interval_s) for number, plot in enumerate(plots)])
    await feed.aclose()
    return plots


def entry(number: int, plot: Plot, interval_s: float) -> ReplicaProbeTarget:
    return target(
        number,
        replica_host=plot.host,
        inference_port=plot.port,
        interval_s=interval_s,
        timeout_s=1.0,
        connect_timeout_s=0.5,
        deployment=f"d{number % 2}",
    )


def workers_of(prober: ProberProcess) -> list[int]:
    pid = prober.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def settled(bus: EmbeddedValkey, *, probers: int) -> bool:
    """Tell whether so many share all partitions, each owned once."""
    async with Redis.from_url(bus.url) as client:
        keys = [key async for key in client.scan_iter("prober:*")]
        beats = [decode_heartbeat(value) for value in await client.mget(keys) if value]
    owned = sorted(partition for beat in beats for partition in beat.partitions)
    return len(beats) == probers and owned == list(range(64))


async def test_workers_share_the_targets_and_one_port_shows_their_sum(
    bus: EmbeddedValkey, farm: Farm, tmp_path: Path
) -> None:
    plots = await plant(bus, farm)
    log = tmp_path / "log"
    async with ProberProcess.running(bus.url, log, "--workers", "2") as prober:
        await until(lambda: settled(bus, probers=2))
        assert (await prober.get("/livez")).startswith("HTTP/1.1 200")

        async def ready() -> bool:
            return (await prober.get("/readyz")).startswith("HTTP/1.1 200")

        await until(ready)
        before, asked = time.monotonic(), farm.requests.total()
        await anyio.sleep(2.0)
        rate = (farm.requests.total() - asked) / (time.monotonic() - before)
        assert rate <= 1.2 * TARGETS / 0.5
        assert all(farm.requests[plot.host] >= 3 for plot in plots)
        counted = await prober.metric("probes_total")
        assert counted == pytest.approx(farm.requests.total(), abs=TARGETS)
        assert await prober.metric("partitions_owned") == 64
        assert await prober.metric("workers_reporting") == await prober.metric("workers") == 2
        text = await prober.get("/metrics")
        assert text.count('fleetpulse_probes_total{deployment="d0",outcome="passed"}') == 1
        started = time.monotonic()
        assert await prober.end() == 0
        assert time.monotonic() - started < 10
    async with Redis.from_url(bus.url) as client:
        assert [key async for key in client.scan_iter("prober:*")] == []
    assert "Traceback" not in log.read_text()


async def test_a_worker_that_dies_is_missed_by_nobody_and_started_again(
    bus: EmbeddedValkey, farm: Farm, tmp_path: Path
) -> None:
    plots = await plant(bus, farm)
    async with ProberProcess.running(bus.url, tmp_path / "log", "--workers", "2") as prober:
        await until(lambda: settled(bus, probers=2))
        await anyio.sleep(1.0)
        before = await prober.metric("probes_total")
        victim = workers_of(prober)[0]
        os.kill(victim, signal.SIGKILL)
        counts = [before]

        async def back() -> bool:
            counts.append(await prober.metric("probes_total"))
            again = victim not in workers_of(prober) and len(workers_of(prober)) == 2
            return again and await settled(bus, probers=2)

        await until(back, within_s=20)
        assert counts == sorted(counts)
        assert await prober.metric("worker_restarts_total") == 1
        seen = dict(farm.requests)

        async def all_seen() -> bool:
            return all(farm.requests[plot.host] > seen[plot.host] for plot in plots)

        await until(all_seen)


async def test_a_worker_that_does_not_answer_is_left_out_within_a_bounded_time(
    bus: EmbeddedValkey, tmp_path: Path
) -> None:
    async with ProberProcess.running(bus.url, tmp_path / "log", "--workers", "2") as prober:
        await until(lambda: settled(bus, probers=2))
        victim = workers_of(prober)[0]
        os.kill(victim, signal.SIGSTOP)
        try:
            started = time.monotonic()
            assert await prober.metric("workers_reporting") == 1
            assert time.monotonic() - started < 5
            assert "does not answer" in await prober.get("/readyz")
        finally:
            os.kill(victim, signal.SIGCONT)

        async def answering() -> bool:
            return await prober.metric("workers_reporting") == 2

        await until(answering)


async def test_workers_die_with_their_supervisor(bus: EmbeddedValkey, tmp_path: Path) -> None:
    async with ProberProcess.running(bus.url, tmp_path / "log", "--workers", "2") as prober:
        await until(lambda: settled(bus, probers=2))
        workers = workers_of(prober)
        prober.process.kill()
        await prober.process.wait()

        async def gone() -> bool:
            return not any(_runs(pid) for pid in workers)

        await until(gone)


async def test_once_with_workers_probes_every_target_and_ends(
    bus: EmbeddedValkey, farm: Farm, tmp_path: Path
) -> None:
    plots = await plant(bus, farm, interval_s=10.0)
    async with (
        Redis.from_url(bus.url) as client,
        ProberProcess.running(bus.url, tmp_path / "log", "--workers", "3", "--once") as prober,
    ):
        with anyio.fail_after(20):
            assert await prober.process.wait() == 0
        for number in range(TARGETS):
            assert await status_of(client, replica(number)) is not None
        assert await client.zcard(Keys().probers) == 0
    # A turn may come right after the first probe, before the worker has ended.
    assert {farm.requests[plot.host] for plot in plots} <= {1, 2}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--workers", "0"), "probe.workers"),
        (("--workers", "many"), "probe.workers"),
        (("--shard", "5/4"), "1/4"),
        (("--shard", "1/33", "--workers", "2"), "fewer workers"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    ran = run(*arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_bus_that_is_away_is_said_once_and_not_by_each_worker() -> None:
    ran = run("--workers", "2", "--redis", "unix:///nowhere/bus")
    assert ran.returncode == 3
    assert ran.stderr.count("cannot be reached") == 1


def test_check_config_shows_the_workers() -> None:
    ran = run("--workers", "auto", "--shard", "1/2", "--check-config")
    assert ran.returncode == 0
    assert 'workers = "auto"  # flag' in ran.stdout
    assert 'shard = "1/2"  # flag' in ran.stdout


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "probe", "--metrics", "127.0.0.1:0", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def _runs(pid: int) -> bool:
    """Tell whether a process runs; one that ended and that nobody buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
