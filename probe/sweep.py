"""The hot loop: starts what is due, ends what is overdue, records what comes back.

Driven by `tick(now)` from the ticker, so tests drive it with a fake wire and no clock. Plain
callbacks: no task, stream or timer per probe (a task costs more than the whole probe). It must
not know HTTP, the bus, or prometheus: the flusher and the metrics read what it leaves behind.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Final, Protocol

from probe.health import Outcome, ended
from probe.reasons import OutcomeKind, Reason
from probe.schedule.scheduler import NO_SEEDS, Changes, Check, Scheduler
from probe.schedule.watch import IN_FLIGHT
from probe.selfcheck import excused
from probe.wire import HealthChange, ReplicaHealthStatus, ReplicaId, ReplicaProbeTarget

TICK_S: Final = 0.010
STALL_S: Final = 0.100
"""A tick later than this did not run the loop: answers waited in our sockets, not theirs."""
STARTS_PER_TICK: Final = 1000
"""After a stall everything is due at once; started in one go it would be the next stall."""
STARTS_PER_LOOK: Final = 16
"""Starts between two looks at the clock: 0.2 ms of them, which no reply is charged with."""
TRANSITIONS_MAX: Final = 10_000
"""Verdict changes kept while the bus is away; they are hints, the statuses are the truth."""

_LAG: Final = ended(Reason.LOCAL_LAG, detail="the deadline passed while the prober stood still")


_FAILED: Final = OutcomeKind.FAILED


def _nobody(check: Check, outcome: Outcome, /) -> None:
    """Drop what nobody waits for."""


class Wire(Protocol):
    """How one replica is asked. `now` is monotonic seconds; no method raises."""

    done: Callable[[Check, Outcome], None]
    """Set by the sweep; called exactly once for each probe not cancelled or forgotten."""

    @property
    def open_connections(self) -> int:
        """How many connections are open, idle ones included."""

    def start(self, check: Check, now: float) -> None:
        """Begin one probe. `done` may be called before this returns."""

    def expire(self, check: Check, now: float) -> float | None:
        """Judge a probe whose deadline passed.

        Returns None when it was ended (`done` was called with a timeout), or the monotonic time
        at which to look again: it is connected and has until `started_at + timeout_s`.
        """

    def cancel(self, check: Check) -> None:
        """End the probe in flight without an outcome: `done` is not called."""

    def forget(self, check: Check) -> None:
        """Close the check's connection, in flight or idle: its target is gone."""

    def close(self) -> None:
        """Close every connection."""


class Sweep:
    """One prober's loop over its checks. `clock` gives the `now` of outcomes, as `tick` has it."""

    def __init__(
        self,
        scheduler: Scheduler,
        wire: Wire,
        *,
        clock: Callable[[], float],
        max_in_flight: int,
    ) -> None:
        self.scheduler = scheduler
        self.counters = scheduler.counters
        self.max_in_flight = max_in_flight
        self.frozen = False
        """Our own network is gone: silence of a replica is no evidence meanwhile (R-66)."""
        self.aside: Callable[[Check, Outcome], None] = _nobody
        """Told of outcomes that are not the sweep's: of the prober's probes of itself."""
        self._wire = wire
        self._clock = clock
        self._dirty: list[Check] = []
        self._transitions: deque[HealthChange] = deque(maxlen=TRANSITIONS_MAX)
        self._planned = inf  # when the next tick should be
        self._stalled_until = -inf
        self._excused_until = -inf
        wire.done = self.done

    @property
    def in_flight(self) -> int:
        """How many probes are on the wire."""
        return self.scheduler.in_flight

    @property
    def dirty(self) -> int:
        """How many results wait for the flusher."""
        return len(self._dirty)

    def tick(self, now: float) -> None:
        """Judge what is overdue, then start what is due and has room."""
        self._watch_lag(now)
        scheduler = self.scheduler
        for check in scheduler.overdue(now):
            self._expire(check, now)
        free = max(0, self.max_in_flight - scheduler.in_flight)
        self._planned = now + TICK_S
        start, due = self._wire.start, scheduler.due(now, min(free, STARTS_PER_TICK), free=free)
        for first in range(0, len(due), STARTS_PER_LOOK):
            started_at = self._clock() if first else now
            for check in due[first : first + STARTS_PER_LOOK]:
                start(check, started_at)

    def done(self, check: Check, outcome: Outcome) -> None:
        """Record how the probe in flight ended; one that nobody waits for is dropped."""
        if check.hold != IN_FLIGHT:
            self.aside(check, outcome)
            return
        if self.frozen and outcome.kind is _FAILED:
            outcome = excused(outcome)
        transition = self.scheduler.record(check, outcome, self._clock())
        if not check.dirty:  # the newest result wins: the status is built when it is taken
            check.dirty = True
            self._dirty.append(check)
        if transition is not None:
            change = HealthChange(
                replica_id=check.replica_id,
                healthy=check.healthy,
                reason=outcome.reason,
                seq=check.seq,
            )
            self._transitions.append(change)

    def replace(
        self,
        partition: int,
        targets: Iterable[ReplicaProbeTarget],
        *,
        now: float,
        bus_now: float = 0.0,
        seeds: Mapping[ReplicaId, ReplicaHealthStatus] = NO_SEEDS,
    ) -> Changes:
        """Make `targets` the content of a partition, as `Scheduler.replace`, on the wire too."""
        changes = self.scheduler.replace(partition, targets, now=now, bus_now=bus_now, seeds=seeds)
        for check in changes.retired:
            self.scheduler.release(check)
            self._wire.forget(check)
        if changes.retired:
            self._dirty = [check for check in self._dirty if not check.removed]
        return changes

    def take_dirty(self, limit: int) -> list[Check]:
        """Take the checks with a result not yet written, the longest waiting first."""
        taken = self._dirty[:limit]
        del self._dirty[:limit]
        for check in taken:
            check.dirty = False
        return taken

    def put_back(self, checks: Iterable[Check]) -> None:
        """Return checks whose status could not be written; each is kept once."""
        for check in checks:
            if not (check.dirty or check.removed):
                check.dirty = True
                self._dirty.append(check)

    def take_transitions(self) -> list[HealthChange]:
        """Take the verdict changes since the last call, oldest first."""
        taken = list(self._transitions)
        self._transitions.clear()
        return taken

    def stop(self) -> None:
        """End every probe without an outcome, and every connection."""
        for check in self.scheduler:
            if self.scheduler.release(check):
                self._wire.cancel(check)
        self._wire.close()

    def _watch_lag(self, now: float) -> None:
        """Note a stall, and which deadlines it excuses.

        A stall of L took up to L from every probe in flight, so a deadline up to L after its
        end is excused as well; later ones had all the time they were promised, and count:
        a prober that stalls now and then still sees a replica that hangs.
        """
        lag = now - self._planned
        if lag > STALL_S:
            self.counters.stalls += 1
            self._stalled_until = now
            self._excused_until = now + lag

    def _expire(self, check: Check, now: float) -> None:
        if check.started_at < self._stalled_until and check.deadline <= self._excused_until:
            self._wire.cancel(check)
            self.done(check, _LAG)
            self.scheduler.restart(check, now)
            return
        later = self._wire.expire(check, now)
        if later is not None:
            self.scheduler.rearm(check, later)
