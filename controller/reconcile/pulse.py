"""What a controller says of itself: when it last came round, and what is wrong.

Written by the loops of `controller.daemon` and `controller.reconcile.term`, read by /livez and
/readyz and by whoever decides whether the lease is worth renewing.
"""

import time
from collections.abc import Callable
from typing import Final

import structlog

from controller.errors import DatabaseUnreachable
from controller.metrics import ControllerMetrics

log = structlog.get_logger()

STUCK_S: Final = 60.0
"""A loop this late will not come back by itself: the longest wait of a handler is half of it."""


class Pulse:
    """One process's signs of life."""

    def __init__(
        self, metrics: ControllerMetrics, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with a beat, and not ready: nothing has been tried yet."""
        self._metrics = metrics
        self._clock = clock
        self._beat_at = clock()
        self._trouble: str | None = "starting"

    def beat(self) -> None:
        """Say that the loop moves."""
        self._beat_at = self._clock()

    def well(self) -> None:
        """Say that what was tried worked."""
        self._trouble = None

    def database_away(self, error: DatabaseUnreachable) -> None:
        """Count a turn lost to the database, and tell of the first of them."""
        self._metrics.database_error()
        if self._trouble is None:
            log.warning("database_away", error=str(error), consequence="nothing is changed")
        self._trouble = str(error)

    def stuck(self) -> str | None:
        """Return what is wrong when only a restart helps."""
        late_s = self._clock() - self._beat_at
        return f"the reconcile loop is {late_s:.0f} s late" if late_s > STUCK_S else None

    def not_ready(self) -> str | None:
        """Return why nobody should count on this controller now."""
        return self._trouble
