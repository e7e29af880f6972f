"""A check's status as the text that goes onto the bus, written by a template.

Called by the flusher for every result, so it does no more than it must: no struct is built and no
codec asked, which costs a third less (2.2 us against 3.3, caches cold). What the fields mean
is said by `probe.wire.ReplicaHealthStatus`; a property test holds the text to what its decoder
reads. The only place where the two clocks meet. Knows nothing of connections.
"""

import json
from functools import lru_cache
from typing import Final

from probe.health import Outcome
from probe.reasons import REASONS, Reason
from probe.report import TRANSFER_MIN_S, phases_us
from probe.schedule.damping import told
from probe.schedule.watch import Check
from probe.wire import DETAIL_MAX_CHARS, SCHEMA_VERSION, Keys, ReplicaId

_UUID_CHARS: Final = 36
_TRANSFER_MIN_US: Final = int(TRANSFER_MIN_S * 1e6)
_DETAILS_MAX: Final = 1024
"""Quoted details remembered: replicas that fail at once mostly fail alike."""
_NO_DETAIL: Final = '""'
_VERDICTS: Final = {
    healthy: {
        reason: f'","healthy":{json.dumps(healthy)},"outcome":"{REASONS[reason].kind}"'
        f',"reason":"{reason}","detail":'
        for reason in Reason
    }
    for healthy in (True, False)
}


class StatusText:
    """The statuses that one prober writes, each with its key.

    Times are whole micro- or milliseconds with an exponent (`1250e-3`), which JSON allows: an
    integer is printed in a quarter of the time of a fraction.
    """

    def __init__(self, keys: Keys, *, prober: str) -> None:
        head = keys.status(ReplicaId(""))
        self._key = f"${len(head.encode()) + _UUID_CHARS}\r\n{head}"
        self._start = f'{{"v":{SCHEMA_VERSION},"replica_id":"'
        self._prober = f',"prober":{json.dumps(prober)},"generation":'
        self._quoted = lru_cache(_DETAILS_MAX)(_quoted)

    def entry(self, check: Check, outcome: Outcome, offset_s: float) -> str:
        """Write the status of a check after its last outcome; `offset_s` is bus less our time.

        `last_check` is of the last evidence: a fault of the prober's own refreshes it not (S1).
        Returns key and status as two bulk strings of the protocol; the status is pure ASCII.
        """
        replica_id, detail = check.replica_id, outcome.detail
        if check.damped and check.flaps is not None:
            detail = told(detail, check.flaps, check.ended_at)
        evidence_at, changed_at = check.evidence_at, check.changed_at
        total_us, first_byte_us = int(outcome.total_s * 1e6), int(outcome.first_byte_s * 1e6)
        whole = not outcome.connect_s and 0 <= total_us - first_byte_us < _TRANSFER_MIN_US
        value = (
            f"{self._start}{replica_id}{_VERDICTS[check.healthy][outcome.reason]}"
            f"{self._quoted(detail) if detail else _NO_DETAIL}"
            f',"http_status":{outcome.http_status},"latency_ms":{total_us}e-3,"phases_ms":'
            f'{{"slot_wait":{int((check.started_at - check.due_at) * 1e6)}e-3'
            f',"first_byte":{first_byte_us}e-3{"" if whole else _other_phases(outcome)}}}'
            f',"consecutive_failures":{check.failures}'
            f',"consecutive_successes":{check.successes},"last_check":'
            f"{0 if evidence_at is None else int((evidence_at + offset_s) * 1e3)}e-3"
            f',"changed_at":{0 if changed_at is None else int((changed_at + offset_s) * 1e3)}e-3'
            f'{self._prober}{check.generation},"seq":{check.seq}}}'
        )
        return f"{self._key}{replica_id}\r\n${len(value)}\r\n{value}\r\n"


def _other_phases(outcome: Outcome) -> str:
    """Write the phases that a whole reply on a kept connection does not have."""
    phases = phases_us(outcome)
    return "".join(
        f',"{name}":{us}e-3' for name, us in phases.items() if us and name != "first_byte"
    )


def _quoted(detail: str) -> str:
    """Quote for JSON in pure ASCII, so that characters are bytes."""
    return json.dumps(detail[:DETAIL_MAX_CHARS])
