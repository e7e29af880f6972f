"""A real prober process against a real bus and a farm of real HTTP servers."""

import re
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest
from redis.asyncio import Redis

from controller.embedded import EmbeddedValkey
from probe.bus.targets import TargetFeed
from probe.wire import (
    HEARTBEAT_TTL_S,
    Keys,
    OutcomeKind,
    Reason,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    decode_heartbeat,
    decode_status,
)
from tests.fakes.entries import replica
from tests.fakes.entries import target as entry
from tests.fakes.farm import Farm, Plot
from tests.fakes.prober import ProberProcess, status_of, until
from tests.fakes.services import Services

EXPECTED = {
    "ok200": Reason.OK,
    "s503": Reason.STATUS_UNEXPECTED,
    "s301": Reason.REDIRECT_REFUSED,
    "s401": Reason.AUTH_REJECTED,
    "refused": Reason.CONNECT_REFUSED,
    "unanswered": Reason.CONNECT_TIMEOUT,
    "hang": Reason.RESPONSE_TIMEOUT,
    "slow_bytes": Reason.RESPONSE_TIMEOUT,
    "reset": Reason.CONNECT_RESET,
    "garbage": Reason.RESPONSE_MALFORMED,
    "big_head": Reason.RESPONSE_TOO_LARGE,
    "close_without_byte": Reason.RESPONSE_CLOSED,
}
WITHOUT_TTL = frozenset({"route_probe_versions", "route_health_changes", "bus_epoch"})
INDEX = "route_probe_index:"


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    running = Services()
    yield running
    running.close()


@pytest.fixture(params=["valkey", "redis7"])
def any_bus(request: pytest.FixtureRequest, services: Services) -> EmbeddedValkey:
    return services.bus(str(request.param))


@pytest.fixture
def bus() -> Iterator[EmbeddedValkey]:
    """A server of the test's own, to be killed."""
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        server = EmbeddedValkey(Path(directory, "bus"))
        server.start()
        yield server
        server.stop()


@pytest.fixture
async def farm() -> AsyncIterator[Farm]:
    async with Farm() as planted:
        yield planted


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "prober.log"


def target(number: int, plot: Plot, **fields: object) -> ReplicaProbeTarget:
    defaults = {"interval_s": 0.5, "timeout_s": 1.0, "connect_timeout_s": 0.5, "max_retries": 1}
    given = {"replica_host": plot.host, "inference_port": plot.port, **defaults, **fields}
    return entry(number, **given)


async def load(server: EmbeddedValkey, *targets: ReplicaProbeTarget) -> None:
    feed = TargetFeed(Redis.from_url(server.url))
    await feed.load(targets)
    await feed.aclose()


async def has_status(client: Redis, replica_id: ReplicaId, *, healthy: bool) -> bool:
    found = await status_of(client, replica_id)
    return found is not None and found.healthy is healthy


async def test_every_reply_has_its_reason_and_every_key_its_time_to_live(
    any_bus: EmbeddedValkey, farm: Farm, log: Path
) -> None:
    """R-55, R-64: on the bus and in the metrics, each by its code."""
    async with Redis.from_url(any_bus.url) as client:
        await client.flushall()
        wanted = {replica(n): reason for n, reason in enumerate(EXPECTED.values())}
        await load(any_bus, *(target(n, farm.plant(kind)) for n, kind in enumerate(EXPECTED)))
        async with ProberProcess.running(any_bus.url, log) as prober:

            async def settled() -> bool:
                found = [await status_of(client, replica_id) for replica_id in wanted]
                # On a busy machine a probe may have told of ourselves alone: LOCAL_LAG.
                judged = (OutcomeKind.PASSED, OutcomeKind.FAILED)
                return all(status is not None and status.outcome in judged for status in found)

            await until(settled)
            for replica_id, reason in wanted.items():
                status = await status_of(client, replica_id)
                assert status is not None
                assert (status.reason, status.healthy) == (reason, reason is Reason.OK)
                assert 1 <= await client.ttl(Keys().status(replica_id)) <= 120
            page = await prober.get("/metrics")
            counted = set(re.findall(r'probe_failures_total{reason="(\w+)"} [1-9]', page))
            assert counted - {Reason.LOCAL_LAG} == {*wanted.values()} - {Reason.OK}
            async for key in client.scan_iter():
                name = key.decode()
                if name not in WITHOUT_TTL and not name.startswith(INDEX):
                    assert await client.ttl(key) > 0, name


async def test_each_target_is_probed_as_it_asks(bus: EmbeddedValkey, farm: Farm, log: Path) -> None:
    """R-02: its interval, its timeout, its expected status and its retries."""
    sinking = farm.plant("ok200")
    await load(
        bus,
        target(1, farm.plant("s503"), expected_status="503", interval_s=0.1),
        target(2, farm.plant("s503"), expected_status="500-503", interval_s=0.6),
        target(3, farm.plant("hang"), timeout_s=0.3),
        target(4, farm.plant("hang"), timeout_s=0.7, connect_timeout_s=0.1),
        target(5, sinking, max_retries=4, interval_s=0.2),
    )
    async with Redis.from_url(bus.url) as client, ProberProcess.running(bus.url, log):

        async def told(number: int) -> ReplicaHealthStatus:
            found: list[ReplicaHealthStatus] = []

            async def there() -> bool:
                status = await status_of(client, replica(number))
                found.extend([] if status is None else [status])
                return bool(found)

            await until(there)
            return found[-1]

        for number, limit_s in ((3, 0.3), (4, 0.7)):
            late = await told(number)
            assert late.detail == f"no byte of a reply within {limit_s} s"
            assert late.latency_ms == pytest.approx(limit_s * 1000, abs=1)
        assert (await told(5)).healthy
        farm.turn(sinking, "s500")
        seen: list[ReplicaHealthStatus] = []

        async def sunk() -> bool:
            seen.append(await told(5))
            return not seen[-1].healthy

        await until(sunk)
        assert max(status.consecutive_failures for status in seen if status.healthy) <= 3
        assert seen[-1].consecutive_failures == 4

        async def often_enough() -> bool:
            return (await told(2)).seq >= 5

        await until(often_enough)
        often, seldom = await told(1), await told(2)
        assert often.healthy
        assert seldom.healthy
        # Six times as often; a machine short of CPU leaves out beats of the faster one.
        assert 3 <= often.seq / seldom.seq <= 7


async def test_a_new_target_is_found_and_a_removed_one_is_left_alone(
    bus: EmbeddedValkey, farm: Farm, log: Path
) -> None:
    async with Redis.from_url(bus.url) as client, ProberProcess.running(bus.url, log) as prober:
        plot = farm.plant("ok200")
        await load(bus, target(1, plot, interval_s=10.0))
        await until(lambda: has_status(client, replica(1), healthy=True), within_s=1.5)
        feed = TargetFeed(client)
        assert await feed.remove([replica(1)]) == 1

        async def left_alone() -> bool:
            return await prober.metric("targets") == 0 and farm.open_connections(plot) == 0

        await until(left_alone)


async def test_a_verdict_change_is_on_the_bus_within_a_quarter_second(
    bus: EmbeddedValkey, farm: Farm, log: Path
) -> None:
    """P11: measured on the bus's own clock, from the end of the probe to the stream entry."""
    async with Redis.from_url(bus.url) as client, ProberProcess.running(bus.url, log):
        plot = farm.plant("ok200")
        await load(bus, target(1, plot))
        await until(lambda: has_status(client, replica(1), healthy=True))
        farm.turn(plot, "s500")
        await until(lambda: has_status(client, replica(1), healthy=False))

        async def announced() -> bool:
            return await client.xlen(Keys().changes) == 2

        await until(announced)
        stream = await client.xinfo_stream(Keys().changes)
        written_at = int(stream["last-generated-id"].split(b"-")[0]) / 1000
        status = await status_of(client, replica(1))
        assert status is not None
        assert -0.01 <= written_at - status.changed_at <= 0.25


async def test_it_lives_ready_and_says_so_on_the_bus(
    bus: EmbeddedValkey, farm: Farm, log: Path
) -> None:
    await load(bus, target(1, farm.plant("ok200")))
    async with Redis.from_url(bus.url) as client, ProberProcess.running(bus.url, log) as prober:

        async def ready() -> bool:
            return (await prober.get("/readyz")).startswith("HTTP/1.1 200")

        await until(ready)
        assert (await prober.get("/livez")).startswith("HTTP/1.1 200")

        async def probed() -> bool:
            return await prober.metric("probes_total") >= 1

        await until(probed)

        async def beating() -> bool:
            return bool([key async for key in client.scan_iter("prober:*")])

        await until(beating)
        (key,) = [key async for key in client.scan_iter("prober:*")]
        beat = decode_heartbeat(await client.get(key) or b"")
        assert len(beat.partitions) == 64
        assert 0 < await client.ttl(key) <= HEARTBEAT_TTL_S
        assert await client.zscore(Keys().probers, beat.instance) == pytest.approx(beat.at)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_exits_zero(
    bus: EmbeddedValkey, farm: Farm, log: Path, sign: signal.Signals
) -> None:
    await load(bus, target(1, farm.plant("ok200")), target(2, farm.plant("hang"), timeout_s=30.0))
    async with Redis.from_url(bus.url) as client, ProberProcess.running(bus.url, log) as prober:
        await until(lambda: has_status(client, replica(1), healthy=True))
        with anyio.fail_after(3):
            assert await prober.end(sign) == 0
        assert [key async for key in client.scan_iter("prober:*")] == []
        assert "event=drained" in prober.said()
        assert "Traceback" not in prober.said()


async def test_a_restart_keeps_the_streak(bus: EmbeddedValkey, farm: Farm, log: Path) -> None:
    """R-62."""
    await load(bus, target(1, farm.plant("ok200")))
    async with Redis.from_url(bus.url) as client:
        async with ProberProcess.running(bus.url, log) as prober:

            async def streak() -> bool:
                status = await status_of(client, replica(1))
                return status is not None and status.consecutive_successes >= 3

            await until(streak)
            await prober.end()
        before = await status_of(client, replica(1))
        assert before is not None
        async with ProberProcess.running(bus.url, log):

            async def grown() -> bool:
                status = await status_of(client, replica(1))
                return status is not None and status.seq > before.seq

            await until(grown)
        after = await status_of(client, replica(1))
        assert after is not None
        assert after.healthy
        assert after.consecutive_successes > before.consecutive_successes
        assert after.changed_at == pytest.approx(before.changed_at, abs=0.1)


async def test_it_goes_on_through_a_bus_that_dies_and_comes_back_empty(
    bus: EmbeddedValkey, farm: Farm, log: Path
) -> None:
    """S4, S17: the same process probes on, and writes again without being told its targets."""
    plot = farm.plant("ok200")
    await load(bus, target(1, plot))
    async with ProberProcess.running(bus.url, log) as prober:
        async with Redis.from_url(bus.url) as client:
            await until(lambda: has_status(client, replica(1), healthy=True))
        bus.kill()

        async def away() -> bool:
            return await prober.metric("bus_up") == 0

        await until(away)
        asked = farm.requests[plot.host]

        async def probing_on() -> bool:
            return farm.requests[plot.host] >= asked + 3

        await until(probing_on)
        bus.start()
        async with Redis.from_url(bus.url) as client:
            await until(lambda: has_status(client, replica(1), healthy=True))
        assert await prober.metric("bus_up") == 1
        assert await prober.metric("bus_errors_total") >= 1
        assert await prober.end() == 0
    text = prober.said()
    assert text.count("event=bus_lost ") == text.count("event=bus_back") == 1
    assert "Traceback" not in text


async def test_it_ends_in_good_order_while_the_bus_is_away(
    bus: EmbeddedValkey, farm: Farm, log: Path
) -> None:
    await load(bus, target(1, farm.plant("ok200")))
    async with ProberProcess.running(bus.url, log) as prober:
        async with Redis.from_url(bus.url) as client:
            await until(lambda: has_status(client, replica(1), healthy=True))
        bus.kill()
        assert await prober.end() == 0
    assert "Traceback" not in prober.said()


async def test_once_probes_each_target_dials_none_that_is_denied_and_ends(
    bus: EmbeddedValkey, farm: Farm, log: Path
) -> None:
    plots = [farm.plant("ok200") for _ in range(20)]
    forbidden = Plot("169.254.169.254", 80)
    plotted = [*plots, forbidden]
    await load(bus, *(target(n, plot, interval_s=10.0) for n, plot in enumerate(plotted)))
    async with (
        Redis.from_url(bus.url) as client,
        ProberProcess.running(bus.url, log, "--once") as prober,
    ):
        with anyio.fail_after(10):
            assert await prober.process.wait() == 0
        assert all(farm.requests[plot.host] >= 1 for plot in plots)
        values = await client.mget([Keys().status(replica(n)) for n in range(21)])
    statuses = [decode_status(value or b"") for value in values]
    assert [status.reason for status in statuses[:20]] == [Reason.OK] * 20
    assert statuses[20].reason is Reason.POLICY_DENIED
