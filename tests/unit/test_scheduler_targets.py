"""The scheduler when targets come, change and go, and what it takes over from the bus."""

import tracemalloc

import pytest

from probe.health import Streak
from probe.schedule.scheduler import Scheduler
from tests.fakes.entries import replica, status, target
from tests.fakes.schedule import (
    PASSED,
    T0,
    TICK,
    first_start,
    only,
    scheduler_of,
    starts,
)


class TestReplace:
    def test_an_unchanged_target_keeps_its_check(self) -> None:
        scheduler = scheduler_of(target(1))
        before = only(scheduler)
        changes = scheduler.replace(0, [target(1)], now=T0 + 1)
        assert only(scheduler) is before
        assert changes == ([], [], [])

    def test_a_changed_target_gets_a_new_check_that_keeps_the_streak(self) -> None:
        scheduler = scheduler_of(target(1))
        old, now = first_start(scheduler)
        scheduler.record(old, PASSED, now)
        changes = scheduler.replace(0, [target(1, inference_port=9)], now=now + 1)
        check = only(scheduler)
        assert changes == ([], [check], [old])
        assert old.removed
        assert not check.removed
        assert (check.streak, check.seq, check.evidence_at) == (old.streak, 1, now)
        assert {c for _, c in starts(scheduler, now + 1, now + 2.02)} == {check}

    def test_another_generation_is_another_incarnation(self) -> None:
        """R-44."""
        scheduler = scheduler_of(target(1, generation=1))
        old, now = first_start(scheduler)
        scheduler.record(old, PASSED, now)
        scheduler.replace(0, [target(1, generation=2)], now=now + 1)
        check = only(scheduler)
        assert (check.streak.healthy, check.outcome, check.seq) == (False, None, 1)

    def test_a_removed_target_is_never_probed_again(self) -> None:
        scheduler = scheduler_of(target(1, interval_s=1.0), target(2, interval_s=1.0))
        changes = scheduler.replace(0, [target(2, interval_s=1.0)], now=T0)
        assert [c.replica_id for c in changes.retired] == [replica(1)]
        assert {c.replica_id for _, c in starts(scheduler, T0, T0 + 5)} == {replica(2)}

    def test_a_removed_target_that_waits_for_room_is_dropped(self) -> None:
        scheduler = scheduler_of(target(1))
        scheduler.due(T0 + 1.01, 0)
        assert scheduler.waiting == 1
        scheduler.replace(0, [], now=T0 + 1.01)
        assert scheduler.due(T0 + 2, 9) == []
        assert scheduler.waiting == 0

    def test_partitions_are_replaced_one_by_one(self) -> None:
        scheduler = scheduler_of(target(1))
        scheduler.replace(5, [target(2)], now=T0)
        assert len(scheduler) == 2
        scheduler.replace(0, [], now=T0)
        assert len(scheduler) == 1
        assert only(scheduler).replica_id == replica(2)

    def test_a_target_listed_twice_is_one_check_with_the_last_description(self) -> None:
        """R-52."""
        scheduler = scheduler_of(target(1, inference_port=1), target(1, inference_port=2))
        assert only(scheduler).target.inference_port == 2
        assert len(starts(scheduler, T0, T0 + 1.02)) == 1

    def test_a_target_read_before_the_last_tick_is_not_lost(self) -> None:
        scheduler = scheduler_of(target(1))
        scheduler.due(T0 + 50, 9)
        scheduler.replace(0, [target(1), target(2)], now=T0 + 40)
        assert replica(2) in {c.replica_id for _, c in starts(scheduler, T0 + 50, T0 + 51)}

    def test_the_same_fleet_has_the_same_phases_after_a_restart(self) -> None:
        """R-61."""
        fleet = [target(n) for n in range(500)]
        phases = [[c.cohort.phase_slot for c in scheduler_of(*fleet)] for _ in range(2)]
        assert phases[0] == phases[1]

    def test_targets_that_left_crowd_nobody(self) -> None:
        scheduler = Scheduler()
        for interval_s in (0.1, 0.333, 10.0, 1200.0):
            scheduler.replace(0, [target(n, interval_s=interval_s) for n in range(9)], now=T0)
        scheduler.replace(0, [], now=T0)
        assert scheduler._beat._spread._crowding == {}
        assert scheduler.rate_per_s == pytest.approx(0.0)


class TestSeeds:
    BUS = 1_700_000_000.0

    def test_a_seed_keeps_the_streak_and_continues_the_sequence(self) -> None:
        """R-62."""
        scheduler = Scheduler()
        seed = status(
            1, consecutive_failures=2, seq=41, last_check=self.BUS - 4, changed_at=self.BUS - 60
        )
        scheduler.replace(0, [target(1)], now=T0, bus_now=self.BUS, seeds={replica(1): seed})
        check = only(scheduler)
        assert check.streak == Streak(healthy=True, consecutive_failures=2, consecutive_successes=0)
        assert (check.seq, check.evidence_at, check.changed_at) == (41, T0 - 4, T0 - 60)

    @pytest.mark.parametrize(("age_s", "within_s"), [(0.0, 100.0), (299.0, 100.0), (None, 0.7)])
    def test_a_target_with_evidence_waits_for_its_phase_and_another_is_probed_at_once(
        self, age_s: float | None, within_s: float
    ) -> None:
        """R-61, R-62: whoever takes over a share, or starts again, makes no crowd."""
        scheduler = Scheduler()
        targets = [target(n, interval_s=100.0) for n in range(50)]
        seeds = {
            t.replica_id: status(n, last_check=0.0 if age_s is None else self.BUS - age_s)
            for n, t in enumerate(targets)
        }
        scheduler.replace(0, targets, now=T0, bus_now=self.BUS, seeds=seeds)
        seen = [now for now, _ in starts(scheduler, T0, T0 + within_s + TICK)]
        assert len(seen) == 50
        assert max(seen) > T0 + within_s / 2

    def test_a_seed_of_another_generation_is_no_evidence(self) -> None:
        """R-44."""
        scheduler = Scheduler()
        seed = status(1, generation=1, seq=7, last_check=self.BUS)
        scheduler.replace(
            0, [target(1, generation=2)], now=T0, bus_now=self.BUS, seeds={replica(1): seed}
        )
        check = only(scheduler)
        assert (check.streak.healthy, check.evidence_at, check.seq) == (False, None, 7)

    def test_a_seed_without_evidence_is_probed_at_once(self) -> None:
        scheduler = Scheduler()
        seed = status(1, healthy=False, last_check=0.0)
        scheduler.replace(
            0, [target(1, interval_s=600.0)], now=T0, bus_now=5.0, seeds={replica(1): seed}
        )
        assert only(scheduler).evidence_at is None
        assert len(starts(scheduler, T0, T0 + 1.02)) == 1

    def test_a_seed_never_overrides_what_this_prober_saw_itself(self) -> None:
        scheduler = scheduler_of(target(1))
        before = only(scheduler).streak
        scheduler.replace(
            0, [target(1, timeout_s=3.0)], now=T0, bus_now=9.0, seeds={replica(1): status(1)}
        )
        assert only(scheduler).streak == before


def test_a_target_under_watch_costs_less_than_half_a_kilobyte() -> None:
    """Of the 6 KB for each target, its connection included."""
    targets = [target(n, interval_s=10.0) for n in range(5000)]
    scheduler = Scheduler()
    tracemalloc.start()
    try:
        scheduler.replace(0, targets, now=T0)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / len(targets) < 512
