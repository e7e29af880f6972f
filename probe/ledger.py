"""What the stages count, and what they know of the bus: up or away, and what time it is there.

Written by the stages, read by the metrics at scrape time. Like the sweep's counters these are
plain numbers: the flusher passes here once per status.
"""

import random
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from probe.errors import BusError
from probe.health import Outcome
from probe.metrics import Notable
from probe.reasons import Reason
from probe.schedule.counters import DURATION_BOUNDS_S, LAG_BOUNDS_S, Histogram

OPERATIONS: Final = (
    *("poll", "read_targets", "read_statuses", "write_statuses", "announce"),
    *("beat", "read_probers", "read_lives"),
)
PHASES: Final = ("connect", "first_byte", "transfer")
SLOW_S: Final = 1.0
"""A probe that took longer is worth an exemplar even when it passed."""
NOTABLE_FOR_S: Final = 1.0
"""An exemplar of a moment ago is as good as a new one, and costs nothing."""
TRANSFER_MIN_S: Final = 10e-6
"""A reply that came whole was not transferred in any time worth a count."""
BACKOFF_FIRST_S: Final = 0.1
_OK: Final = Reason.OK

_log = structlog.get_logger("probe.bus.prober")


class Ledger:
    """Numbers of one prober; only ever grow, but for `bus_up`."""

    def __init__(self) -> None:
        self.bus_errors = 0
        self.operations = {op: Histogram(DURATION_BOUNDS_S) for op in OPERATIONS}
        self.phases = {phase: Histogram(DURATION_BOUNDS_S) for phase in PHASES}
        self._connect, self._first_byte, self._transfer = self.phases.values()
        self.loop_lag = Histogram(LAG_BOUNDS_S)
        self.notable: dict[int, Notable] = {}
        """By the bucket of `probe_duration_seconds`."""
        self.transitions: dict[tuple[str, ...], int] = {}
        """By the verdict before and the one after."""
        self.statuses_written = 0
        self.results_dropped = 0
        self.rejected: dict[str, int] = {}
        self.restarts: dict[str, int] = {}

    def note_phases(self, replica_id: str, outcome: Outcome, at: float) -> None:
        """Take the phases of one probe, and its replica's id if it is worth a look."""
        connect_s, first_byte_s = outcome.connect_s, outcome.first_byte_s
        if connect_s:
            observe(self._connect, connect_s)
        if first_byte_s:
            histogram = self._first_byte  # `observe` written out: every passing probe is here
            histogram.counts[bisect_left(DURATION_BOUNDS_S, first_byte_s)] += 1
            histogram.total += first_byte_s
            transfer_s = outcome.total_s - connect_s - first_byte_s
            if transfer_s > TRANSFER_MIN_S:
                observe(self._transfer, transfer_s)
        if outcome.total_s > SLOW_S or outcome.reason is not _OK:
            bucket = bisect_left(DURATION_BOUNDS_S, outcome.total_s)
            known = self.notable.get(bucket)
            if known is None or at - known.at >= NOTABLE_FOR_S:
                self.notable[bucket] = Notable(replica_id, outcome.total_s, at)


def observe(histogram: Histogram, value: float) -> None:
    """Count one value."""
    histogram.counts[bisect_left(histogram.bounds, value)] += 1
    histogram.total += value


def bump(counts: dict[str, int], name: str, by: int = 1) -> None:
    """Count under a name of a closed set."""
    counts[name] = counts.get(name, 0) + by


class Lifeline:
    """The prober's view of the bus. One log line when it goes and one when it is back."""

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float], backoff_max_s: float) -> None:
        self.up = True
        self._ledger = ledger
        self._clock = clock
        self._backoff_max_s = backoff_max_s
        self.offset_s = 0.0
        """The bus's time less ours."""
        self._lost_at = 0.0

    @contextmanager
    def operation(self, op: str) -> Iterator[None]:
        """Time one operation, and judge by its end whether the bus is there."""
        started = self._clock()
        try:
            yield
        except BusError as error:
            self._ledger.bus_errors += 1
            if self.up:
                self.up = False
                self._lost_at = started
                _log.warning("bus_lost", op=op, error=str(error), then="going on from memory")
            raise
        now = self._clock()
        observe(self._ledger.operations[op], now - started)
        if not self.up:
            self.up = True
            _log.info("bus_back", away_s=round(now - self._lost_at, 1))

    def backoff_s(self, attempt: int) -> float:
        """Return how long to wait after the n-th failure in a row: doubling, capped, jittered."""
        longest = min(self._backoff_max_s, BACKOFF_FIRST_S * (1 << min(attempt, 16)))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, hides nothing

    def heard(self, bus_time_s: float, now: float) -> None:
        """Set the bus's clock: it said `bus_time_s` when ours said `now`."""
        self.offset_s = bus_time_s - now

    def bus_time(self, moment: float) -> float:
        """Return the bus's time of a monotonic moment."""
        return moment + self.offset_s
