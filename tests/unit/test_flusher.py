"""What happens to results between the moment they are gathered and the moment they leave."""

from collections.abc import Callable

import pytest

from probe.bus.writes import Entries
from probe.errors import BusUnreachable
from probe.health import Outcome, ended
from probe.reasons import Reason
from tests.fakes.bus import FakeBus
from tests.fakes.entries import replica, target
from tests.fakes.rig import LATE_S, Rig
from tests.fakes.wire import PASSED


class SlowBus(FakeBus):
    """Does something before it is ready to write, and perhaps has to begin again."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)
    times = 1

    async def write_statuses(self, build: Callable[[], Entries]) -> None:
        self.meanwhile()
        for _ in range(self.times - 1):
            build()
        await super().write_statuses(build)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def bus(rig: Rig) -> SlowBus:
    slow = SlowBus(rig.server)
    rig.prober.bus = slow
    return slow


async def with_results(rig: Rig, *numbers: int, outcome: Outcome = PASSED) -> None:
    for number in numbers:
        rig.server.put_target(target(number, interval_s=1.0))
    await rig.refresher.step()
    rig.wire.answers_at_once = outcome
    rig.advance(1.1)
    assert rig.sweep.dirty == len(numbers)


async def test_a_result_that_grows_old_while_a_connection_is_made_is_not_sent(
    rig: Rig, bus: SlowBus
) -> None:
    await with_results(rig, 1)

    def take_long() -> None:
        rig.now += LATE_S + 0.1

    bus.meanwhile = take_long
    await rig.flusher.flush()
    assert rig.status(1) is None
    assert (rig.ledger.statuses_written, rig.ledger.results_dropped) == (0, 1)


async def test_what_stood_still_before_sending_sends_nothing(rig: Rig, bus: SlowBus) -> None:
    await with_results(rig, 1)
    rig.prober.standstill_s = LATE_S
    rig.prober.runs(rig.now)
    bus.meanwhile = lambda: setattr(rig, "now", rig.now + 150.0)
    await rig.flusher.flush()
    assert rig.status(1) is None
    assert rig.ledger.results_dropped == 1
    assert rig.server.changes == []


async def test_who_falls_sick_before_sending_sends_nothing(rig: Rig, bus: SlowBus) -> None:
    """S7."""
    await with_results(rig, 1, 2)
    bus.meanwhile = lambda: setattr(rig.prober, "sick", "its resolver lies")
    await rig.flusher.flush()
    assert rig.status(1) is None
    assert (rig.ledger.statuses_written, rig.ledger.results_dropped) == (0, 2)
    assert rig.server.changes == []


async def test_a_write_that_begins_again_counts_its_results_once(rig: Rig, bus: SlowBus) -> None:
    await with_results(rig, 1, 2, outcome=ended(Reason.OK, first_byte_s=0.01, total_s=0.01))
    bus.times = 3
    await rig.flusher.flush()
    assert rig.status(1) is not None
    assert rig.ledger.statuses_written == 2
    assert sum(rig.ledger.phases["first_byte"].counts) == 2


async def test_the_newest_result_is_the_one_that_leaves(rig: Rig, bus: SlowBus) -> None:
    await with_results(rig, 1)
    bus.meanwhile = lambda: rig.advance(1.0)
    await rig.flusher.flush()
    found = rig.status(1)
    assert found is not None
    assert found.seq == rig.check(1).seq == 2


async def test_a_target_removed_before_sending_gets_no_status(rig: Rig) -> None:
    await with_results(rig, 1, 2)
    rig.remove(replica(1))
    await rig.refresher.step()
    await rig.flusher.flush()
    assert rig.status(1) is None
    assert rig.status(2) is not None


async def test_a_bus_that_is_away_is_sent_the_newest_when_it_is_back(rig: Rig) -> None:
    await with_results(rig, 1)
    rig.server.away = True
    for _ in range(30):
        rig.advance(1.0)
        with pytest.raises(BusUnreachable):
            await rig.flusher.flush()
    assert rig.sweep.dirty == 1
    rig.server.away = False
    await rig.flusher.flush()
    found = rig.status(1)
    assert found is not None
    assert found.seq == rig.check(1).seq
    assert rig.ledger.results_dropped == 0
