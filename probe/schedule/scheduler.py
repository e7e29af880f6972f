"""What to probe now, and what has waited too long: the sans-I/O heart of the prober.

Called by the sweep with `now` in monotonic seconds; knows no clock, socket or bus. Fixed rate,
skip and never queue, at most one probe of a target in flight. A probe that passes, of a target
that is healthy, costs some ten stores and no object: everything else is decided elsewhere
(`health`, `pace`, `damping`), and only when something changes.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from types import MappingProxyType
from typing import Final, NamedTuple

from probe.health import Outcome, Transition, at_stake, observe
from probe.reasons import OutcomeKind
from probe.schedule.beat import Beat, Turn
from probe.schedule.bend import Bend
from probe.schedule.counters import DURATION_BOUNDS_S, Counters
from probe.schedule.damping import Damping
from probe.schedule.deadlines import Deadlines
from probe.schedule.lanes import SHARE, Lanes, count
from probe.schedule.pace import Pace
from probe.schedule.watch import IN_FLIGHT, REMOVED, RESTING, WAITING, Check, inherit, take_over
from probe.wire import ReplicaHealthStatus, ReplicaId, ReplicaProbeTarget

__all__ = ["NO_SEEDS", "Changes", "Check", "Scheduler"]

NO_SEEDS: Final[Mapping[ReplicaId, ReplicaHealthStatus]] = MappingProxyType({})
_PASSED: Final = OutcomeKind.PASSED
_PROBE_ERROR: Final = OutcomeKind.PROBE_ERROR


class Changes(NamedTuple):
    """What one `replace` did. `retired` are the old checks, of removed and of changed targets."""

    added: list[Check]
    changed: list[Check]
    retired: list[Check]


class Scheduler:
    """All checks of this prober. Every method is O(what it returns or touches).

    `now` must not run backwards between calls of `due` and `overdue`.
    """

    __slots__ = (
        "_beat",
        "_bend",
        "_damping",
        "_deadlines",
        "_lanes",
        "_partitions",
        "counters",
        "damped",
        "in_flight",
        "overlapped",
    )

    def __init__(
        self,
        pace: Pace = Pace(),  # noqa: B008 - frozen
        damping: Damping = Damping(),  # noqa: B008 - frozen
        *,
        deployment_share: float = SHARE,
    ) -> None:
        self._damping = damping
        self._beat = Beat()
        self._bend = Bend(self._beat, pace)
        self._lanes = Lanes(deployment_share)
        self._partitions: dict[int, dict[ReplicaId, Check]] = {}
        self._deadlines = Deadlines()
        self.counters = Counters(self._lanes.by_name)
        self.in_flight = 0
        self.overlapped = 0
        """Starts skipped because the target's previous probe was still in flight (R-52)."""
        self.damped = 0
        """How many targets are kept from becoming healthy now."""

    def __len__(self) -> int:
        return sum(map(len, self._partitions.values()))

    def __iter__(self) -> Iterator[Check]:
        for checks in self._partitions.values():
            yield from checks.values()

    def slices(self) -> Iterator[list[Check]]:
        """Yield all checks in parts; what there is may change between two of them."""
        for partition in tuple(self._partitions):
            yield list(self._partitions.get(partition, {}).values())

    @property
    def waiting(self) -> int:
        """How many checks are due and wait for room."""
        return len(self._lanes)

    @property
    def missed(self) -> int:
        """Starts that never were, because the prober was late by more than an interval."""
        return self._beat.missed

    @property
    def hastened(self) -> int:
        """Extra probes asked for at the edge of a verdict."""
        return self._bend.hastened

    @property
    def rested(self) -> int:
        """Turns left out of targets long down."""
        return self._bend.rested

    @property
    def rate_per_s(self) -> float:
        """Probes per second that the targets ask for, before any stretch."""
        return self._beat.rate_per_s

    @property
    def joined_by(self) -> float:
        """When the last of all targets so far has, or had, its first probe here."""
        return self._beat.joined_by

    @property
    def stretch(self) -> float:
        """How many times as long all intervals are (>= 1.0); set it at any time."""
        return self._beat.stretch

    @stretch.setter
    def stretch(self, factor: float) -> None:
        self._beat.stretch = factor

    def interval_s(self, check: Check) -> float:
        """Return the seconds between two probes of a target as things are: stretched, or rested."""
        return check.interval_s * check.spacing * self._beat.stretch

    def replace(
        self,
        partition: int,
        targets: Iterable[ReplicaProbeTarget],
        *,
        now: float,
        bus_now: float = 0.0,
        seeds: Mapping[ReplicaId, ReplicaHealthStatus] = NO_SEEDS,
    ) -> Changes:
        """Make `targets` the whole content of a partition; no targets give it up.

        Unchanged targets keep everything. A changed one keeps its streak, unless its generation
        moved too: then it is another incarnation. `seeds` are the statuses found on the bus at
        bus time `bus_now`; they are used for new targets only.
        """
        before = self._partitions.get(partition, {})
        after: dict[ReplicaId, Check] = {}
        added: list[Check] = []
        changed: list[Check] = []
        for replica_id, target in {target.replica_id: target for target in targets}.items():
            old = before.get(replica_id)
            if old is not None and old.target == target:
                after[replica_id] = old
                continue
            check = after[replica_id] = Check(target, self._lanes.join(target.deployment))
            wait_s: float | None = None
            if old is not None:
                inherit(check, old)
                changed.append(check)
            else:
                if seed := seeds.get(replica_id):
                    wait_s = take_over(check, seed, now=now, bus_now=bus_now)
                added.append(check)
            self._enter(check, now, wait_s=wait_s)
        retired = [old for old in before.values() if after.get(old.replica_id) is not old]
        self._retire(retired)
        self._partitions[partition] = after
        if not after:
            del self._partitions[partition]
        return Changes(added, changed, retired)

    def due(self, now: float, limit: int, *, free: float = inf) -> list[Check]:
        """Mark as in flight, and return, the checks to start now: at most `limit`.

        What the limit holds back stays due, oldest first in each deployment, and the deployments
        in turn; with `free` room for probes in flight none gets more than its share of it. A
        check still in flight is skipped and counted. The list is not to be changed.
        """
        turns, elapsed_s = self._beat.advance(now)
        self._bend.grow(elapsed_s)
        limit = min(limit, self._beat.room)
        due = sum(len(turn.checks) for turn in turns)
        started: list[Check] = []
        if due <= limit and self._lanes.fit(due, in_flight=self.in_flight, free=free):
            self._start(turns, now, started)
        else:
            self._wait_and_start(turns, now, started, limit=limit, free=free)
        if started:
            self._beat.started(len(started))
            self.in_flight += len(started)
            self.counters.started += len(started)
            self._deadlines.started(started, now)
        return started

    def restart(self, check: Check, now: float) -> None:
        """Let a check that is not in flight start again out of turn, with the next `due`."""
        check.due_at = now
        self._beat.bring()
        self._lanes.wait(check, now)

    def overdue(self, now: float) -> list[Check]:
        """Return the checks in flight whose deadline passed, each once.

        Never early, and at most one slot and one tick late (or `SIFT_S` after the start). The
        caller ends each probe or gives it a new deadline with `rearm`.
        """
        return self._deadlines.overdue(now)

    def rearm(self, check: Check, deadline: float) -> None:
        """Look at the check in flight again at `deadline`."""
        self._deadlines.rearm(check, deadline)

    def record(self, check: Check, outcome: Outcome, now: float) -> Transition | None:
        """Take the outcome of the probe in flight; return the change of verdict, if any."""
        check.hold = 0
        check.outcome = outcome
        check.ended_at = now
        check.seq += 1
        self.in_flight -= 1
        lane, counters, kind = check.lane, self.counters, outcome.kind
        lane.in_flight -= 1
        if kind is _PASSED:
            counters.passed += 1
            lane.passed += 1
        else:
            counters.unpassed[outcome.reason] = counters.unpassed.get(outcome.reason, 0) + 1
            if kind is _PROBE_ERROR:
                lane.errors += 1
                return None
            lane.failed += 1
        duration, total_s = counters.duration, outcome.total_s
        duration.counts[bisect_left(DURATION_BOUNDS_S, total_s)] += 1
        duration.total += total_s
        check.evidence_at = now
        # As `observe` has it, without its objects, where the verdict cannot change.
        if kind is _PASSED:
            if check.healthy or _kept_down(check, now):
                check.successes = 1 if check.failures else check.successes + 1
                check.failures = 0
                return None
            return self._judge(check, outcome, now)
        if not check.healthy:
            self._still_down(check, now)
            return None
        if check.failures + 1 < check.max_retries:
            check.failures += 1
            check.successes = 0
            self._bend.hasten(check, now)
            return None
        return self._judge(check, outcome, now)

    def release(self, check: Check) -> bool:
        """Take back the probe in flight without an outcome; tell whether there was one."""
        if not check.hold & IN_FLIGHT:
            return False
        check.hold &= ~IN_FLIGHT
        check.lane.in_flight -= 1
        self.in_flight -= 1
        return True

    def _start(self, turns: list[Turn], now: float, started: list[Check]) -> None:
        """Start whatever may be started of these turns: there is room for all."""
        lag = self.counters.lag
        for due_at, checks in turns:
            before = len(started)
            for check in checks:
                if check.hold:
                    self._skip(check)
                    continue
                check.hold = IN_FLIGHT
                check.due_at = due_at
                check.started_at = now
                check.lane.in_flight += 1
                started.append(check)
            lag.add(now - due_at, len(started) - before)
        self.counters.slot_wait.add(0.0, len(started))

    def _wait_and_start(
        self, turns: list[Turn], now: float, started: list[Check], *, limit: int, free: float
    ) -> None:
        """Let these turns wait in their lanes, and start what there is room for."""
        counters, lanes = self.counters, self._lanes
        for due_at, checks in turns:
            for check in checks:
                if check.hold:
                    self._skip(check)
                else:
                    check.due_at = due_at
                    lanes.wait(check, now)
        for check, since in lanes.serve(limit, free):
            check.hold = IN_FLIGHT
            check.started_at = now
            counters.lag.add(since - check.due_at)
            counters.slot_wait.add(now - since)
            started.append(check)

    def _skip(self, check: Check) -> None:
        """Leave out a turn of a check that may not start."""
        hold = check.hold
        if hold & RESTING:
            self._bend.skip(check)
        elif hold & IN_FLIGHT:
            self.overlapped += 1
        elif hold & WAITING:
            self._beat.missed += 1

    def _still_down(self, check: Check, now: float) -> None:
        """Take one more failure of a target that is not healthy."""
        check.failures += 1
        check.successes = 0
        if not check.standing:
            count(check)
        changed_at = check.changed_at
        if changed_at is not None and now - changed_at >= self._bend.rest_after_s:
            self._bend.rest(check, now - changed_at)
        if check.damped:
            self._calm(check, now)

    def _judge(self, check: Check, outcome: Outcome, now: float) -> Transition | None:
        """Take evidence that changes more than one count, by the rules for all of it."""
        self._calm(check, now)
        streak, transition = observe(
            check.streak,
            outcome,
            healthy_threshold=check.healthy_threshold,
            max_retries=check.max_retries,
            damped=check.damped,
        )
        check.healthy = streak.healthy
        check.failures = streak.consecutive_failures
        check.successes = streak.consecutive_successes
        check.spacing = 1
        if transition is not None or not check.standing:
            count(check)
        if transition is not None:
            if check.changed_at is not None:  # becoming healthy for the first time is no flap
                flaps = self._damping.changed(check.flaps, now, healthy=check.healthy)
                check.flaps = flaps
                self._set_damped(check, damped=flaps is not None and now < flaps.until)
            check.changed_at = now
        elif at_stake(streak, healthy_threshold=check.healthy_threshold):
            self._bend.hasten(check, now)
        return transition

    def _calm(self, check: Check, now: float) -> None:
        """End the damping of a check whose time is over."""
        if check.damped and (check.flaps is None or now >= check.flaps.until):
            self._set_damped(check, damped=False)

    def _set_damped(self, check: Check, *, damped: bool) -> None:
        self.damped += damped - check.damped
        check.damped = damped

    def _enter(self, check: Check, now: float, *, wait_s: float | None) -> None:
        """Count a new check, with what it took over, and let it join the beat."""
        self.damped += check.damped
        count(check)
        self._beat.join(check, now, wait_s=wait_s)

    def _retire(self, checks: list[Check]) -> None:
        for check in checks:
            self.damped -= check.damped
            self._lanes.leave(check)
            check.hold |= REMOVED
        if checks:
            self._beat.leave(checks)


def _kept_down(check: Check, now: float) -> bool:
    """Tell whether a target that passes cannot become healthy yet, however often it does."""
    check.spacing = 1
    return check.damped and check.flaps is not None and now < check.flaps.until
