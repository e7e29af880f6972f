"""The watch: from a busy thread to stretched intervals, on doubles and with numbers for time."""

import doctest
from collections import Counter
from dataclasses import dataclass

import pytest
import structlog.testing

from probe import limits
from probe.health import ended
from probe.limits import RESERVED_FDS, descriptors_for, local_ports, share, short_of_ports
from probe.reasons import Reason
from probe.schedule.admission import BUSY_GOAL, WINDOWS_OVER, WINDOWS_UNDER
from probe.schedule.census import Census
from probe.selfwatch.watch import LOADED_WINDOWS, LOADED_WINDOWS_MAX, SelfWatch, thread_busy_s
from probe.wire import encode
from tests.fakes.entries import replica, status, target
from tests.fakes.rig import Rig as ProberRig
from tests.fakes.wire import PASSED


@dataclass
class Pool:
    max_open: int = 100
    max_kept: int = 75
    open_connections: int = 60


class Rig(ProberRig):
    """A prober whose thread is as busy as the test says."""

    def __init__(self, *, stretch_max: float = 3.0) -> None:
        super().__init__()
        self.busy = 0.1
        self._busy_s = 0.0
        self.pool = Pool()
        self.census = Census(self.sweep.scheduler)
        self.watch = SelfWatch(
            self.prober,
            self.census,
            self.pool,
            stretch_max=stretch_max,
            flush_s=0.2,
            busy_s=lambda: self._busy_s,
        )

    async def load(self, count: int, **fields: object) -> None:
        for number in range(count):
            self.server.put_target(target(number, **{"interval_s": 1.0, **fields}))
        await self.refresher.step()
        self.wire.answers_at_once = PASSED

    def windows(self, count: int) -> None:
        for _ in range(count):
            self.advance(1.0)
            for _ in range(100):
                self.census.look(self.now)
            self._busy_s += self.busy
            self.watch.step()


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_it_knows_what_a_probe_costs_and_how_many_there_could_be(rig: Rig) -> None:
    await rig.load(50)
    rig.windows(20)
    vitals = rig.prober.vitals
    assert vitals.busy == pytest.approx(0.1, rel=0.01)
    assert vitals.probes_per_s == pytest.approx(50, rel=0.05)
    assert vitals.possible_per_s == pytest.approx(500, rel=0.1)
    assert rig.census.last.cadences == {(1.0, 15.0)}


async def test_overload_stretches_every_interval_and_says_so(rig: Rig) -> None:
    await rig.load(50)
    rig.windows(1 + LOADED_WINDOWS)
    rig.busy = 0.98
    with structlog.testing.capture_logs() as logs:
        rig.windows(WINDOWS_OVER)
    assert rig.prober.vitals.stretch == pytest.approx(0.98 / BUSY_GOAL, rel=0.01)
    assert rig.sweep.scheduler.stretch == rig.prober.vitals.stretch
    (line,) = (line for line in logs if line["event"] == "intervals_stretched")
    assert line["by"] == rig.prober.vitals.stretch
    await rig.heartbeat.step()
    assert rig.prober.vitals.stretch > 1


async def test_a_load_is_not_the_load(rig: Rig) -> None:
    """The seconds in which targets come are the busiest of all: no interval is stretched by it."""
    rig.busy = 1.0
    await rig.load(50)
    rig.windows(1 + LOADED_WINDOWS)
    rig.busy = 0.2
    rig.windows(WINDOWS_OVER)
    assert rig.sweep.scheduler.stretch == 1.0


async def test_a_first_round_is_not_the_load(rig: Rig) -> None:
    """A fleet too large to be probed at once is probed for the first time for many seconds."""
    for number in range(50):
        seed = status(number, last_check=rig.server.now_s)
        rig.server.set(rig.keys.status(replica(number)), encode(seed))
    await rig.load(50, interval_s=10.0)
    rig.busy = 1.0
    rig.windows(10)
    assert rig.sweep.scheduler.stretch == 1.0
    rig.windows(2 + WINDOWS_OVER)
    assert rig.sweep.scheduler.stretch > 1.0


async def test_a_round_longer_than_a_load_hides_no_overload(rig: Rig) -> None:
    for number in range(50):
        seed = status(number, last_check=rig.server.now_s)
        rig.server.set(rig.keys.status(replica(number)), encode(seed))
    await rig.load(50, interval_s=600.0)
    rig.busy = 1.0
    rig.windows(1 + LOADED_WINDOWS_MAX + WINDOWS_OVER)
    assert rig.sweep.scheduler.stretch > 1.0


async def test_it_eases_when_the_load_is_gone(rig: Rig) -> None:
    await rig.load(50)
    rig.busy = 0.98
    rig.windows(1 + LOADED_WINDOWS + WINDOWS_OVER)
    assert rig.sweep.scheduler.stretch > 1.0
    rig.busy = 0.1
    with structlog.testing.capture_logs() as logs:
        rig.windows(8 * WINDOWS_UNDER)
    assert rig.sweep.scheduler.stretch == 1.0
    assert {line["event"] for line in logs} >= {"intervals_eased"}


async def test_a_window_without_time_or_probes_decides_nothing(rig: Rig) -> None:
    rig.watch.step()
    rig.windows(3)
    assert rig.prober.vitals.possible_per_s == 0
    assert rig.prober.vitals.stretch == 1.0


async def test_full_is_said_once_and_takes_on_no_target_that_nobody_knows(rig: Rig) -> None:
    await rig.load(20, interval_s=30.0)
    rig = Rig(stretch_max=1.2)
    await rig.load(20)
    rig.busy = 1.0
    with structlog.testing.capture_logs() as logs:
        rig.windows(3 * WINDOWS_OVER)
    assert rig.prober.vitals.full
    assert [line["event"] for line in logs].count("full") == 1
    assert rig.prober.vitals.stretch == 1.2


async def test_more_targets_than_connections_to_keep_is_said_once_with_the_number(
    rig: Rig,
) -> None:
    """They dial for every probe: nothing breaks, and somebody should know."""
    await rig.load(90)
    with structlog.testing.capture_logs() as logs:
        rig.windows(3)
        rig.pool.max_kept = 200
        rig.windows(3)
    said = [line for line in logs if line["event"].startswith("connections_")]
    assert [line["event"] for line in said] == ["connections_scarce", "connections_suffice"]
    assert said[0]["ulimit_needed"] == descriptors_for(90)


@pytest.mark.parametrize("targets", [10, 100, 101, 102, 12_345])
def test_the_number_that_is_said_suffices(targets: int) -> None:
    needed = descriptors_for(targets)
    assert share(needed - RESERVED_FDS, 0).max_kept >= targets
    assert share(needed - RESERVED_FDS - 3, 0).max_kept < targets


def test_a_crowded_address_is_named() -> None:
    places = [("10.0.0.1", 80), *[("10.0.0.2", 80)] * 600]
    assert "600 targets share 10.0.0.2:80" in (short_of_ports(Counter(places), 1000) or "")
    assert short_of_ports(Counter(places), 2000) is None
    assert short_of_ports(Counter(), local_ports()) is None
    assert doctest.testmod(limits).failed == 0


async def test_without_descriptors_it_keeps_fewer_connections(rig: Rig) -> None:
    """A lack of descriptors costs dials, not the prober."""
    await rig.load(20)
    rig.windows(1)
    rig.wire.answers_at_once = ended(Reason.LOCAL_FDS)
    with structlog.testing.capture_logs() as logs:
        rig.windows(1)
    assert rig.pool.max_kept == 45
    assert [line["event"] for line in logs if "descriptors" in line["event"]] == [
        "descriptors_lacking"
    ]
    rig.wire.answers_at_once = PASSED
    rig.windows(3)
    assert rig.pool.max_kept == 45


def test_a_thread_is_as_busy_as_it_works() -> None:
    before = thread_busy_s()
    sum(range(3_000_000))
    assert thread_busy_s() - before > 0.005
