"""From a check to the status that the bus shows: the only place where the two clocks meet.

Called by the flusher for every status, so it does no more than it must.
"""

from probe.health import Outcome
from probe.ledger import Lifeline
from probe.scheduler import Check
from probe.wire import DETAIL_MAX_CHARS, Phases, ReplicaHealthStatus


def status_of(
    check: Check, outcome: Outcome, *, lifeline: Lifeline, prober: str
) -> ReplicaHealthStatus:
    """Build the status of a check from its last outcome; times become those of the bus.

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
        latency_ms=_ms(outcome.total_s),
        phases_ms=phases_of(outcome, slot_wait_s=check.started_at - check.due_at),
        consecutive_failures=streak.consecutive_failures,
        consecutive_successes=streak.consecutive_successes,
        last_check=0.0 if evidence_at is None else round(lifeline.bus_time(evidence_at), 3),
        changed_at=0.0 if changed_at is None else round(lifeline.bus_time(changed_at), 3),
        prober=prober,
        generation=check.target.generation,
        seq=check.seq,
    )


def phases_of(outcome: Outcome, *, slot_wait_s: float = 0.0) -> Phases:
    """Return where the time of a probe went, in milliseconds."""
    connect_s, first_byte_s = outcome.connect_s, outcome.first_byte_s
    return Phases(
        slot_wait=_ms(slot_wait_s),
        connect=_ms(connect_s),
        first_byte=_ms(first_byte_s),
        transfer=_ms(max(0.0, outcome.total_s - connect_s - first_byte_s)) if first_byte_s else 0.0,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
