"""What reading a reply and asking a replica cost.

Run: pytest bench/test_wire_bench.py --benchmark-enable --benchmark-only
The rounds run both ends in this process, so they compare versions of the wire with each other,
not with other probers: that is what `python -m bench` does.
"""

import asyncio
from collections.abc import Iterator
from functools import lru_cache
from time import monotonic
from typing import Final
from uuid import UUID

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from probe.admit import admit
from probe.check import StatusJudge
from probe.health import Outcome
from probe.http.policy import ConnectPolicy
from probe.http.pool import REPLIES_REMEMBERED, HttpPool
from probe.http.response import Latch, Reply, read_whole
from probe.schedule.scheduler import Check
from probe.wire import OutcomeKind, ReplicaId, ReplicaProbeTarget
from tests.fakes.farm import Farm, Plot

REPLY: Final = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-length: 2\r\ncontent-type: application/json\r\n\r\n{}"
)
LOOPBACK: Final = ConnectPolicy.of(["127.0.0.0/8"])
PROBES: Final = 200


def target_at(plot: Plot, number: int) -> ReplicaProbeTarget:
    return ReplicaProbeTarget(
        replica_id=ReplicaId(str(UUID(int=number))),
        replica_host=plot.host,
        inference_port=plot.port,
        health_path="/health",
    )


def test_reply_through_the_parser(benchmark: BenchmarkFixture) -> None:
    assert benchmark(read_whole, REPLY) == Reply(200, reusable=True)


def test_reply_in_two_segments(benchmark: BenchmarkFixture) -> None:
    def read() -> Reply | None:
        latch = Latch()
        assert latch.feed(REPLY[:-2]) is None
        return latch.feed(REPLY[-2:])

    assert benchmark(read) == Reply(200, reusable=True)


def test_reply_remembered(benchmark: BenchmarkFixture) -> None:
    remembered = lru_cache(maxsize=REPLIES_REMEMBERED)(read_whole)
    segments = iter([bytes(bytearray(REPLY)) for _ in range(50_000)])

    def fresh() -> tuple[tuple[bytes], dict[str, object]]:
        return (next(segments),), {}  # as from a socket: its hash is not known yet

    remembered(REPLY)
    reply = benchmark.pedantic(  # type: ignore[no-untyped-call]  # as the plugin declares it
        remembered, setup=fresh, rounds=20_000
    )
    assert reply == Reply(200, reusable=True)


def test_admission_of_a_target(benchmark: BenchmarkFixture) -> None:
    target = target_at(Plot("127.1.2.3", 8000), 1)
    assert benchmark(admit, target, LOOPBACK).refusal is None


class Round:
    """A pool and `PROBES` targets; `run` probes each once, both ends in this process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, farm: Farm, *, kept: bool) -> None:
        self.pool = HttpPool(
            StatusJudge(LOOPBACK), loop=loop, max_open=PROBES * 4, max_kept=PROBES if kept else 0
        )
        self.pool.done = self._done
        self.checks = [Check(target_at(farm.plant("ok200"), n)) for n in range(PROBES)]
        self.passed = 0
        self._left = 0
        self._ended = asyncio.Event()

    def _done(self, _check: Check, outcome: Outcome) -> None:
        self.passed += outcome.kind is OutcomeKind.PASSED
        self._left -= 1
        if self._left == 0:
            self._ended.set()

    async def run(self) -> None:
        """Probe every target once."""
        self._ended.clear()
        self._left = PROBES
        now = monotonic()
        for check in self.checks:
            self.pool.start(check, now)
        await self._ended.wait()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = uvloop.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "new"])
def test_two_hundred_probes(
    benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop, *, kept: bool
) -> None:
    farm = Farm()
    loop.run_until_complete(farm.__aenter__())
    all_of_them = Round(loop, farm, kept=kept)
    benchmark(lambda: loop.run_until_complete(all_of_them.run()))
    assert all_of_them.passed % PROBES == 0
    assert all_of_them.passed > 0
    all_of_them.pool.close()
    loop.run_until_complete(farm.__aexit__(None, None, None))
