"""One target under watch, and the deployment it belongs to: what the scheduler keeps in memory.

A hundred thousand of these are walked through every ten seconds, so what each probe touches lies
together, in two cache lines; a subclass adds the rest (CPython orders slots by name, but those of
a base come first).
"""

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from probe.health import Outcome, Streak
from probe.schedule.counters import Results
from probe.schedule.damping import Flaps
from probe.wire import (
    HEARTBEAT_TTL_S,
    ReplicaHealthStatus,
    ReplicaProbeTarget,
    StatusSet,
    status_set,
)

if TYPE_CHECKING:
    from probe.schedule.beat import Cohort

IN_FLIGHT: Final = 1
"""A probe of it is on the wire."""
WAITING: Final = 2
"""Due, and in its lane for want of room."""
JOINING: Final = 4
"""Its first start comes out of turn and is still ahead."""
RESTING: Final = 8
"""Long down: some of its turns are left out."""
REMOVED: Final = 16
"""No longer a target; what still points at it must let go."""

TAKEN_OVER_S: Final = HEARTBEAT_TTL_S + 5.0
"""A prober that died is replaced within this; its targets are this much late by then."""


class Lane(Results):
    """One deployment: what its probes came to, and which of them wait for room."""

    __slots__ = ("in_flight", "waiting")

    def __init__(self) -> None:
        super().__init__()
        self.in_flight = 0
        self.waiting: deque[tuple[Check, float]] = deque()
        """Each with when it began to wait, the longest waiting first."""


class _PerProbe:
    """What every probe reads or writes."""

    __slots__ = (
        "connection",
        "dirty",
        "due_at",
        "ended_at",
        "evidence_at",
        "failures",
        "healthy",
        "hold",
        "lane",
        "outcome",
        "seq",
        "started_at",
        "successes",
    )


class Check(_PerProbe):
    """One target under watch. Mutable, owned by the scheduler; times are monotonic seconds.

    `connection` belongs to the wire; the scheduler never looks inside. A target that changes
    gets a new check, and the old one is `removed`. `hold` says why it may not start now; 0 when
    it may.
    """

    __slots__ = (
        "changed_at",
        "cohort",
        "connect_timeout_s",
        "damped",
        "deadline",
        "expected",
        "first_deadline_s",
        "flaps",
        "generation",
        "hastened",
        "healthy_threshold",
        "interval_s",
        "max_retries",
        "replica_id",
        "rest",
        "spacing",
        "standing",
        "target",
        "timeout_s",
    )

    cohort: "Cohort"
    """The checks it starts with; set when it enters the beat."""

    def __init__(self, target: ReplicaProbeTarget, lane: Lane | None = None) -> None:
        self.hold = 0
        self.lane = Lane() if lane is None else lane
        self.connection: object | None = None
        self.due_at = 0.0  # when the probe in flight, or the first one, should have started
        self.started_at = 0.0
        self.outcome: Outcome | None = None  # of the last probe; None before the first
        self.ended_at = 0.0  # end of the last probe, whatever its outcome
        self.evidence_at: float | None = None  # end of the last probe that passed or failed
        self.seq = 0
        self.healthy = False
        self.failures = 0  # in a row
        self.successes = 0  # in a row
        self.dirty = False  # a result the flusher has not taken yet
        self.target = target
        self.replica_id = target.replica_id
        self.generation = target.generation
        self.interval_s = target.interval_s
        self.timeout_s = target.timeout_s
        self.connect_timeout_s = target.connect_timeout_s
        self.expected: StatusSet = status_set(target.expected_status)
        self.healthy_threshold = target.healthy_threshold
        self.max_retries = target.max_retries
        self.first_deadline_s = min(target.connect_timeout_s, target.timeout_s)
        self.standing = 0  # how its lane counts it
        self.changed_at: float | None = None  # the last change of the verdict
        self.deadline = 0.0  # of the probe in flight, once it is slow enough to be watched
        self.hastened = False  # an extra probe is on its way
        self.spacing = 1  # probed once in so many intervals
        self.rest = 0  # turns still to be left out
        self.flaps: Flaps | None = None
        self.damped = False  # kept from becoming healthy: its verdict changed too often

    @property
    def streak(self) -> Streak:
        """The verdict and the run of equal results behind it."""
        return Streak(self.healthy, self.failures, self.successes)

    @property
    def in_flight(self) -> bool:
        """Whether a probe of it is on the wire."""
        return bool(self.hold & IN_FLIGHT)

    @property
    def removed(self) -> bool:
        """Whether it is no longer a target."""
        return bool(self.hold & REMOVED)

    @property
    def deployment(self) -> str:
        """Whose replica it is."""
        return self.target.deployment

    def __repr__(self) -> str:
        return f"Check({self.replica_id}, in_flight={self.in_flight}, removed={self.removed})"


def take_over(
    check: Check, seed: ReplicaHealthStatus, *, now: float, bus_now: float
) -> float | None:
    """Take over what the bus knows (R-62); return how long the target may wait for its phase.

    Whoever takes over a share, or starts again, must not probe all of that in a crowd (R-61). Nor
    may a target be passed on from one to the next and wait for a phase each time: none gets older
    than one whose prober died just before its turn. Those that did are late by as much as they
    were apart, so they come one by one. None stands for a target that nobody has watched.
    """
    check.seq = seed.seq
    if seed.generation != check.target.generation:
        return None
    check.healthy = seed.healthy
    check.failures = seed.consecutive_failures
    check.successes = seed.consecutive_successes
    if seed.changed_at:
        check.changed_at = now - max(0.0, bus_now - seed.changed_at)
    if not seed.last_check:
        return None
    age_s = max(0.0, bus_now - seed.last_check)
    check.evidence_at = now - age_s
    left_s = check.interval_s + TAKEN_OVER_S - age_s
    return left_s if left_s > 0.0 else inf


def inherit(check: Check, old: Check) -> None:
    """Carry over what the changed target's former check knew."""
    check.seq = old.seq
    if old.target.generation == check.target.generation:
        check.healthy = old.healthy
        check.failures = old.failures
        check.successes = old.successes
        check.outcome = old.outcome
        check.ended_at = old.ended_at
        check.evidence_at = old.evidence_at
        check.changed_at = old.changed_at
        check.flaps = old.flaps
        check.damped = old.damped
