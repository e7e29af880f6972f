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
from probe.spread import SLOTS_PER_S, Spread, fraction_of
from probe.wire import (
    OutcomeKind,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    StatusSet,
    status_set,
)

FIRST_PROBE_S: Final = 1.0
"""A new target is probed within a second of being read, whatever its interval (P11)."""

_NOT_ARMED: Final = 1 << 62
_NO_SEEDS: Final[Mapping[ReplicaId, ReplicaHealthStatus]] = MappingProxyType({})
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
        "dirty",
        "due_at",
        "ended_at",
        "evidence_at",
        "expected",
        "first_deadline_s",
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
        "started_at",
        "streak",
        "target",
        "timeout_s",
    )

    def __init__(self, target: ReplicaProbeTarget) -> None:
        self.target = target
        self.replica_id = target.replica_id
        self.interval_s = target.interval_s
        self.timeout_s = target.timeout_s
        self.connect_timeout_s = target.connect_timeout_s
        self.expected: StatusSet = status_set(target.expected_status)
        self.healthy_threshold = target.healthy_threshold
        self.max_retries = target.max_retries
        self.first_deadline_s = min(target.connect_timeout_s, target.timeout_s)
        self.streak: Streak = UNKNOWN
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
    removed: list[ReplicaId]
    retired: list[Check]
