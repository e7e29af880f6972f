"""What scheduling, verdict and bookkeeping cost per probe, without a wire.

Run: pytest bench/test_scheduler_bench.py --benchmark-enable --benchmark-only
Shows the sweep's own share of a probe (the kernel's is 8 to 10 us, kept alive). Does not show
sockets, the bus, or the caches a real prober's other work evicts.
"""

import gc
import uuid
from collections.abc import Callable, Iterator
from random import Random

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from probe.health import UNKNOWN, Outcome, ended, observe
from probe.reasons import Reason
from probe.schedule.scheduler import Check, Scheduler
from probe.sweep import TICK_S, Sweep
from probe.wire import ReplicaId, ReplicaProbeTarget
from tests.fakes.wire import FakeWire

PER_SECOND = 10_000
PASSED = ended(Reason.OK, http_status=200, first_byte_s=0.001, total_s=0.002)
REFUSED = ended(Reason.CONNECT_REFUSED, total_s=0.001)


def targets(count: int, interval_s: float) -> list[ReplicaProbeTarget]:
    random = Random(1)  # noqa: S311 - the same fleet in every run
    return [
        ReplicaProbeTarget(
            replica_id=ReplicaId(str(uuid.UUID(int=random.getrandbits(128), version=4))),
            replica_host="127.0.0.1",
            inference_port=8000,
            health_path="/health",
            interval_s=interval_s,
            deployment="bench",
        )
        for _ in range(count)
    ]


class InstantWire(FakeWire):
    """Answers everything one tick later, for the price of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Check] = []

    def start(self, check: Check, now: float) -> None:
        """Remember the check for the end of the tick."""
        self.started.append(check)


class Second:
    """One simulated second of a prober: ticks, answers, and a flusher that takes all."""

    def __init__(self, count: int, interval_s: float, outcomes: tuple[Outcome, Outcome]) -> None:
        self.now = 1000.0
        self.outcomes = outcomes
        self.wire = InstantWire()
        self.sweep = Sweep(Scheduler(), self.wire, clock=lambda: self.now, max_in_flight=2 * count)
        self.sweep.replace(0, targets(count, interval_s), now=self.now)
        for _ in range(round(interval_s) + 2):
            self()

    def __call__(self) -> None:
        """Let one second pass."""
        for _ in range(round(1 / TICK_S)):
            self.now += TICK_S
            self.sweep.tick(self.now)
            started, self.wire.started = self.wire.started, []
            for check in started:
                self.wire.done(check, self.outcomes[check.seq & 1])
            self.sweep.take_dirty(1000)


@pytest.fixture(autouse=True)
def _as_the_daemon_runs() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def rounds(benchmark: BenchmarkFixture, work: Callable[[], object]) -> None:
    """Run `work` ten times after a warm-up: each is long enough to time alone."""
    benchmark.pedantic(work, rounds=10, warmup_rounds=1)  # type: ignore[no-untyped-call]


def per_item(benchmark: BenchmarkFixture, items: int) -> None:
    if benchmark.stats is not None:
        median_us = benchmark.stats.stats.median / items * 1e6
        benchmark.extra_info["us_per_item"] = round(median_us, 3)
        print(f"\n{benchmark.name}: {median_us:.2f} us each")


@pytest.mark.parametrize(
    "outcomes",
    [(PASSED, PASSED), (REFUSED, REFUSED), (PASSED, REFUSED)],
    ids=["passing", "failing", "flapping"],
)
@pytest.mark.parametrize(("count", "interval_s"), [(10_000, 1.0), (100_000, 10.0)])
def test_one_second_of_ten_thousand_probes(
    benchmark: BenchmarkFixture, count: int, interval_s: float, outcomes: tuple[Outcome, Outcome]
) -> None:
    second = Second(count, interval_s, outcomes)
    before, seconds = second.sweep.counters.started, second.now
    rounds(benchmark, second)
    started = second.sweep.counters.started - before
    due = PER_SECOND * (second.now - seconds)
    assert 0.94 * due <= started <= 1.06 * due  # looks at the edge of a verdict included
    per_item(benchmark, PER_SECOND)


def test_a_tick_with_nothing_to_do(benchmark: BenchmarkFixture) -> None:
    second = Second(0, 1.0, (PASSED, PASSED))

    def tick() -> None:
        second.now += TICK_S
        second.sweep.tick(second.now)

    benchmark(tick)


def test_ten_thousand_new_targets(benchmark: BenchmarkFixture) -> None:
    fleet = targets(10_000, 10.0)
    rounds(benchmark, lambda: Scheduler().replace(0, fleet, now=1000.0))
    per_item(benchmark, len(fleet))


def test_ten_thousand_unchanged_targets(benchmark: BenchmarkFixture) -> None:
    fleet = targets(10_000, 10.0)
    scheduler = Scheduler()
    scheduler.replace(0, fleet, now=1000.0)
    read_again = msgspec.json.decode(msgspec.json.encode(fleet), type=list[ReplicaProbeTarget])
    rounds(benchmark, lambda: scheduler.replace(0, read_again, now=1001.0))
    per_item(benchmark, len(fleet))


def test_one_verdict(benchmark: BenchmarkFixture) -> None:
    streak, _ = observe(UNKNOWN, PASSED, healthy_threshold=1, max_retries=3)
    benchmark(observe, streak, PASSED, healthy_threshold=1, max_retries=3)
