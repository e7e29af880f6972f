"""Results on their way to the bus: gathered, written together, never written late.

Started by the daemon, beside the other stages. The statuses are written as text at the last
moment, when the connection is ready: what grew old until then, in a queue or in a process that
was stopped, is dropped there and not sent. Knows nothing of how the bus is spoken to.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Final

import anyio
import structlog

from probe.bus.writes import Entries, Entry
from probe.schedule.watch import REMOVED, Check
from probe.stages import Prober, repeat
from probe.status_text import StatusText
from probe.sweep import TRANSITIONS_MAX
from probe.wire import HealthChange, Keys, status_ttl_s

WRITE_COUNT: Final = 1000
"""Statuses in one write at most: what the bus takes in one command."""
LOGGED_CHANGES_MAX: Final = 20
"""Lines per flush: when a whole fleet changes, 10,000 lines would hold the loop for 0.3 s."""

_log = structlog.get_logger("probe.flusher")


class Flusher:
    """Writes results to the bus: `count` at once, or what there is after `wait_s`."""

    def __init__(
        self, prober: Prober, keys: Keys, *, count: int, wait_s: float, late_s: float
    ) -> None:
        self._prober = prober
        self._text = StatusText(keys, prober=prober.instance)
        self._count = count
        self._wait_s = wait_s
        self._late_s = late_s
        self._enough = anyio.Event()
        self._changes: deque[HealthChange] = deque(maxlen=TRANSITIONS_MAX)

    def look(self) -> None:
        """End the wait if there is enough to write; called by the ticker."""
        if self._prober.sweep.dirty >= self._count:
            self._enough.set()

    async def run(self) -> None:
        """Flush for ever."""
        await repeat(self._wait_and_flush, period_s=0.0, life=self._prober.lifeline)

    async def _wait_and_flush(self) -> None:
        with anyio.move_on_after(self._wait_s):
            await self._enough.wait()
        self._enough = anyio.Event()
        began = self._prober.clock()
        await self.flush()
        if self._prober.clock() - began > self._wait_s:
            self._enough.set()  # what came meanwhile has waited long enough

    async def flush(self) -> None:
        """Write what waits now; on `BusError` the newest result of each check still waits."""
        prober, sweep = self._prober, self._prober.sweep
        prober.runs(prober.clock())
        if prober.muted:
            self._forget()
            return
        self._take_changes()
        waiting = sweep.dirty
        while waiting > 0:
            await self._write(sweep.take_dirty(min(waiting, WRITE_COUNT)))
            waiting -= WRITE_COUNT
        if self._changes and not prober.muted:
            # After the statuses: who is woken by a change reads the new status.
            with prober.lifeline.operation("announce"):
                await prober.bus.announce(list(self._changes))
            self._changes.clear()

    async def _write(self, checks: Sequence[Check]) -> None:
        prober = self._prober
        write = _Write(prober, self._text, checks, late_s=self._late_s)
        try:
            with prober.lifeline.operation("write_statuses"):
                await prober.bus.write_statuses(write.build)
        except BaseException:  # cancelled, too: written twice is harmless, lost is not
            prober.sweep.put_back(checks)
            raise
        prober.ledger.statuses_written += write.built
        prober.ledger.results_dropped += write.dropped

    def _forget(self) -> None:
        """Drop what waits: the word of who is sick or stood still is void, later as well."""
        sweep = self._prober.sweep
        self._prober.ledger.results_dropped += len(sweep.take_dirty(sweep.dirty))
        sweep.take_transitions()
        self._changes.clear()

    def _take_changes(self) -> None:
        logged = 0
        for change in self._prober.sweep.take_transitions():
            states = ("unhealthy", "healthy") if change.healthy else ("healthy", "unhealthy")
            counts = self._prober.ledger.transitions
            counts[states] = counts.get(states, 0) + 1
            self._changes.append(change)
            if logged < LOGGED_CHANGES_MAX:
                _log.info(
                    "verdict_changed",
                    replica=change.replica_id,
                    healthy=change.healthy,
                    reason=change.reason.value,
                )
            logged += 1
        if logged > LOGGED_CHANGES_MAX:
            _log.info("verdicts_changed", more=logged - LOGGED_CHANGES_MAX)


class _Write:
    """One write of some checks, built when the bus is ready for it, perhaps more than once."""

    def __init__(
        self, prober: Prober, text: StatusText, checks: Sequence[Check], *, late_s: float
    ) -> None:
        self.built = 0
        self.dropped = 0
        self._prober = prober
        self._text = text
        self._checks = checks
        self._late_s = late_s
        self._noted = False

    def build(self) -> Entries:
        """Write the statuses, less those whose results are too old to be news."""
        prober = self._prober
        now = prober.clock()
        prober.runs(now)
        self.built = self.dropped = 0
        if prober.muted:
            self.dropped = len(self._checks)
            return {}
        entry, offset_s, oldest = self._text.entry, prober.lifeline.offset_s, now - self._late_s
        note_phases = None if self._noted else prober.ledger.note_phases
        by_interval: defaultdict[float, list[Entry]] = defaultdict(list)
        for check in self._checks:
            outcome = check.outcome
            if outcome is None or check.hold & REMOVED:
                continue
            if check.ended_at < oldest:
                self.dropped += 1
                continue
            if note_phases is not None:
                note_phases(check.replica_id, outcome, now + offset_s)
            by_interval[check.interval_s].append(entry(check, outcome, offset_s))
        self._noted = True
        by_ttl: defaultdict[int, list[Entry]] = defaultdict(list)
        for interval_s, entries in by_interval.items():  # a fleet has few intervals
            by_ttl[status_ttl_s(interval_s)] += entries
            self.built += len(entries)
        return by_ttl
