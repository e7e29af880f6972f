"""The hot loop on a fake wire and virtual time."""

from itertools import pairwise

import pytest

from probe.health import ended
from probe.reasons import OutcomeKind, Reason
from probe.schedule.counters import LAG_BOUNDS_S
from probe.schedule.scheduler import Check, Scheduler
from probe.sweep import STARTS_PER_TICK, Sweep
from probe.wire import ReplicaProbeTarget
from tests.fakes.entries import replica, status, target
from tests.fakes.wire import PASSED, REFUSED, FakeWire

TICK = 0.01


class World:
    """A sweep, its fake wire, and the time that only this test moves."""

    def __init__(self, *targets: ReplicaProbeTarget, max_in_flight: int = 100_000) -> None:
        self.now = 1000.0
        self.wire = FakeWire()
        self.sweep = Sweep(
            Scheduler(), self.wire, clock=lambda: self.now, max_in_flight=max_in_flight
        )
        self.sweep.replace(0, targets, now=self.now)
        self.sweep.tick(self.now)

    @property
    def check(self) -> Check:
        (check,) = self.sweep.scheduler
        return check

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            self.sweep.tick(self.now)

    def stall(self, seconds: float) -> None:
        """Let the loop stand still, then tick once."""
        self.now += seconds
        self.sweep.tick(self.now)


class TestProbes:
    def test_what_is_due_is_started_and_its_outcome_recorded(self) -> None:
        world = World(target(1))
        world.run(1.02)
        assert list(world.wire.probing) == [world.check]
        world.wire.answer(world.check)
        assert world.check.outcome is PASSED
        assert world.check.streak.healthy
        assert world.sweep.in_flight == 0

    def test_an_answer_before_start_returns_is_an_answer(self) -> None:
        world = World(target(1, interval_s=1.0))
        world.wire.answers_at_once = REFUSED
        world.run(5.05)
        assert len(world.wire.starts) == 5
        assert world.sweep.in_flight == 0

    def test_a_hung_replica_delays_no_other(self) -> None:
        """R-54: no barrier at the slowest; results stream out."""
        world = World(*(target(n, interval_s=1.0, timeout_s=600.0) for n in range(20)))
        hung = replica(7)
        for _ in range(500):
            world.run(TICK)
            for check in list(world.wire.probing):
                if check.replica_id != hung:
                    world.wire.answer(check)
        times = [now for now, check in world.wire.starts if check.replica_id == replica(3)]
        assert all(later - now == pytest.approx(1.0, abs=0.011) for now, later in pairwise(times))
        assert len(times) == 5
        assert len([1 for _, check in world.wire.starts if check.replica_id == hung]) == 1

    def test_a_slow_answer_skips_and_never_overlaps(self) -> None:
        """R-52."""
        world = World(target(1, interval_s=1.0, connect_timeout_s=60.0, timeout_s=60.0))
        world.run(5.05)
        assert len(world.wire.starts) == 1
        assert world.sweep.scheduler.overlapped == 4

    def test_no_more_are_in_flight_than_allowed_and_none_is_lost(self) -> None:
        """R-53: waiting for room is counted apart, and not charged to the replica."""
        world = World(*(target(n, interval_s=10.0) for n in range(30)), max_in_flight=2)
        for _ in range(30):
            world.run(0.1)
            assert world.sweep.in_flight <= 2
            world.wire.answer_all()
        assert {check for _, check in world.wire.starts} == set(world.sweep.scheduler)
        counters, long = world.sweep.counters, LAG_BOUNDS_S.index(0.1)
        assert sum(counters.slot_wait.counts[long:]) > 5
        assert sum(counters.lag.counts[long:]) == 0

    def test_one_tick_starts_a_bounded_number(self) -> None:
        world = World(*(target(n, interval_s=0.1) for n in range(8 * STARTS_PER_TICK)))
        world.stall(1.5)
        assert len(world.wire.starts) == STARTS_PER_TICK
        world.run(TICK)
        assert len(world.wire.starts) >= STARTS_PER_TICK + 5


class TestDeadlines:
    def test_no_connection_in_time_fails_at_the_connect_timeout(self) -> None:
        world = World(target(1, connect_timeout_s=2.0, timeout_s=5.0, interval_s=60.0))
        world.run(3.1)
        ((started, check),) = world.wire.starts
        assert check.outcome is not None
        assert check.outcome.reason is Reason.CONNECT_TIMEOUT
        assert 2.0 < check.ended_at - started <= 2.021

    def test_a_connected_probe_has_until_its_timeout(self) -> None:
        world = World(target(1, connect_timeout_s=2.0, timeout_s=5.0, interval_s=60.0))
        world.wire.connected = True
        world.run(6.1)
        ((started, check),) = world.wire.starts
        assert check.outcome is not None
        assert check.outcome.reason is Reason.RESPONSE_TIMEOUT
        assert 5.0 < check.ended_at - started <= 5.021

    def test_an_answer_after_the_deadline_is_dropped(self) -> None:
        world = World(target(1, connect_timeout_s=0.5, interval_s=60.0))
        world.run(2)
        check = world.check
        world.sweep.done(check, PASSED)
        assert not check.streak.healthy
        assert (check.seq, world.sweep.in_flight) == (1, 0)


class TestStalls:
    def test_a_deadline_inside_a_stall_is_no_failure_and_is_probed_again_at_once(self) -> None:
        """R-53: a 1.5 s stall with a 1 s timeout made 400 of 400 healthy probes time out."""
        targets = [target(n, interval_s=30.0, timeout_s=1.0) for n in range(150)]
        world = World(*targets)
        world.run(0.5)
        waiting = list(world.wire.probing)
        world.stall(1.5)
        assert world.wire.expired == []
        assert set(world.wire.cancelled) == set(waiting)
        assert all(world.wire.probing[check] == world.now for check in waiting)
        assert world.sweep.in_flight == len(world.wire.probing)
        assert world.sweep.counters.reasons[Reason.LOCAL_LAG] == len(waiting)
        world.wire.answer_all()
        assert all(check.streak.consecutive_failures == 0 for check in world.sweep.scheduler)

    def test_time_lost_in_a_stall_is_excused_after_it_too(self) -> None:
        """R-53."""
        world = World(target(1, interval_s=60.0, timeout_s=1.0))
        while not world.wire.starts:
            world.run(TICK)
        world.stall(0.9)  # ends 0.1 s before the deadline, with 0.9 s lost
        world.run(0.2)
        assert world.wire.expired == []
        assert len(world.wire.starts) == 2

    def test_a_hung_replica_is_still_found_by_a_prober_that_stalls_now_and_then(self) -> None:
        world = World(target(1, interval_s=60.0, timeout_s=5.0, connect_timeout_s=5.0))
        while not world.wire.starts:
            world.run(TICK)
        world.run(2)
        world.stall(0.15)
        world.run(3)
        assert world.check.outcome is not None
        assert world.check.outcome.reason is Reason.CONNECT_TIMEOUT

    def test_the_probe_after_a_stall_has_its_full_timeout(self) -> None:
        world = World(target(1, interval_s=60.0, timeout_s=1.0))
        while not world.wire.starts:
            world.run(TICK)
        world.stall(3)
        world.run(0.99)
        assert world.wire.expired == []
        world.run(0.05)
        assert world.wire.expired == [world.check]

    def test_a_late_tick_within_tolerance_excuses_nothing(self) -> None:
        world = World(target(1, interval_s=60.0, timeout_s=0.5))
        while not world.wire.starts:
            world.run(TICK)
        world.run(0.48)
        world.stall(0.09)
        assert world.wire.expired == [world.check]
        assert world.sweep.counters.stalls == 0

    def test_a_stall_is_counted(self) -> None:
        world = World()
        world.stall(0.2)
        assert world.sweep.counters.stalls == 1


class TestReplace:
    def test_a_removed_target_leaves_nothing_behind(self) -> None:
        world = World(target(1))
        world.run(1.02)
        check = world.check
        world.sweep.replace(0, [], now=world.now)
        assert world.wire.forgotten == [check]
        assert (world.sweep.in_flight, check.in_flight) == (0, False)
        world.run(30)
        assert len(world.wire.starts) == 1
        assert world.wire.expired == []

    def test_a_result_of_a_removed_target_is_not_written(self) -> None:
        """R-44."""
        world = World(target(1))
        world.run(1.02)
        world.wire.answer_all()
        world.sweep.replace(0, [], now=world.now)
        assert world.sweep.take_dirty(9) == []

    def test_a_changed_target_loses_its_connection_and_is_probed_within_a_second(self) -> None:
        world = World(target(1, interval_s=60.0))
        world.run(1.02)
        old = world.check
        world.sweep.replace(0, [target(1, interval_s=60.0, inference_port=9)], now=world.now)
        assert world.wire.forgotten == [old]
        world.run(1.02)
        assert list(world.wire.probing) == [world.check]
        assert world.sweep.in_flight == 1

    def test_a_seeded_verdict_survives_the_hand_over(self) -> None:
        """R-62."""
        world = World()
        seed = status(1, consecutive_failures=9, seq=5, last_check=99.0)
        world.sweep.replace(3, [target(1)], now=world.now, bus_now=100.0, seeds={replica(1): seed})
        assert world.check.streak.healthy
        while not world.wire.starts:
            world.run(TICK)
        world.wire.answer(world.check, REFUSED)
        (change,) = world.sweep.take_transitions()
        assert (change.healthy, change.reason, change.seq) == (False, Reason.CONNECT_REFUSED, 6)


class TestResults:
    def test_the_newest_result_of_a_target_is_taken_once(self) -> None:
        world = World(target(1, interval_s=1.0))
        for outcome in (PASSED, REFUSED):
            world.run(1.02)
            world.wire.answer(world.check, outcome)
        assert world.sweep.dirty == 1
        assert world.sweep.take_dirty(9) == [world.check]
        assert world.check.outcome is REFUSED
        assert world.sweep.take_dirty(9) == []

    def test_results_are_taken_in_order_and_in_pieces(self) -> None:
        world = World(*(target(n) for n in range(5)))
        world.run(1.02)
        order = list(world.wire.probing)
        world.wire.answer_all()
        assert world.sweep.take_dirty(2) + world.sweep.take_dirty(9) == order

    def test_what_could_not_be_written_goes_back_unless_newer_or_gone(self) -> None:
        world = World(*(target(n, interval_s=1.0) for n in range(3)))
        world.run(1.02)
        world.wire.answer_all()
        first, second, third = taken = world.sweep.take_dirty(9)
        world.run(1.02)
        world.wire.answer(second)
        world.sweep.replace(0, [first.target, second.target], now=world.now)
        assert third.removed
        world.sweep.put_back(taken)
        assert world.sweep.take_dirty(9) == [second, first]

    def test_only_changes_of_the_verdict_are_announced(self) -> None:
        world = World(target(1, interval_s=1.0, max_retries=2))
        for outcome in (PASSED, PASSED, REFUSED, REFUSED, REFUSED, PASSED):
            world.run(1.02)
            world.wire.answer(world.check, outcome)
        changes = world.sweep.take_transitions()
        assert [(c.healthy, c.seq) for c in changes] == [(True, 1), (False, 4), (True, 6)]
        assert world.sweep.take_transitions() == []

    def test_every_outcome_is_counted_by_reason_and_by_deployment(self) -> None:
        """R-55."""
        outcomes = [PASSED, PASSED, REFUSED, ended(Reason.LOCAL_FDS)]
        world = World(target(1, interval_s=1.0, deployment="blue"))
        for outcome in outcomes:
            world.run(1.02)
            world.wire.answer(world.check, outcome)
        counters = world.sweep.counters
        assert {reason: n for reason, n in counters.reasons.items() if n} == {
            Reason.OK: 2,
            Reason.CONNECT_REFUSED: 1,
            Reason.LOCAL_FDS: 1,
        }
        blue = counters.deployments["blue"]
        assert (blue.passed, blue.failed, blue.errors) == (2, 1, 1)
        assert sum(counters.duration.counts) == 3  # a prober's fault took no time of theirs
        assert counters.duration.total == pytest.approx(0.005)
        assert sum(counters.lag.counts) == counters.started == 4

    def test_a_deployment_ends_with_its_last_check(self) -> None:
        """R-67."""
        world = World(target(1, deployment="blue"), target(2, deployment="blue"))
        world.sweep.replace(0, [target(1, deployment="green")], now=world.now)
        assert set(world.sweep.counters.deployments) == {"green"}
        world.sweep.replace(0, [], now=world.now)
        assert world.sweep.counters.deployments == {}

    def test_the_probers_own_fault_is_a_result_but_no_evidence(self) -> None:
        """R-53."""
        world = World(target(1, max_retries=1))
        world.run(1.02)
        world.wire.answer(world.check, ended(Reason.LOCAL_PORTS))
        (check,) = world.sweep.take_dirty(9)
        assert check.outcome is not None
        assert check.outcome.kind is OutcomeKind.PROBE_ERROR
        assert (check.evidence_at, check.streak.consecutive_failures) == (None, 0)


def test_stopping_ends_every_probe_and_connection_without_an_outcome() -> None:
    world = World(*(target(n) for n in range(5)))
    world.run(1.02)
    world.sweep.stop()
    assert (world.wire.probing, world.sweep.in_flight) == ({}, 0)
    assert world.wire.closed
    assert world.sweep.take_dirty(9) == []
