"""What to probe now, and what has waited too long: the sans-I/O heart of the prober.

Called by the sweep with `now` in monotonic seconds; knows no clock, socket or bus. Two timing
wheels of 10 ms slots: one holds each check once, at its next start; the other holds its deadline
at most about once. Fixed rate, skip and never queue, at most one probe of a target in flight.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from probe.health import UNKNOWN, Outcome, Streak, Transition, observe
from probe.reasons import OutcomeKind
from probe.spread import SLOTS_PER_S, Spread
from probe.wire import (
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    StatusSet,
    status_set,
)

FIRST_PROBE_S: Final = 0.7
"""A new target is probed so soon after it is read: with a look at the bus every 0.25 s that is
within a second of being written (P11)."""
IN_PHASE_S: Final = 1.0
"""At such an interval or less its phase is soon enough, and anything sooner would crowd the
start of a whole fleet (R-61)."""

_UP: Final = 1 - 1e-6
"""Rounds a start up to a slot. Most lie on one but for 1e-10 of float noise (after 10 days of
uptime), and a plain ceiling would cost these 10 ms of lag each time."""
_NOT_ARMED: Final = 1 << 62
NO_SEEDS: Final[Mapping[ReplicaId, ReplicaHealthStatus]] = MappingProxyType({})
_PROBE_ERROR: Final = OutcomeKind.PROBE_ERROR


class Check:
    """One target under watch. Mutable, owned by the scheduler; times are monotonic seconds.

    `connection` belongs to the wire; the scheduler never looks inside. A target that changes
    gets a new check: the old one is `removed` and its wheel entries die where they lie.
    """

    __slots__ = (
        "armed_slot",
        "changed_at",
        "connect_timeout_s",
        "connection",
        "deadline",
        "deployment",
        "dirty",
        "due_at",
        "ended_at",
        "evidence_at",
        "expected",
        "first_deadline_s",
        "generation",
        "healthy_threshold",
        "in_flight",
        "interval_s",
        "joining",
        "max_retries",
        "next_due",
        "outcome",
        "phase_slot",
        "removed",
        "replica_id",
        "seq",
        "standing",
        "started_at",
        "streak",
        "target",
        "timeout_s",
    )

    def __init__(self, target: ReplicaProbeTarget) -> None:
        self.target = target
        self.replica_id = target.replica_id
        self.deployment = target.deployment
        self.generation = target.generation
        self.interval_s = target.interval_s
        self.timeout_s = target.timeout_s
        self.connect_timeout_s = target.connect_timeout_s
        self.expected: StatusSet = status_set(target.expected_status)
        self.healthy_threshold = target.healthy_threshold
        self.max_retries = target.max_retries
        self.first_deadline_s = min(target.connect_timeout_s, target.timeout_s)
        self.streak: Streak = UNKNOWN
        self.standing = 0  # the counters' note of how it is counted
        self.outcome: Outcome | None = None  # of the last probe; None before the first
        self.seq = 0
        self.ended_at = 0.0  # end of the last probe, whatever its outcome
        self.evidence_at: float | None = None  # end of the last probe that passed or failed
        self.changed_at: float | None = None  # the last change of the verdict
        self.dirty = False  # a result the flusher has not taken yet
        self.in_flight = False
        self.removed = False
        self.connection: object | None = None
        self.due_at = 0.0  # when the probe in flight should have started
        self.started_at = 0.0
        self.deadline = 0.0
        self.next_due = 0.0
        self.joining = True  # before its first start: not in phase yet
        self.phase_slot = 0
        self.armed_slot = _NOT_ARMED

    def __repr__(self) -> str:
        return f"Check({self.replica_id}, in_flight={self.in_flight}, removed={self.removed})"


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
        "_alarms",
        "_alarms_slot",
        "_partitions",
        "_ready",
        "_spread",
        "_starts",
        "_starts_slot",
        "missed",
        "overlapped",
    )

    def __init__(self) -> None:
        self._partitions: dict[int, dict[ReplicaId, Check]] = {}
        self._spread = Spread()
        self._starts: defaultdict[int, list[Check]] = defaultdict(list)
        self._starts_slot = 0  # slots up to this one have been emptied
        self._alarms: defaultdict[int, list[Check]] = defaultdict(list)
        self._alarms_slot = 0
        self._ready: deque[Check] = deque()  # due, but not started for want of room
        self.overlapped = 0
        """Starts skipped because the target's previous probe was still in flight (R-52)."""
        self.missed = 0
        """Starts that never were, because the prober was late by more than an interval."""

    def __len__(self) -> int:
        return sum(map(len, self._partitions.values()))

    def __iter__(self) -> Iterator[Check]:
        for checks in self._partitions.values():
            yield from checks.values()

    @property
    def waiting(self) -> int:
        """How many checks are due and wait for room."""
        return len(self._ready)

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
            check = after[replica_id] = Check(target)
            fresh = False
            if old is not None:
                _inherit(check, old)
                changed.append(check)
            else:
                if seed := seeds.get(replica_id):
                    fresh = _seeded(check, seed, now=now, bus_now=bus_now)
                added.append(check)
            self._enter(check, now, in_phase=fresh)
        retired = [old for old in before.values() if after.get(old.replica_id) is not old]
        self._retire(retired)
        self._partitions[partition] = after
        if not after:
            del self._partitions[partition]
        return Changes(added, changed, retired)

    def due(self, now: float, limit: int) -> list[Check]:
        """Mark as in flight, and return, the checks to start now: at most `limit`, oldest first.

        What the limit holds back stays due. A check still in flight is skipped and counted.
        """
        slot = int(now * SLOTS_PER_S)
        ready, starts = self._ready, self._starts
        for checks in _emptied(starts, self._starts_slot, slot):
            ready.extend(checks)
        self._starts_slot = max(slot, self._starts_slot)
        started: list[Check] = []
        while ready and len(started) < limit:
            check = ready.popleft()
            if check.removed:
                continue
            due_at = check.next_due
            next_due = due_at + check.interval_s
            if check.joining or next_due <= now:
                next_due = self._back_in_phase(check, now)
            check.next_due = next_due
            next_slot = int(next_due * SLOTS_PER_S + _UP)
            starts[next_slot if next_slot > slot else slot + 1].append(check)
            if check.in_flight:
                self.overlapped += 1
                continue
            check.due_at = due_at
            self._begin(check, now)
            started.append(check)
        return started

    def restart(self, check: Check, now: float) -> None:
        """Mark as in flight, out of turn; its place in the wheel stays."""
        check.due_at = now
        self._begin(check, now)

    def overdue(self, now: float) -> list[Check]:
        """Return the checks in flight whose deadline passed, each once.

        Never early, and at most one slot and one tick late. The caller ends each probe or gives
        it a new deadline with `rearm`.
        """
        slot = int(now * SLOTS_PER_S)
        late: list[Check] = []
        for checks in _emptied(self._alarms, self._alarms_slot, slot):
            for check in checks:
                if check.armed_slot > slot:
                    continue  # an entry left behind when an earlier one was needed, or disarmed
                check.armed_slot = _NOT_ARMED
                if not check.in_flight:
                    continue
                if check.deadline >= now:
                    self.rearm(check, check.deadline)
                else:
                    late.append(check)
        self._alarms_slot = max(slot, self._alarms_slot)
        return late

    def rearm(self, check: Check, deadline: float) -> None:
        """Look at the check in flight again at `deadline`."""
        check.deadline = deadline
        slot = max(int(deadline * SLOTS_PER_S), self._alarms_slot) + 1
        if slot < check.armed_slot:
            check.armed_slot = slot
            self._alarms[slot].append(check)

    def record(self, check: Check, outcome: Outcome, now: float) -> Transition | None:
        """Take the outcome of the probe in flight; return the change of verdict, if any."""
        check.in_flight = False
        check.outcome = outcome
        check.ended_at = now
        check.seq += 1
        if outcome.kind is _PROBE_ERROR:
            return None
        check.evidence_at = now
        check.streak, transition = observe(
            check.streak,
            outcome,
            healthy_threshold=check.healthy_threshold,
            max_retries=check.max_retries,
        )
        if transition is not None:
            check.changed_at = now
        return transition

    def _enter(self, check: Check, now: float, *, in_phase: bool) -> None:
        """Give a new check its phase and its first start.

        With a fresh verdict from the bus it waits for its phase; without, it is probed within
        `FIRST_PROBE_S`, its phase shrunk to that time: as evenly spread (R-61).
        """
        check.phase_slot = self._spread.take(check.replica_id, check.interval_s)
        if in_phase or check.interval_s <= IN_PHASE_S:
            check.joining = False
            check.next_due = _next_in_phase(check, now)
        else:
            check.next_due = now + check.phase_slot / SLOTS_PER_S / check.interval_s * FIRST_PROBE_S
        slot = max(int(check.next_due * SLOTS_PER_S + _UP), self._starts_slot + 1)
        self._starts[slot].append(check)

    def _retire(self, checks: Iterable[Check]) -> None:
        for check in checks:
            self._spread.give(check.phase_slot, check.interval_s)
            check.removed = True

    def _back_in_phase(self, check: Check, now: float) -> float:
        """Return the next start in phase, of a check that joins or was late by an interval."""
        if check.joining:
            check.joining = False
        else:
            self.missed += int((now - check.next_due) / check.interval_s)
        return _next_in_phase(check, now)

    def _begin(self, check: Check, now: float) -> None:
        check.in_flight = True
        check.started_at = now
        check.deadline = deadline = now + check.first_deadline_s
        slot = int(deadline * SLOTS_PER_S) + 1
        # An entry that lies earlier is left there: it re-arms itself when it comes up, so a
        # check that answers in time costs one entry per timeout, not one per probe.
        if slot < check.armed_slot:
            check.armed_slot = slot
            self._alarms[slot].append(check)


def _emptied(wheel: dict[int, list[Check]], last: int, now: int) -> list[list[Check]]:
    """Take the filled slots after `last` up to `now` out of a wheel, in order."""
    if now - last > len(wheel):  # after a long pause, or at the first call
        slots: Iterable[int] = sorted(slot for slot in wheel if slot <= now)
    else:
        slots = range(last + 1, now + 1)
    return [wheel.pop(slot) for slot in slots if slot in wheel]


def _next_in_phase(check: Check, now: float) -> float:
    """Return the first instant of the check's phase after `now`."""
    phase_s = check.phase_slot / SLOTS_PER_S
    periods = (now - phase_s) // check.interval_s + 1
    instant = phase_s + periods * check.interval_s
    return instant if instant > now else instant + check.interval_s


def _seeded(check: Check, seed: ReplicaHealthStatus, *, now: float, bus_now: float) -> bool:
    """Take over what the bus knows (R-62); tell whether it is younger than an interval."""
    check.seq = seed.seq
    if seed.generation != check.target.generation:
        return False
    check.streak = Streak(seed.healthy, seed.consecutive_failures, seed.consecutive_successes)
    if seed.changed_at:
        check.changed_at = now - max(0.0, bus_now - seed.changed_at)
    if not seed.last_check:
        return False
    age_s = max(0.0, bus_now - seed.last_check)
    check.evidence_at = now - age_s
    return age_s < check.interval_s


def _inherit(check: Check, old: Check) -> None:
    """Carry over what the changed target's former check knew."""
    check.seq = old.seq
    if old.target.generation == check.target.generation:
        check.streak = old.streak
        check.outcome = old.outcome
        check.ended_at = old.ended_at
        check.evidence_at = old.evidence_at
        check.changed_at = old.changed_at
