"""What holds for every fleet, every order of answers, and every clumsy ticker."""

import uuid
from collections import Counter, defaultdict
from math import inf
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from probe.health import Outcome, ended, observe
from probe.reasons import Reason
from probe.schedule.beat import FIRST_PROBE_S, FIRST_STARTS_PER_S, IN_PHASE_S
from probe.schedule.counters import Standing
from probe.schedule.damping import Damping
from probe.schedule.deadlines import SIFT_S
from probe.schedule.pace import Pace
from probe.schedule.scheduler import Check, Scheduler
from probe.schedule.spread import SLOTS_PER_S
from probe.schedule.watch import IN_FLIGHT, JOINING, RESTING, WAITING
from probe.wire import ReplicaHealthStatus, ReplicaId, ReplicaProbeTarget
from tests.fakes.entries import replica, status, target

PASSED, REFUSED = ended(Reason.OK), ended(Reason.CONNECT_REFUSED)
NO_FDS, TIMED_OUT = ended(Reason.LOCAL_FDS), ended(Reason.RESPONSE_TIMEOUT)
SLOT = 1 / SLOTS_PER_S

intervals = st.sampled_from([0.1, 0.25, 0.333, 1.0, 2.5, 10.0])
few = st.integers(1, 3)
timeouts = st.sampled_from([0.05, 0.5, 1.0, 3.0, 15.0])


def random_targets(seed: int, count: int, *, interval_s: float) -> list[ReplicaProbeTarget]:
    """Return targets with random ids, as a controller gives them."""
    random = Random(seed)  # noqa: S311 - a repeatable fleet, no secret
    return [
        target(
            0,
            replica_id=ReplicaId(str(uuid.UUID(int=random.getrandbits(128), version=4))),
            interval_s=interval_s,
        )
        for _ in range(count)
    ]


class Fleet(RuleBasedStateMachine):
    """A scheduler under targets that come, change and go, late ticks, scarce room, and clocks
    that jump.

    R-52: at most one probe of a target in flight. R-54: no deployment takes more than its share.
    No probe is lost: whatever happened before, every target is started again within an interval
    once there is room and an answer.
    """

    ROOM = 6

    @initialize(start=st.floats(0.0, 1e6))
    def begin(self, start: float) -> None:
        self.now = start
        self.scheduler = Scheduler(
            Pace(backoff_after_s=5.0),
            Damping(half_life_s=2.0, max_s=4.0),
            deployment_share=0.5,
        )
        self.targets: dict[int, ReplicaProbeTarget] = {}
        self.flying: dict[Check, float] = {}
        self.gone: set[Check] = set()

    @rule(number=st.integers(0, 8), interval_s=intervals, timeout_s=timeouts, retries=few)
    def describe(self, number: int, interval_s: float, timeout_s: float, retries: int) -> None:
        self.targets[number] = target(
            number,
            interval_s=interval_s,
            timeout_s=timeout_s,
            max_retries=retries,
            deployment=f"d{number % 3}",
        )
        self._replace()

    @precondition(lambda self: self.targets)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        del self.targets[data.draw(st.sampled_from(sorted(self.targets)))]
        self._replace()

    def _replace(self) -> None:
        changes = self.scheduler.replace(0, self.targets.values(), now=self.now)
        for check in changes.retired:
            assert self.scheduler.release(check) == (check in self.flying)  # as the sweep does
            self.flying.pop(check, None)
            self.gone.add(check)

    @rule(factor=st.sampled_from([1.0, 1.3, 4.0]))
    def stretch(self, factor: float) -> None:
        self.scheduler.stretch = factor

    @rule(
        step=st.sampled_from([0.001, 0.01, 0.013, 0.3, 2.0, 40.0, 7200.0]),
        limit=st.integers(0, 9),
        fair=st.booleans(),
    )
    def tick(self, step: float, limit: int, *, fair: bool) -> None:
        before, self.now = self.now, self.now + step
        for check in self.scheduler.overdue(self.now):
            deadline = self.flying.pop(check)
            assert deadline < self.now, "a deadline fired early"
            assert before < deadline + 2 * SLOT + SIFT_S, "a deadline fired late"
            self.scheduler.record(check, TIMED_OUT, self.now)
        free = max(0, self.ROOM - len(self.flying)) if fair else inf
        flying = Counter(check.deployment for check in self.flying)
        started = self.scheduler.due(self.now, int(min(limit, free)), free=free)
        assert len(started) <= min(limit, free)
        for check in started:
            assert check not in self.flying, "two probes of one target in flight"
            assert check not in self.gone, "a removed target is probed"
            self.flying[check] = self.now + check.first_deadline_s
        if fair and len({each.deployment for each in self.targets.values()}) > 1:
            for name, more in Counter(check.deployment for check in started).items():
                assert flying[name] + more <= max(1, free), "one deployment has all the room"

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), outcome=st.sampled_from([PASSED, PASSED, REFUSED, NO_FDS]))
    def answer(self, data: st.DataObject, outcome: Outcome) -> None:
        check = data.draw(st.sampled_from(sorted(self.flying, key=lambda c: c.replica_id)))
        del self.flying[check]
        before, damped = check.streak, check.damped
        transition = self.scheduler.record(check, outcome, self.now)
        if outcome is not PASSED:
            assert check.healthy <= before.healthy, "a failing probe improved a verdict"
        if damped and check.damped:
            assert not check.healthy, "a damped target became healthy"
        if not (damped or check.damped):
            assert (check.streak, transition) == observe(
                before,
                outcome,
                healthy_threshold=check.healthy_threshold,
                max_retries=check.max_retries,
            )

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        """End a probe as the prober's own fault and ask for it again, as after a stall."""
        check = data.draw(st.sampled_from(sorted(self.flying, key=lambda c: c.replica_id)))
        del self.flying[check]
        self.scheduler.record(check, NO_FDS, self.now)
        self.scheduler.restart(check, self.now)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), more_s=st.floats(0.0, 5.0))
    def wait_on(self, data: st.DataObject, more_s: float) -> None:
        check = data.draw(st.sampled_from(sorted(self.flying, key=lambda c: c.replica_id)))
        if self.flying[check] < self.now + more_s:  # a wire only ever extends,
            for late in self.scheduler.overdue(self.now):  # and only what it was asked about
                deadline = self.flying[late]
                assert deadline < self.now
                self.flying[late] = self.now + more_s
                self.scheduler.rearm(late, self.now + more_s)

    @invariant()
    def every_check_is_in_one_place(self) -> None:
        scheduler = self.scheduler
        assert {check for check in scheduler if check.in_flight} == set(self.flying)
        assert {check.replica_id for check in scheduler} == set(map(replica, self.targets))
        queued = [check for lane in scheduler._lanes._ring for check, _ in lane.waiting]
        alive = [check for check in queued if not check.removed]
        assert len(alive) == len(set(alive)), "one check waits twice"
        assert {check for check in scheduler if check.hold & WAITING} == set(alive)
        turning = [cohort for slot in scheduler._beat._wheel.values() for cohort in slot]
        for check in scheduler:
            assert turning.count(check.cohort) == 1, "a cohort is in the wheel once"
            assert check.cohort.checks.count(check) == 1
            assert check.hold in (0, IN_FLIGHT, WAITING, JOINING, RESTING)
            assert bool(check.hold & RESTING) == bool(check.rest)

    @invariant()
    def the_books_are_right(self) -> None:
        scheduler = self.scheduler
        assert scheduler.in_flight == len(self.flying)
        lanes = scheduler._lanes.by_name
        flying = Counter(check.deployment for check in self.flying)
        assert {name: lane.in_flight for name, lane in lanes.items() if lane.in_flight} == flying
        watched = Counter(each.deployment for each in self.targets.values())
        assert {name: lane.checks for name, lane in lanes.items()} == watched
        for name, lane in lanes.items():
            standing = Counter(c.standing for c in scheduler if c.deployment == name)
            assert lane.standings == [standing[each] for each in Standing]
        assert scheduler.damped == sum(check.damped for check in scheduler)
        rate = sum(1 / check.interval_s for check in scheduler)
        assert scheduler.rate_per_s == pytest.approx(rate, abs=1e-6)

    def teardown(self) -> None:
        """Answer everything and give room: nothing may have been lost on the way."""
        if not hasattr(self, "scheduler"):
            return
        for check in list(self.flying):
            self.scheduler.record(check, PASSED, self.now)
        self.scheduler.stretch = 1.0
        self.scheduler.due(self.now, 0)
        started: Counter[Check] = Counter()
        until = self.now + 20.0 + IN_PHASE_S + 2 * SLOT  # one turn may still be left out
        while self.now < until:
            self.now += 0.05
            for check in self.scheduler.due(self.now, 100):
                started[check] += 1
                self.scheduler.record(check, PASSED, self.now)
        assert set(started) == set(self.scheduler), "a target was lost"
        for check, times in started.items():
            turns = 21.0 / check.interval_s
            assert times <= turns + 3, "a target is probed more often than its interval says"
            late = 0.05 / check.interval_s  # by this test's clumsy ticks
            assert times >= turns * (1 - min(late, 0.9)) - 4, "a target is probed too seldom"


TestFleet = Fleet.TestCase
TestFleet.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@given(
    interval_s=st.one_of(intervals, st.floats(0.1, 30.0)),
    start=st.floats(0.0, 1e6),
    jitters=st.lists(st.floats(0.001, 0.02), min_size=1, max_size=50),
)
@settings(max_examples=40, deadline=None)
def test_the_rate_is_fixed_and_does_not_drift(
    interval_s: float, start: float, jitters: list[float]
) -> None:
    """R-02: start k is at phase + k x interval, however unevenly the ticks come."""
    scheduler = Scheduler()
    scheduler.replace(0, [target(1, interval_s=interval_s)], now=start)
    now, times, tick = start, [], 0
    while now < start + 12 * interval_s:
        now += jitters[tick % len(jitters)]
        tick += 1
        for check in scheduler.due(now, 1):
            times.append((check.due_at, now))
            scheduler.record(check, PASSED, now)
    steady = [due_at for due_at, _ in times[1:]]
    for number, due_at in enumerate(steady):
        assert due_at == pytest.approx(steady[0] + number * interval_s, abs=1e-6)
    assert all(-1e-6 <= at - due_at <= 0.02 + SLOT for due_at, at in times[1:])


@given(interval_s=st.floats(0.1, 1.0), periods=st.integers(0, 10**7))
def test_the_next_start_lies_ahead_even_when_now_is_an_instant_of_the_phase(
    interval_s: float, periods: int
) -> None:
    """R-02: rounding neither repeats nor drops a start."""
    scheduler = Scheduler()
    scheduler.replace(0, [target(1, interval_s=interval_s)], now=0.0)
    (check,) = scheduler
    now = check.cohort.phase_slot / SLOTS_PER_S + periods * interval_s
    again = Scheduler()
    again.replace(0, [check.target], now=now)
    (check,) = again
    assert now < check.cohort.due <= now + interval_s * (1 + 1e-6)


@given(
    seed=st.integers(0, 2**32),
    fleet=st.sampled_from([(2000, 1.0), (2000, 10.0), (3000, 10.0), (5000, 5.0)]),
    start=st.floats(0.0, 1e6),
)
@settings(max_examples=12, deadline=None)
def test_starts_are_spread_from_the_first_second_on(
    seed: int, fleet: tuple[int, float], start: float
) -> None:
    """R-61: in any 100 ms at most 1.3x the mean, after a restart and when all are in phase."""
    count, interval_s = fleet
    scheduler = Scheduler()
    scheduler.replace(0, random_targets(seed, count, interval_s=interval_s), now=start)
    starts: defaultdict[int, int] = defaultdict(int)
    first_slot = int(start * SLOTS_PER_S) + 1
    crowd_s = count / (FIRST_STARTS_PER_S - count / interval_s)
    first_s = interval_s if interval_s <= IN_PHASE_S else max(FIRST_PROBE_S, crowd_s)
    slots = int((first_s + interval_s) * SLOTS_PER_S) + 20
    for slot in range(first_slot, first_slot + slots):
        now = (slot + 0.5) / SLOTS_PER_S
        for check in scheduler.due(now, count):
            starts[slot] += 1
            scheduler.record(check, PASSED, now)
    joined = first_slot + int(first_s * SLOTS_PER_S)
    joining = fullest_100_ms(starts, first_slot, joined)
    regular = fullest_100_ms(starts, joined + 10, first_slot + slots)
    mean = count / interval_s / 10
    assert regular <= 1.3 * mean
    # At first every target joins, and those that did keep their phase already.
    assert joining <= 1.3 * (count / first_s / 10 + (mean if interval_s > IN_PHASE_S else 0))


def fullest_100_ms(starts: dict[int, int], first: int, last: int) -> int:
    return max(sum(starts[slot] for slot in range(at, at + 10)) for at in range(first, last - 9))


@given(seed=st.integers(0, 2**32), churned=st.integers(1, 1999))
@settings(max_examples=6, deadline=None)
def test_starts_stay_spread_while_targets_come_and_go(seed: int, churned: int) -> None:
    """R-61."""
    scheduler = Scheduler()
    targets = random_targets(seed, 4000, interval_s=10.0)
    scheduler.replace(0, targets[:2000], now=5.0)
    scheduler.replace(0, targets[churned : churned + 2000], now=6.0)
    load = Counter(check.cohort.phase_slot for check in scheduler)
    ring = [load[slot % 1000] for slot in range(1010)]
    assert max(sum(ring[at : at + 10]) for at in range(1000)) <= 1.3 * 20


@given(
    healthy=st.booleans(),
    failures=st.integers(0, 20),
    age_s=st.floats(0.0, 100.0),
    interval_s=intervals,
    start=st.floats(0.0, 1e6),
)
def test_a_hand_over_keeps_the_streak_and_probes_within_an_interval(
    *, healthy: bool, failures: int, age_s: float, interval_s: float, start: float
) -> None:
    """R-62: a verdict moves by at most one interval."""
    scheduler = Scheduler()
    bus_now = 1_700_000_000.0
    seeds: dict[ReplicaId, ReplicaHealthStatus] = {
        replica(1): status(
            1, healthy=healthy, consecutive_failures=failures, last_check=bus_now - age_s
        )
    }
    scheduler.replace(
        0, [target(1, interval_s=interval_s)], now=start, bus_now=bus_now, seeds=seeds
    )
    (check,) = scheduler
    assert (check.streak.healthy, check.streak.consecutive_failures) == (healthy, failures)
    ticks = [start + tick * 0.01 for tick in range(int(interval_s / 0.01) + 3)]
    assert any(scheduler.due(now, 1) for now in ticks)
