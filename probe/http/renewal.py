"""What targets are prepared with may change under its name: secrets and certificates rotate.

Asked by both wires when they dial for a target that names such a thing; where none is named, it
is never asked. What cannot be read any more is the prober's own trouble: what was read before is
used on, which the replica may refuse, and the log says so.
"""

from collections.abc import Callable
from math import inf
from typing import Final, Protocol

import structlog

from probe.errors import WireError
from probe.http.request import Prepared
from probe.wire import ReplicaProbeTarget

RENEW_S: Final = 60.0
"""To read two files costs 0.1 ms, and an own connection for each probe is a fair design."""
LOG_PERIOD_S: Final = 3600.0
LOG_MAX: Final = 100
"""Troubles remembered: a fleet shares its few files, so beyond them somebody writes nonsense."""
REFUSALS: Final = frozenset({401, 403})
"""Perhaps of a secret that was rotated: only a new connection is given the new one."""

_log = structlog.get_logger("probe.http.renewal")


class Renewable(Protocol):
    """What a wire holds of a target between two probes, without an open connection."""

    prepared: Prepared

    def renew(self, prepared: Prepared, renew_at: float, /) -> None:
        """Go on with this."""


def due(target: ReplicaProbeTarget, now: float) -> float:
    """Return from when on a target that was prepared now is to be prepared again."""
    tls = target.tls
    named = tls is not None and (tls.ca_file or tls.client_certificate_file or tls.client_key_file)
    return now + RENEW_S if named or target.headers else inf


class Renewal:
    """Prepares targets again."""

    def __init__(self, admit: Callable[[ReplicaProbeTarget], Prepared]) -> None:
        self._admit = admit
        self._logged: dict[str, float] = {}

    def renew(self, what: Renewable, target: ReplicaProbeTarget, now: float) -> None:
        """Prepare the target anew; where that is not possible, it stays as it was."""
        prepared = what.prepared
        try:
            prepared = self._admit(target)
        except WireError as error:
            self._say(target, str(error), now)
        what.renew(prepared, due(target, now))

    def _say(self, target: ReplicaProbeTarget, why: str, now: float) -> None:
        """Log a trouble once an hour, for the first target that meets it."""
        if now < self._logged.get(why, now):
            return
        if len(self._logged) >= LOG_MAX:
            self._logged.clear()
        self._logged[why] = now + LOG_PERIOD_S
        _log.warning("renewal_failed", replica=target.replica_id, error=why[:300])
