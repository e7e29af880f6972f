"""When each target is probed, told in virtual seconds."""

import pytest

from probe.health import Transition
from probe.schedule.deadlines import SIFT_S
from tests.fakes.entries import target
from tests.fakes.schedule import (
    NO_FDS,
    PASSED,
    REFUSED,
    T0,
    TICK,
    again,
    first_start,
    only,
    scheduler_of,
    starts,
)


class TestStarts:
    @pytest.mark.parametrize("interval_s", [0.1, 0.25, 0.333, 1.0, 7.5, 10.0])
    def test_a_target_is_probed_once_an_interval_without_drift(self, interval_s: float) -> None:
        """R-02."""
        scheduler = scheduler_of(target(0, interval_s=interval_s))
        times = [now for now, _ in starts(scheduler, T0, T0 + 60 * interval_s)]
        steady = times[2:]  # the first is early, the second falls into phase
        for number, now in enumerate(steady):
            assert now - steady[0] == pytest.approx(number * interval_s, abs=2 * TICK)
        assert len(times) in (60, 61, 62)

    @pytest.mark.parametrize(("interval_s", "within_s"), [(0.1, 0.1), (1.0, 1.0), (1200.0, 0.7)])
    def test_a_new_target_is_probed_within_a_second(
        self, interval_s: float, within_s: float
    ) -> None:
        scheduler = scheduler_of(*(target(n, interval_s=interval_s) for n in range(50)))
        seen = starts(scheduler, T0, T0 + within_s + TICK)
        assert {check for _, check in seen} == set(scheduler)

    def test_an_answer_slower_than_the_interval_skips_starts_and_counts_them(self) -> None:
        """R-52."""
        scheduler = scheduler_of(target(0, interval_s=1.0))
        seen = starts(scheduler, T0, T0 + 10, answer=False)
        assert len(seen) == 1
        assert scheduler.overlapped == 9
        scheduler.record(only(scheduler), PASSED, T0 + 10)
        assert len(starts(scheduler, T0 + 10 + TICK, T0 + 11)) == 1

    def test_what_the_limit_holds_back_stays_due_in_order(self) -> None:
        scheduler = scheduler_of(*(target(n, interval_s=1.0) for n in range(10)))
        first = scheduler.due(T0 + 1.01, 3)
        assert (len(first), scheduler.waiting) == (3, 7)
        second = scheduler.due(T0 + 1.02, 7)
        assert set(first) | set(second) == set(scheduler)
        assert [c.due_at for c in first + second] == sorted(c.due_at for c in first + second)

    def test_the_timeout_of_a_probe_that_waited_for_room_starts_when_it_starts(self) -> None:
        """R-53."""
        scheduler = scheduler_of(*(target(n, interval_s=1.0, timeout_s=0.5) for n in range(2)))
        scheduler.due(T0 + 1.01, 1)
        (late,) = scheduler.due(T0 + 1.4, 1)
        assert late.started_at == T0 + 1.4
        assert late not in scheduler.overdue(T0 + 1.9)
        assert scheduler.overdue(T0 + 1.92) == [late]

    def test_a_prober_late_by_some_intervals_probes_once_and_keeps_the_phase(self) -> None:
        scheduler = scheduler_of(target(0, interval_s=0.2))
        regular = starts(scheduler, T0, T0 + 1)[-1][0]
        (check,) = scheduler.due(regular + 0.9, 9)
        scheduler.record(check, PASSED, regular + 0.9)
        assert scheduler.missed == 3
        after = [now for now, _ in starts(scheduler, regular + 0.91, regular + 1.5)]
        assert [round(now - regular, 1) for now in after] == [1.0, 1.2, 1.4]

    @pytest.mark.parametrize("pause_s", [1.5, 30.0, 7200.0])
    def test_a_long_pause_moves_all_starts_and_crowds_none(self, pause_s: float) -> None:
        """A machine that was suspended finds the fleet as evenly spread as it left it."""
        scheduler = scheduler_of(*(target(n, interval_s=10.0) for n in range(200)))
        starts(scheduler, T0, T0 + 20)
        resumed = T0 + 20 + pause_s
        seen = starts(scheduler, resumed, resumed + 10)
        assert sum(1 for now, _ in seen if now < resumed + TICK) < 200 * 0.1 * 2
        assert {check for _, check in seen} == set(scheduler)
        assert scheduler.missed == pytest.approx(20 * (pause_s - 1), abs=2)

    def test_a_start_lags_by_less_than_a_tick(self) -> None:
        scheduler = scheduler_of(*(target(n, interval_s=1.0) for n in range(200)))
        lags = []
        for tick in range(2000):
            now = T0 + 1e-4 + tick * TICK
            for check in scheduler.due(now, 200):
                lags.append(now - check.due_at)
                scheduler.record(check, PASSED, now)
        assert len(lags) > 3000
        assert 0.0 <= min(lags) <= max(lags) < TICK

    def test_nothing_is_due_twice_in_one_moment(self) -> None:
        scheduler = scheduler_of(*(target(n, interval_s=1.0) for n in range(10)))
        assert len(scheduler.due(T0 + 1.01, 99)) == 10
        assert scheduler.due(T0 + 1.01, 99) == []


class TestDeadlines:
    @pytest.mark.parametrize(("connect_timeout_s", "timeout_s"), [(2.0, 9.0), (9.0, 2.0)])
    def test_the_first_deadline_is_the_shorter_of_the_two_timeouts(
        self, connect_timeout_s: float, timeout_s: float
    ) -> None:
        scheduler = scheduler_of(
            target(0, connect_timeout_s=connect_timeout_s, timeout_s=timeout_s)
        )
        check, now = first_start(scheduler)
        assert scheduler.overdue(now + 2.0) == []
        assert scheduler.overdue(now + 2.02) == [check]
        assert check.deadline == now + 2.0

    def test_a_deadline_is_never_early_and_at_most_two_slots_late(self) -> None:
        scheduler = scheduler_of(target(0, connect_timeout_s=0.5))
        check, now = first_start(scheduler)
        assert scheduler.overdue(now + 0.5) == []
        assert scheduler.overdue(now + 0.52) == [check]

    def test_an_overdue_check_is_named_once(self) -> None:
        scheduler = scheduler_of(target(0, connect_timeout_s=0.5))
        _, now = first_start(scheduler)
        assert len(scheduler.overdue(now + 0.6)) == 1
        assert scheduler.overdue(now + 5) == []

    def test_a_rearmed_check_is_named_again_at_its_new_deadline(self) -> None:
        scheduler = scheduler_of(target(0, connect_timeout_s=0.5, timeout_s=2.0))
        check, now = first_start(scheduler)
        scheduler.overdue(now + 0.6)
        scheduler.rearm(check, now + 2.0)
        assert scheduler.overdue(now + 2.0) == []
        assert scheduler.overdue(now + 2.02) == [check]

    def test_a_probe_that_ended_in_time_is_not_overdue(self) -> None:
        scheduler = scheduler_of(target(0, connect_timeout_s=0.5))
        check, now = first_start(scheduler)
        scheduler.record(check, PASSED, now + 0.4)
        assert scheduler.overdue(now + 5) == []

    def test_the_next_probe_has_a_deadline_of_its_own(self) -> None:
        scheduler = scheduler_of(target(0, interval_s=1.0, connect_timeout_s=1.5))
        check, now = first_start(scheduler)
        scheduler.record(check, PASSED, now)
        scheduler.overdue(now + 0.1)
        (again,) = scheduler.due(now + 1.02, 1)
        assert again is check
        assert scheduler.overdue(now + 1.55) == []  # where the first one's deadline lay
        assert scheduler.overdue(now + 2.51) == []
        assert scheduler.overdue(now + 2.55) == [check]

    def test_a_later_entry_never_hides_an_earlier_deadline(self) -> None:
        scheduler = scheduler_of(target(0, interval_s=1.0, connect_timeout_s=0.5, timeout_s=30.0))
        check, now = first_start(scheduler)
        scheduler.overdue(now + 0.6)
        scheduler.rearm(check, now + 30.0)
        scheduler.record(check, PASSED, now + 0.7)
        scheduler.due(now + 1.02, 1)
        assert scheduler.overdue(now + 1.6) == [check]

    def test_the_deadline_of_a_probe_that_ended_is_not_the_next_one_s(self) -> None:
        scheduler = scheduler_of(target(0, interval_s=60.0, connect_timeout_s=0.5))
        check, now = first_start(scheduler)
        scheduler.overdue(now + 0.1)  # slow enough to be watched
        scheduler.record(check, PASSED, now + 0.4)
        again(scheduler, check, now + 0.45)
        assert scheduler.overdue(now + 0.52) == []
        assert scheduler.overdue(now + 0.95) == []
        assert scheduler.overdue(now + 0.97) == [check]

    def test_a_probe_that_was_given_more_time_and_ended_leaves_nothing_behind(self) -> None:
        scheduler = scheduler_of(target(0, interval_s=60.0, connect_timeout_s=0.5))
        check, now = first_start(scheduler)
        scheduler.overdue(now + 0.6)
        scheduler.rearm(check, now + 30.0)
        scheduler.record(check, PASSED, now + 0.7)
        again(scheduler, check, now + 0.8)
        assert scheduler.overdue(now + 1.4) == [check]
        scheduler.rearm(check, now + 40.0)
        assert scheduler.overdue(now + 31.0) == []
        assert scheduler.overdue(now + 40.02) == [check]

    def test_a_timeout_of_a_moment_is_found_at_the_first_look(self) -> None:
        scheduler = scheduler_of(target(0, timeout_s=0.005))
        check, now = first_start(scheduler)
        assert scheduler.overdue(now + SIFT_S - 0.01) == []
        assert scheduler.overdue(now + SIFT_S) == [check]

    def test_a_deadline_already_past_comes_up_at_the_next_tick(self) -> None:
        scheduler = scheduler_of(target(0, connect_timeout_s=0.5))
        check, now = first_start(scheduler)
        scheduler.overdue(now + 0.6)
        scheduler.rearm(check, now + 0.55)
        assert scheduler.overdue(now + 0.62) == [check]


class TestRecord:
    def test_evidence_moves_the_streak_and_its_times(self) -> None:
        """R-02."""
        scheduler = scheduler_of(target(0, max_retries=1))
        check, now = first_start(scheduler)
        assert scheduler.record(check, PASSED, now + 0.1) is Transition.UP
        assert (check.streak.healthy, check.in_flight, check.seq) == (True, False, 1)
        assert check.ended_at == check.evidence_at == check.changed_at == now + 0.1
        again(scheduler, check, now + 1)
        assert scheduler.record(check, REFUSED, now + 1.1) is Transition.DOWN
        assert (check.outcome, check.changed_at) == (REFUSED, now + 1.1)

    def test_the_probers_own_fault_leaves_streak_and_evidence_alone(self) -> None:
        """R-53."""
        scheduler = scheduler_of(target(0))
        check, now = first_start(scheduler)
        scheduler.record(check, PASSED, now)
        before = check.streak
        again(scheduler, check, now + 1)
        assert scheduler.record(check, NO_FDS, now + 1) is None
        assert check.streak == before
        assert (check.evidence_at, check.ended_at, check.seq) == (now, now + 1, 2)

    def test_a_restart_leaves_the_place_in_the_wheel_alone(self) -> None:
        scheduler = scheduler_of(target(0, interval_s=1.0))
        check, now = first_start(scheduler)
        scheduler.record(check, PASSED, now)
        again(scheduler, check, now + 0.3)
        scheduler.record(check, PASSED, now + 0.3)
        after = [round(at - now, 1) for at, _ in starts(scheduler, now + 0.31, now + 2.5)]
        assert after == [1.0, 2.0]
