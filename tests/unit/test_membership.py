"""Probers that share a bus, in virtual time: who watches what, whoever comes and goes."""

import pytest

from probe.wire import PARTITIONS, ReplicaProbeTarget, partition_of
from tests.fakes.entries import replica, target
from tests.fakes.herd import EVERY, Herd
from tests.fakes.wire import REFUSED

TARGETS = 200
ONCE = dict.fromkeys(EVERY, 1)


@pytest.fixture
def herd() -> Herd:
    herd = Herd()
    herd.plant(*(target(number, max_retries=3) for number in range(TARGETS)))
    return herd


async def herd_of(herd: Herd, *instances: str) -> Herd:
    for instance in instances:
        herd.join(instance)
    await herd.live(20)
    assert herd.owners() == ONCE
    return herd


class TestShares:
    async def test_who_is_alone_watches_everything_within_a_second(self, herd: Herd) -> None:
        herd.join("a")
        await herd.live(1.0)
        assert herd.owners() == ONCE
        assert len(herd.members["a"].watched) == TARGETS

    async def test_probers_that_start_together_watch_each_target_once(self, herd: Herd) -> None:
        await herd_of(herd, "a", "b", "c")
        assert max(len(member.owned) for member in herd.members.values()) <= 22
        herd.probes.clear()
        await herd.live(30)
        assert set(herd.probes.values()) == {3}

    async def test_each_says_on_the_bus_what_it_watches(self, herd: Herd) -> None:
        """S6, S8: what the controller takes for covered."""
        await herd_of(herd, "a", "b")
        assert [herd.covered(each) for each in "ab"] == [herd.members[e].owned for e in "ab"]

    async def test_peers_are_left_their_shares_until_they_had_time_to_come_up(
        self, herd: Herd
    ) -> None:
        """Workers of one supervisor: nothing is probed twice while they start."""
        herd.join("a", peers=("a", "b"))
        await herd.live(10)
        assert len(herd.members["a"].owned) == PARTITIONS // 2
        await herd.live(10)
        assert herd.members["a"].owned == EVERY


class TestJoin:
    async def test_a_join_leaves_no_hole_at_any_moment(self, herd: Herd) -> None:
        await herd_of(herd, "a", "b")
        herd.join("c")
        for _ in range(80):
            await herd.live(0.25)
            assert herd.owners().keys() == EVERY
        assert herd.owners() == ONCE

    async def test_nothing_is_given_up_for_one_that_never_says_that_it_watches(
        self, herd: Herd
    ) -> None:
        await herd_of(herd, "a")
        late = herd.join("b")
        await herd.live(0.25)  # its first heartbeat: it lives, and watches nothing yet
        late.stopped = True
        await herd.live(10)
        assert herd.members["a"].owned == EVERY

    async def test_a_target_keeps_its_streak_as_it_moves(self, herd: Herd) -> None:
        """R-62: failing replicas take as many failures as if nobody had come."""
        await herd_of(herd, "a")
        bad = [replica(number) for number in range(TARGETS)]
        herd.truth.update(dict.fromkeys(bad, REFUSED))
        await herd.live(10)
        before = {each: herd.status(each) for each in bad}
        assert {status.consecutive_failures for status in before.values()} <= {1, 2}
        herd.join("b")
        await herd.live(10)
        moved = [each for each in bad if partition_of(each) in herd.members["b"].owned]
        assert len(moved) > TARGETS // 3
        for each in moved:
            after = herd.status(each)
            assert after.consecutive_failures - before[each].consecutive_failures in {1, 2}
            assert after.seq > before[each].seq
        await herd.live(10)
        assert not any(herd.status(each).healthy for each in moved)


class TestDeparture:
    async def test_the_targets_of_one_that_died_are_seen_again_within_45_s(
        self, herd: Herd
    ) -> None:
        await herd_of(herd, "a", "b", "c")
        herd.kill("b")
        oldest = 0.0
        for _ in range(4 * 45):
            await herd.live(0.25)
            oldest = max(oldest, herd.oldest_status_s())
        assert oldest <= 45
        assert herd.owners() == ONCE

    @pytest.mark.parametrize("later_s", [2.0, 8.0, 12.0, 15.0, 17.0, 19.0, 22.0])
    async def test_no_target_waits_for_its_turn_twice_when_one_joins_after_a_death(
        self, herd: Herd, later_s: float
    ) -> None:
        """What just went to the one goes on to the next: it is probed as late as if it had not."""
        await herd_of(herd, "a", "b", "c")
        herd.kill("b")
        await herd.live(later_s)
        herd.join("d")
        oldest = 0.0
        for _ in range(4 * 40):
            await herd.live(0.25)
            oldest = max(oldest, herd.oldest_status_s())
        assert oldest <= 32

    async def test_one_that_retires_is_replaced_within_two_seconds(self, herd: Herd) -> None:
        await herd_of(herd, "a", "b")
        await herd.members["b"].prober.bus.retire("b")  # type: ignore[attr-defined]
        herd.kill("b")
        await herd.live(2)
        assert herd.members["a"].owned == EVERY

    async def test_a_take_over_comes_without_a_crowd(self, herd: Herd) -> None:
        """P9, R-61: its targets keep their phase, so that no moment sees more than the mean."""
        await herd_of(herd, "a", "b")
        herd.kill("b")
        busiest = 0
        for _ in range(40):
            before = herd.probes.total()
            await herd.live(1.0)
            busiest = max(busiest, herd.probes.total() - before)
        assert busiest <= 1.3 * TARGETS / 10 + 3

    async def test_a_sick_one_gives_up_everything_and_takes_it_back_when_well(
        self, herd: Herd
    ) -> None:
        """S7."""
        await herd_of(herd, "a", "b")
        herd.members["b"].prober.sick = "its own responder was judged wrong"
        await herd.live(0.25)
        assert herd.members["b"].owned == frozenset()
        assert herd.members["b"].watched == set()
        await herd.live(2)
        assert herd.members["a"].owned == EVERY
        herd.members["b"].prober.sick = None
        await herd.live(3)
        assert herd.owners() == ONCE


class TestAbsence:
    async def test_who_was_stopped_writes_nothing_before_it_has_read_everything_again(
        self, herd: Herd
    ) -> None:
        """The verdicts of 150 s ago are void, however fresh their probes end."""
        await herd_of(herd, "a", "b")
        stopped = herd.members["b"]
        for check in stopped.sweep.scheduler:  # their answers will lie in its sockets
            stopped.sweep.scheduler.restart(check, herd.now)
        herd.now += 0.01
        stopped.ticker.tick(herd.now, late_s=0.0)
        assert len(stopped.wire.probing) == len(stopped.watched)
        stopped.stopped = True
        await herd.live(30)
        herd.truth.update({replica(number): REFUSED for number in range(TARGETS)})
        await herd.live(120)
        assert not any(herd.status(replica(n)).healthy for n in range(TARGETS))
        stopped.stopped = False
        stopped.wire.answer_all()  # the old truth, and the first thing it hears
        await stopped.flusher.flush()
        started = len(stopped.wire.starts)
        stopped.ticker.tick(herd.now, late_s=150.0)
        assert len(stopped.wire.starts) == started
        for _ in range(40):
            await herd.live(0.25)
            assert not any(herd.status(replica(n)).healthy for n in range(TARGETS))
        assert herd.owners() == ONCE
        assert stopped.ledger.results_dropped >= TARGETS // 3
        assert len(stopped.owned) == PARTITIONS // 2

    async def test_while_the_bus_is_away_everybody_keeps_what_they_have(self, herd: Herd) -> None:
        """S17."""
        await herd_of(herd, "a", "b")
        before = {name: member.owned for name, member in herd.members.items()}
        herd.server.away = True
        await herd.live(60)
        assert {name: member.owned for name, member in herd.members.items()} == before
        herd.probes.clear()
        await herd.live(10)
        assert set(herd.probes.values()) == {1}
        herd.server.away = False
        await herd.live(20)
        assert {name: member.owned for name, member in herd.members.items()} == before

    async def test_a_bus_that_forgot_the_probers_moves_next_to_nothing(self, herd: Herd) -> None:
        """S4."""
        await herd_of(herd, "a", "b", "c")
        before = {name: member.owned for name, member in herd.members.items()}
        herd.server.forget_everything()
        herd.probes.clear()
        await herd.live(20)
        assert {name: member.owned for name, member in herd.members.items()} == before
        assert herd.probes.total() <= 1.2 * 2 * TARGETS


class TestAdoption:
    async def test_what_a_living_prober_neglects_is_adopted_by_its_heir(self, herd: Herd) -> None:
        await herd_of(herd, "a", "b", "c")
        mute = herd.members["b"]
        mute.deaf = True  # beats on, says that it covers its share, and probes nothing
        await herd.live(120)
        assert herd.oldest_status_s() <= 25
        assert mute.owned
        adopted = sum(
            len(member.watched) - sum(partition_of(each) in member.owned for each in member.watched)
            for member in herd.members.values()
        )
        assert adopted == len(mute.watched)
        mute.deaf = False
        await herd.live(150)
        herd.probes.clear()
        await herd.live(10)
        assert herd.probes.total() <= 1.1 * TARGETS

    async def test_a_new_target_is_not_taken_for_a_neglected_one(self, herd: Herd) -> None:
        await herd_of(herd, "a", "b")
        herd.plant(*(fresh(number) for number in range(TARGETS, 2 * TARGETS)))
        await herd.live(90)
        for member in herd.members.values():
            assert {partition_of(each) for each in member.watched} <= member.owned


def fresh(number: int) -> ReplicaProbeTarget:
    return target(number, interval_s=20.0)
