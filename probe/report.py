"""From a check to the status that the bus shows: the only place where the two clocks meet.

Called by the flusher for every status, so it does no more than it must: cutting a time to
microseconds by `int` costs 80 ns, `round` 200, and a status has seven of them.
"""

from probe.health import Outcome
from probe.scheduler import Check
from probe.wire import DETAIL_MAX_CHARS, Phases, ReplicaHealthStatus


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
        latency_ms=int(outcome.total_s * 1e6) / 1e3,
        phases_ms=phases_of(outcome, check.started_at - check.due_at),
        consecutive_failures=streak.consecutive_failures,
        consecutive_successes=streak.consecutive_successes,
        last_check=0.0 if evidence_at is None else int((evidence_at + offset_s) * 1e3) / 1e3,
        changed_at=0.0 if changed_at is None else int((changed_at + offset_s) * 1e3) / 1e3,
        prober=prober,
        generation=check.target.generation,
        seq=check.seq,
    )


def phases_of(outcome: Outcome, slot_wait_s: float = 0.0) -> Phases:
    """Return where the time of a probe went, in milliseconds."""
    connect_us, first_byte_us = int(outcome.connect_s * 1e6), int(outcome.first_byte_s * 1e6)
    transfer_us = int(outcome.total_s * 1e6) - connect_us - first_byte_us
    return Phases(
        int(slot_wait_s * 1e6) / 1e3,
        0.0,
        connect_us / 1e3,
        0.0,
        first_byte_us / 1e3,
        transfer_us / 1e3 if first_byte_us and transfer_us > 0 else 0.0,
    )
