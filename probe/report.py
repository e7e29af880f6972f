"""From a check to the status that the bus shows: the only place where the two clocks meet.

Called by the flusher for every status, so it does no more than it must. Times are cut, not
rounded, to what a reader can use: `// 1` costs 50 ns, `int` 73, `round` 200, and a status has
seven of them.
"""

from typing import Final

from probe.health import Outcome
from probe.scheduler import Check
from probe.wire import DETAIL_MAX_CHARS, Phases, ReplicaHealthStatus

_ABSENT: Final = Phases().connect
"""The default itself, by which the codec knows what to leave out: an equal number is written."""


def status_of(
    check: Check, outcome: Outcome, *, offset_s: float, prober: str
) -> ReplicaHealthStatus:
    """Build the status of a check from its last outcome; `offset_s` is bus less monotonic time.

    `last_check` is of the last evidence: a fault of the prober's own refreshes it not (S1).
    """
    streak = check.streak
    evidence_at, changed_at = check.evidence_at, check.changed_at
    return ReplicaHealthStatus(
        replica_id=check.replica_id,
        healthy=streak.healthy,
        outcome=outcome.kind,
        reason=outcome.reason,
        detail=outcome.detail[:DETAIL_MAX_CHARS],
        http_status=outcome.http_status,
        latency_ms=outcome.total_s * 1e6 // 1 / 1e3,
        phases_ms=phases_of(outcome, check.started_at - check.due_at),
        consecutive_failures=streak.consecutive_failures,
        consecutive_successes=streak.consecutive_successes,
        last_check=0.0 if evidence_at is None else (evidence_at + offset_s) * 1e3 // 1 / 1e3,
        changed_at=0.0 if changed_at is None else (changed_at + offset_s) * 1e3 // 1 / 1e3,
        prober=prober,
        generation=check.generation,
        seq=check.seq,
    )


def phases_of(outcome: Outcome, slot_wait_s: float = 0.0) -> Phases:
    """Return where the time of a probe went, in milliseconds."""
    connect_us, first_byte_us = outcome.connect_s * 1e6 // 1, outcome.first_byte_s * 1e6 // 1
    transfer_us = outcome.total_s * 1e6 // 1 - connect_us - first_byte_us
    return Phases(
        slot_wait_s * 1e6 // 1 / 1e3,
        _ABSENT,
        connect_us / 1e3 if connect_us else _ABSENT,
        _ABSENT,
        first_byte_us / 1e3 if first_byte_us else _ABSENT,
        transfer_us / 1e3 if first_byte_us and transfer_us > 0 else _ABSENT,
    )
