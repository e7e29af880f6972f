"""When checks fall due while intervals stretch, clocks jump and neighbours hang."""

from collections import Counter
from itertools import pairwise

import pytest

from probe.health import Outcome
from probe.reasons import Reason
from probe.schedule.beat import BROUGHT_MAX, FIRST_PROBE_S, FIRST_STARTS_PER_S, SAVED_S, Beat
from probe.schedule.counters import LAG_BOUNDS_S
from probe.schedule.scheduler import Check
from probe.sweep import STARTS_PER_TICK
from probe.wire import ReplicaProbeTarget
from tests.fakes.entries import status, target
from tests.fakes.virtual import PASSED, REFUSED, VirtualProber, fullest


def fleet(count: int, interval_s: float, **fields: object) -> list[ReplicaProbeTarget]:
    return [target(n, interval_s=interval_s, **fields) for n in range(count)]


class TestStretch:
    @pytest.mark.parametrize("factor", [1.25, 2.0, 3.3])
    def test_all_intervals_lengthen_evenly(self, factor: float) -> None:
        prober = VirtualProber([*fleet(50, 1.0), target(99, interval_s=4.0)])
        prober.run(5)
        prober.scheduler.stretch = factor
        prober.run(1)
        times: dict[Check, list[float]] = {}
        for now, check in prober.run(60):
            times.setdefault(check, []).append(now)
        for check, starts in times.items():
            expected = check.interval_s * factor
            assert prober.scheduler.interval_s(check) == expected
            assert all(b - a == pytest.approx(expected, abs=0.021) for a, b in pairwise(starts))
        assert len(times) == 51

    @pytest.mark.parametrize("factor", [1.3, 2.0, 5.0])
    def test_starts_stay_spread_while_the_stretch_comes_and_goes(self, factor: float) -> None:
        """R-61: in any 100 ms at most 1.3x the mean, and no burst at the change."""
        prober = VirtualProber(fleet(8000, 2.0))
        prober.run(2)
        for stretch in (factor, 1.0, factor):
            prober.scheduler.stretch = stretch
            starts = prober.run(4)
            assert fullest(starts[: len(starts) // 2]) <= 1.3 * 400
            prober.run(2)
            mean = 400 / stretch
            assert fullest(prober.run(4)) <= 1.3 * mean

    def test_a_change_loses_nobody_and_repeats_nobody(self) -> None:
        """R-52."""
        prober = VirtualProber(fleet(200, 1.0))
        prober.run(1.5)
        for stretch in (2.0, 1.1, 4.0, 1.0):
            prober.scheduler.stretch = stretch
            starts = Counter(check for _, check in prober.run(stretch * 3))
            assert set(starts) == set(prober.scheduler)
            assert set(starts.values()) <= {2, 3, 4}
        assert prober.scheduler.missed == 0

    def test_deadlines_do_not_stretch(self) -> None:
        prober = VirtualProber(fleet(1, 1.0, timeout_s=0.5), behaviour=lambda _check, _now: None)
        prober.scheduler.stretch = 10.0
        prober.run(5)
        (check,) = prober.scheduler
        assert check.ended_at - check.started_at == pytest.approx(0.5, abs=0.021)


class TestClockSteps:
    """The machine was suspended, the process stopped, or the clock jumped."""

    @pytest.mark.parametrize("jump_s", [2.0, 150.0, 6 * 3600.0])
    def test_a_jump_crowds_no_starts(self, jump_s: float) -> None:
        prober = VirtualProber(fleet(5000, 2.0))
        prober.run(6)
        at_once = prober.stall(jump_s)
        assert len(at_once) <= STARTS_PER_TICK
        starts = at_once + prober.run(4)
        # The second before the jump that is caught up with, at a bounded pace; then as ever.
        assert fullest(starts, window_s=0.01) <= STARTS_PER_TICK
        after = [start for start in starts if start[0] > prober.now - 3.5]
        assert fullest(after) <= 1.3 * 250

    @pytest.mark.parametrize("jump_s", [0.2, 1.5, 150.0, 6 * 3600.0])
    def test_a_jump_makes_no_verdict(self, jump_s: float) -> None:
        """R-53: whoever was in flight is asked again, and at once where there is room."""
        prober = VirtualProber(
            fleet(3000, 1.0, timeout_s=0.5, connect_timeout_s=0.5, max_retries=1)
        )
        prober.run(3)
        prober.wire.answer_s = 0.3
        prober.run(0.7)
        flying = prober.sweep.in_flight
        assert flying > 500
        prober.stall(jump_s)
        reasons = prober.sweep.counters.reasons
        prober.run(3)
        assert {reason for reason, n in reasons.items() if n} <= {Reason.OK, Reason.LOCAL_LAG}
        assert all(check.healthy for check in prober.scheduler)
        assert len([c for c in prober.sweep.take_transitions() if not c.healthy]) == 0

    def test_those_excused_by_a_stall_start_in_bounded_numbers(self) -> None:
        prober = VirtualProber(
            fleet(6000, 2.0, timeout_s=1.5, connect_timeout_s=1.5),
            behaviour=lambda _check, _now: None,
        )
        prober.run(1.2)
        flying = prober.sweep.in_flight
        assert flying > 2 * STARTS_PER_TICK
        assert len(prober.stall(5.0)) == BROUGHT_MAX + 3000 * SAVED_S
        prober.run(0.2)
        assert prober.sweep.counters.reasons[Reason.LOCAL_LAG] == flying
        assert prober.sweep.counters.reasons[Reason.CONNECT_TIMEOUT] == 0

    def test_a_target_read_during_a_pause_waits_no_longer_for_it(self) -> None:
        """P11."""
        prober = VirtualProber(fleet(1, 10.0))
        prober.run(1)
        prober.now += 3600.0
        prober.sweep.replace(1, [target(7, interval_s=10.0)], now=prober.now)
        assert 7 in {int(check.replica_id[-2:], 16) for _, check in prober.run(1.02)}


def test_hanging_and_refusing_neighbours_delay_nobody() -> None:
    """R-54: with 10 % hanging and 10 % refusing the others start as punctually as without."""

    def a_fifth_is_gone(check: Check, _now: float) -> Outcome | None:
        kind = int(check.replica_id[-3:], 16) % 10
        return None if kind == 0 else REFUSED if kind == 1 else PASSED

    targets = [target(n, interval_s=1.0, deployment=f"d{n % 7}") for n in range(2000)]
    prober = VirtualProber(targets, max_in_flight=2000, behaviour=a_fifth_is_gone)
    prober.run(3)
    prober.run(20)
    counters = prober.sweep.counters
    punctual = LAG_BOUNDS_S.index(0.01) + 1
    assert sum(counters.lag.counts[punctual:]) == 0
    assert sum(counters.slot_wait.counts[1:]) == 0
    oldest = max(
        prober.now - c.ended_at for c in prober.scheduler if int(c.replica_id[-3:], 16) % 10
    )
    assert oldest <= 1.05


def test_a_cohort_that_emptied_and_filled_again_turns_once() -> None:
    entry = target(1, interval_s=1.0)
    prober = VirtualProber([entry])
    for targets in ([], [entry], [], [entry]):
        prober.sweep.replace(0, targets, now=prober.now)
    assert len(prober.run(10)) == 10


def test_the_first_advance_may_come_late() -> None:
    beat = Beat()
    turns, elapsed_s = beat.advance(1e6)
    assert (turns, elapsed_s) == ([], 0.0)


class TestJoining:
    """P11: a new target is probed within a second of being written, whoever else comes."""

    @pytest.mark.parametrize("interval_s", [0.3, 0.7, 1.0, 1.5, 10.0, 1200.0])
    @pytest.mark.parametrize("others", [0, 100, 5000])
    def test_few_new_targets_are_probed_within_half_a_second(
        self, interval_s: float, others: int
    ) -> None:
        prober = VirtualProber(fleet(others, 1.0))
        prober.run(3)
        new = [target(10_000 + n, interval_s=interval_s) for n in range(8)]
        prober.sweep.replace(1, new, now=prober.now)
        starts = prober.run(FIRST_PROBE_S + 0.02)
        assert {t.replica_id for t in new} <= {check.replica_id for _, check in starts}

    def test_whoever_starts_early_falls_into_its_phase(self) -> None:
        prober = VirtualProber(fleet(1000, 1.0))
        prober.run(3)
        prober.sweep.replace(1, [target(9_999, interval_s=1.0)], now=prober.now)
        (new,) = (c for c in prober.scheduler if c.replica_id.endswith("270f"))
        times = [now for now, check in prober.run(5) if check is new]
        steady = times[1:]
        assert all(b - a == pytest.approx(1.0, abs=0.011) for a, b in pairwise(steady))
        assert steady[0] - times[0] < 1.0

    @pytest.mark.parametrize("interval_s", [0.5, 1.0])
    def test_a_crowd_with_short_intervals_waits_for_its_phase(self, interval_s: float) -> None:
        """R-61: its first second is as even as any other."""
        prober = VirtualProber(fleet(int(8000 * interval_s), interval_s))
        assert fullest(prober.run(2)) <= 1.3 * 800

    def test_a_crowd_with_long_intervals_comes_at_a_bounded_rate(self) -> None:
        prober = VirtualProber(fleet(9000, 15.0))
        starts = prober.run(4)
        assert {check for _, check in starts} == set(prober.scheduler)
        assert fullest(starts) <= 1.3 * FIRST_STARTS_PER_S / 10

    def test_a_crowd_too_large_to_come_early_comes_in_phase(self) -> None:
        prober = VirtualProber([])
        for part in range(12):  # as they are read
            prober.sweep.replace(
                part, [target(part * 2000 + n, interval_s=2.0) for n in range(2000)], now=prober.now
            )
            prober.run(0.02)
        starts = prober.run(2.5)
        assert len({check for _, check in starts}) == 24_000
        assert fullest(starts) <= 1.1 * (FIRST_STARTS_PER_S + 12_000) / 10
        assert fullest(prober.run(2)) <= 1.3 * 1200
        assert prober.scheduler.joined_by <= prober.now

    @pytest.mark.parametrize("stall_s", [0.03, 0.1, 0.4, 0.9])
    def test_who_is_late_catches_up_without_a_crowd(self, stall_s: float) -> None:
        """R-61: what starts all at once is the next stall."""
        prober = VirtualProber(fleet(10_000, 1.0))
        prober.run(2)
        starts = prober.stall(stall_s) + prober.run(6)
        assert fullest(starts, window_s=0.01) <= 10_000 * (SAVED_S + 0.001)
        assert fullest(starts) <= 1.3 * 1000 + 10_000 * SAVED_S
        assert fullest([start for start in starts if start[0] > starts[0][0] + 0.05]) <= 1300
        assert prober.scheduler.waiting == 0
        assert prober.scheduler.missed == 0

    def test_a_restart_is_even_where_ticks_are_late(self) -> None:
        """R-61: while all dial, ticks are late, and now and then one is very late."""
        prober = VirtualProber([])
        targets = fleet(10_000, 1.0)
        seeds = {each.replica_id: status(n, last_check=99.0) for n, each in enumerate(targets)}
        prober.sweep.replace(0, targets, now=prober.now, bus_now=100.0, seeds=seeds)
        first = len(prober.wire.starts)
        for tick in range(70):
            prober.stall(0.05 if tick % 15 == 7 else 0.012)
            prober.wire.arrive(prober.now)
        starts = prober.wire.starts[first:]
        assert fullest(starts) <= 1.3 * 1000
        assert len({check for _, check in starts + prober.run(1)}) == 10_000
