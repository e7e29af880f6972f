"""What a thousand entries cost on a real Valkey, over a unix socket.

Client and server share the machine, so that a figure is the time of both. It does not show what
a network adds. The three ways to write are compared in one run: only their ratios carry over.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from controller.embedded import EmbeddedValkey
from probe.bus.prober import ProbeBus, connect
from probe.bus.writes import Entries, WriteMode, entry
from probe.reasons import OutcomeKind, Reason
from probe.wire import (
    Keys,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    encode,
    partition_of,
)

COUNT: Final = 1000
KEYS: Final = Keys()


def replica(number: int) -> ReplicaId:
    return ReplicaId(f"00000000-0000-4000-8000-{number:012x}")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        server = EmbeddedValkey(Path(directory))
        server.start()
        yield server.url
        server.stop()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        yield loop


def statuses() -> Entries:
    return {
        120: [
            entry(
                KEYS.status(replica(number)),
                encode(
                    ReplicaHealthStatus(
                        replica_id=replica(number),
                        healthy=True,
                        outcome=OutcomeKind.PASSED,
                        reason=Reason.OK,
                        http_status=200,
                        latency_ms=1.25,
                        consecutive_successes=9,
                        seq=number,
                    )
                ).decode(),
            )
            for number in range(COUNT)
        ]
    }


@pytest.mark.parametrize("mode", list(WriteMode))
def test_write_a_thousand_statuses(
    benchmark: BenchmarkFixture, runner: asyncio.Runner, url: str, mode: WriteMode
) -> None:
    bus = ProbeBus(connect(url), write_mode=mode)
    items = statuses()
    benchmark(lambda: runner.run(bus.write_statuses(lambda: items)))
    runner.run(bus.aclose())


def test_read_a_thousand_statuses(
    benchmark: BenchmarkFixture, runner: asyncio.Runner, url: str
) -> None:
    bus = ProbeBus(connect(url))
    runner.run(bus.write_statuses(statuses))
    ids = [replica(number) for number in range(COUNT)]
    found = benchmark(lambda: runner.run(bus.read_statuses(ids)))
    assert len(found) == COUNT
    runner.run(bus.aclose())


def test_read_a_thousand_targets_of_all_partitions(
    benchmark: BenchmarkFixture, runner: asyncio.Runner, url: str
) -> None:
    connection = connect(url)
    bus = ProbeBus(connection)
    fill = connection.pipeline(transaction=False)
    for number in range(COUNT):
        target = ReplicaProbeTarget(
            replica_id=replica(number),
            replica_host="10.0.0.1",
            inference_port=8000,
            health_path="/health",
        )
        fill.set(KEYS.target(target.replica_id), encode(target), ex=3600)
        fill.zadd(KEYS.index(partition_of(target.replica_id)), {target.replica_id: 2**40})
    runner.run(fill.execute())
    found = benchmark(lambda: runner.run(bus.read_targets(range(64), 0.0)))
    assert sum(map(len, found.by_partition.values())) == COUNT
    runner.run(bus.aclose())


def test_poll_the_versions(benchmark: BenchmarkFixture, runner: asyncio.Runner, url: str) -> None:
    bus = ProbeBus(connect(url))
    benchmark(lambda: runner.run(bus.poll()))
    runner.run(bus.aclose())
