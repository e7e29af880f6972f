"""How targets come from the bus, step by step, and what an empty bus takes away: nothing."""

from itertools import count, islice
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
import structlog.testing

from probe.bus.prober import Poll
from probe.errors import BusUnreachable
from probe.ledger import Ledger
from probe.refresh import AMNESIA_GRACE_S, REJECTED_LOG_PERIOD_S, Refresh
from probe.refresher import SLICE_S, TARGETS_AT_ONCE
from probe.schedule.scheduler import Changes
from probe.wire import (
    PARTITIONS,
    TARGET_TTL_S,
    encode,
    partition_of,
)
from tests.fakes.entries import replica, status, target
from tests.fakes.rig import FULL_ROUND, Rig, admit


@pytest.fixture
def rig() -> Rig:
    return Rig()


class TestRefresher:
    async def test_everything_is_read_at_first(self, rig: Rig) -> None:
        for number in range(20):
            rig.server.put_target(target(number))
        assert not rig.refresher.loaded.is_set()
        await rig.refresher.step()
        assert rig.watched() == {replica(number) for number in range(20)}
        assert rig.refresher.loaded.is_set()

    async def test_a_new_target_is_watched_at_the_next_poll(self, rig: Rig) -> None:
        await rig.refresher.step()
        rig.server.put_target(target(1))
        await rig.refresher.step()
        assert rig.watched() == {replica(1)}

    async def test_a_removed_target_is_dropped_at_the_next_poll(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.remove(replica(1))
        await rig.refresher.step()
        assert rig.watched() == set()

    async def test_a_full_prober_takes_on_whom_somebody_knows_and_nobody_else(
        self, rig: Rig
    ) -> None:
        """S18: what is watched stays watched; what is refused is counted, and asked for again."""
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.prober.vitals.full = True
        known = status(2)
        rig.server.set(rig.keys.status(replica(2)), encode(known), ttl_s=120)
        rig.server.put_target(target(2))
        rig.server.put_target(target(3))
        await rig.refresher.step()
        assert rig.watched() == {replica(1), replica(2)}
        assert rig.ledger.rejected == {"full": 1}
        rig.prober.vitals.full = False
        await rig.polls(FULL_ROUND)
        assert rig.watched() == {replica(1), replica(2), replica(3)}

    async def test_an_unannounced_change_is_found_within_a_round(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.server.set(rig.keys.target(replica(1)), encode(target(1, inference_port=9000)))
        await rig.polls(FULL_ROUND)
        assert rig.check(1).target.inference_port == 9000

    async def test_an_expired_target_is_dropped_within_a_round(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.server.now_s += TARGET_TTL_S
        await rig.polls(FULL_ROUND)
        assert rig.watched() == set()

    async def test_a_new_target_takes_over_the_streak_on_the_bus(self, rig: Rig) -> None:
        """R-62."""
        seed = status(1, consecutive_successes=7, seq=41, last_check=rig.server.now_s - 2)
        rig.server.set(rig.keys.status(replica(1)), encode(seed))
        rig.server.put_target(target(1))
        await rig.refresher.step()
        assert rig.check(1).streak.healthy
        assert rig.check(1).streak.consecutive_successes == 7
        assert rig.check(1).seq == 41

    async def test_an_unusable_target_costs_its_neighbours_nothing(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        rig.server.put_target(target(2))
        rig.server.put_target(target(3, scheme="https"))
        rig.server.set(rig.keys.target(replica(2)), b"{")
        await rig.refresher.step()
        assert rig.watched() == {replica(1)}
        assert rig.ledger.rejected == {"malformed": 1, "unsupported_check": 1}

    async def test_an_unusable_target_is_logged_once_an_hour(self, rig: Rig) -> None:
        rig.server.put_target(target(2))
        rig.server.set(rig.keys.target(replica(2)), b"{")
        with structlog.testing.capture_logs() as logs:
            await rig.polls(2 * FULL_ROUND)
            assert len(logs) == 1
            assert logs[0]["event"] == "target_rejected"
            assert logs[0]["replica"] == replica(2)
            rig.now += REJECTED_LOG_PERIOD_S
            await rig.polls(FULL_ROUND)
        assert len(logs) == 2
        assert rig.ledger.rejected["malformed"] > 2

    async def test_while_the_bus_is_away_targets_outlive_their_time(self, rig: Rig) -> None:
        """S17."""
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.server.away = True
        rig.now += 2 * TARGET_TTL_S
        with pytest.raises(BusUnreachable):
            await rig.refresher.step()
        assert rig.watched() == {replica(1)}
        assert rig.ledger.bus_errors == 1
        assert not rig.life.up

    async def test_each_poll_reads_about_as_much(self, rig: Rig) -> None:
        """S18."""
        await rig.refresher.step()
        before = rig.server.round_trips
        await rig.polls(FULL_ROUND)
        assert rig.server.round_trips - before == 2 * FULL_ROUND


class TestAmnesia:
    """S4: a bus that comes back empty takes no target from us."""

    async def test_targets_stay_when_the_bus_comes_back_empty(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        rig.server.set(rig.keys.epoch, b"first")
        await rig.refresher.step()
        rig.server.forget_everything()
        await rig.polls(5 * FULL_ROUND)
        assert rig.watched() == {replica(1)}

    async def test_targets_stay_without_an_epoch_when_versions_fall(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.server.forget_everything()
        await rig.polls(FULL_ROUND)
        assert rig.watched() == {replica(1)}

    async def test_a_partition_filled_again_loses_none_until_the_grace_is_over(
        self, rig: Rig
    ) -> None:
        first, second = target(1), target(2)
        rig.server.put_target(first)
        rig.server.put_target(second)
        rig.server.set(rig.keys.epoch, b"first")
        await rig.refresher.step()
        rig.server.forget_everything()
        rig.server.set(rig.keys.epoch, b"second")
        for partition in range(PARTITIONS):
            rig.server.versions[partition] = 1
        rig.server.put_target(first)
        await rig.polls(int(AMNESIA_GRACE_S))
        assert rig.watched() == {replica(1), replica(2)}
        await rig.polls(FULL_ROUND + 1)
        assert rig.watched() == {replica(1)}

    async def test_a_partition_nobody_fills_is_given_up_after_an_hour(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.server.forget_everything()
        await rig.refresher.step()
        rig.now += TARGET_TTL_S
        await rig.polls(FULL_ROUND)
        assert rig.watched() == set()

    async def test_it_is_said_once(self, rig: Rig) -> None:
        rig.server.put_target(target(1))
        await rig.refresher.step()
        rig.server.forget_everything()
        with structlog.testing.capture_logs() as logs:
            await rig.polls(3)
        assert [entry["event"] for entry in logs] == ["bus_lost_memory"]


@pytest.mark.parametrize(("polls", "at_once"), [(1, {64}), (30, {2, 3}), (120, {0, 1})])
def test_a_poll_reads_partitions_in_rotation(polls: int, at_once: set[int]) -> None:
    refresh = Refresh(range(PARTITIONS), polls_per_round=polls, admit=admit, ledger=Ledger())
    poll = Poll(versions={}, epoch=None, time_s=0.0)
    for partition in refresh.wanted(poll, 0.0):
        refresh.took(partition, [], poll)
    for _ in range(3):
        rounds = [refresh.wanted(poll, 0.0) for _ in range(polls)]
        read = [partition for wanted in rounds for partition in wanted]
        assert sorted(read) == list(range(PARTITIONS))
        assert {len(wanted) for wanted in rounds} == at_once


class TestLargeLoads:
    """What a hundred thousand targets must not do to what runs beside them, on fewer of them."""

    COUNT = 3 * TARGETS_AT_ONCE + 7

    @pytest.fixture
    def crowd(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
        """Everything in one partition; each look at the clock takes a while."""
        ours = (n for n in count() if partition_of(replica(n)) == 0)
        for number in islice(ours, self.COUNT):
            rig.server.put_target(target(number))
        looks = count()
        monkeypatch.setattr(rig.prober, "clock", lambda: rig.now + next(looks) * SLICE_S)
        return rig

    async def test_others_run_after_every_few_targets(
        self, crowd: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken_on: list[int] = []
        replace = crowd.sweep.replace

        def counted(*args: Any, **kwargs: Any) -> Changes:  # noqa: ANN401 - as `replace`
            changes = replace(*args, **kwargs)
            taken_on.append(len(changes.added))
            return changes

        monkeypatch.setattr(crowd.sweep, "replace", counted)
        await crowd.refresher.step()
        assert sum(taken_on) == self.COUNT
        assert max(taken_on) <= TARGETS_AT_ONCE

    async def test_the_first_are_probed_while_the_last_are_read(self, crowd: Rig) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(crowd.refresher.step)
            while len(crowd.watched()) < self.COUNT:
                started = len(crowd.wire.starts)
                crowd.advance(0.3)
                await anyio.lowlevel.checkpoint()
        assert started > 0

    async def test_a_target_that_changes_in_a_crowd_of_changes_keeps_its_streak(
        self, crowd: Rig
    ) -> None:
        """R-62."""
        await crowd.refresher.step()
        for check in crowd.sweep.scheduler:
            check.successes = 3
        before = crowd.watched()
        for each in [check.target for check in crowd.sweep.scheduler][2:]:
            crowd.server.put_target(msgspec.structs.replace(each, inference_port=99))
        await crowd.refresher.step()
        assert crowd.watched() == before
        assert {check.successes for check in crowd.sweep.scheduler} == {3}
        assert {check.target.inference_port for check in crowd.sweep.scheduler} == {8000, 99}
