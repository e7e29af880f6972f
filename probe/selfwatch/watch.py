"""The prober watches itself: how busy its loop is, what a probe costs, and what follows.

A stage of the daemon: measures once a second, lets `probe.schedule.admission` decide, applies and
says what changed. Must run on the loop's own thread, for it is that thread's CPU that it reads.
"""

import time
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import anyio
import structlog

from probe.limits import descriptors_for
from probe.reasons import Reason
from probe.schedule.admission import Admission, Window, ceiling
from probe.schedule.census import Census
from probe.stages import Prober

PERIOD_S: Final = 1.0
COST_SHARE: Final = 0.2
"""Of each window in what a probe costs: a mean of about five seconds."""
BUSY_MIN: Final = 0.02
"""Below this the clock's grain and the rest of the process say more than the probes do."""
LOADING_SHARE: Final = 0.05
"""Of the targets that came or went in a window: it shows a load, not the load."""
LOADED_WINDOWS: Final = 3
"""Void after such a one, and as long as what came is probed for the first time: each of these
probes dials and builds what the later ones find, which says nothing of those."""
LOADED_WINDOWS_MAX: Final = 30
"""However long that is: where intervals are longer still, a first round is no load."""
SETTLE_MAX: Final = 20
"""Windows that a step may take to show: where intervals are long, most of it shows sooner."""
KEPT_SHARE: Final = 0.75
"""Of the kept connections that stay when the kernel has no descriptor left for others."""
_SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")

_log = structlog.get_logger("probe.selfwatch.watch")


class Pool(Protocol):
    """What the watch may change about connections."""

    max_open: int
    max_kept: int

    @property
    def open_connections(self) -> int:
        """How many are open."""


class _Seen(NamedTuple):
    """The counts at the end of a window."""

    at: float
    busy_s: float
    started: int
    lag_s: float
    no_descriptor: int
    targets: int


def thread_busy_s() -> float:
    """Return for how long this thread ran or waited for a CPU, since it began.

    The wait is what a busy neighbour or a quota takes: a thread that wants all of half a core is
    as busy as one can be. Where the kernel does not tell (no schedstats) it is CPU time alone.
    """
    try:
        ran_ns, waited_ns, _ = _SCHEDSTAT.read_bytes().split()
    except (OSError, ValueError):
        return time.thread_time()
    return (int(ran_ns) + int(waited_ns)) / 1e9


class SelfWatch:
    """See the module."""

    def __init__(
        self,
        prober: Prober,
        census: Census,
        pool: Pool,
        *,
        stretch_max: float,
        flush_s: float,
        busy_s: Callable[[], float] = thread_busy_s,
    ) -> None:
        self._prober = prober
        self._census = census
        self._pool = pool
        self._stretch_max = stretch_max
        self._flush_s = flush_s
        self._busy_s = busy_s
        self._admission = Admission()
        self._last = self._look()
        self._cost_s = 0.0
        self._scarce = False
        self._void_until = self._last.at + LOADED_WINDOWS * PERIOD_S

    async def run(self) -> None:
        """Watch for ever."""
        self._last = self._look()
        while True:
            await anyio.sleep(PERIOD_S)
            self.step()

    def step(self) -> None:
        """End a window: measure it, decide, apply."""
        last, now = self._last, self._look()
        self._last = now
        wall_s = now.at - last.at
        if wall_s <= 0:
            return
        probes = now.started - last.started
        busy = min(1.0, (now.busy_s - last.busy_s) / wall_s)
        lag_s = (now.lag_s - last.lag_s) / probes if probes else 0.0
        self._measure(busy, probes, wall_s)
        if abs(now.targets - last.targets) > LOADING_SHARE * last.targets:
            self._void_until = self._loaded_by(now.at)
        elif now.at > self._void_until + PERIOD_S / 2:
            self._admit(Window(busy, lag_s))
        self._compare(now.targets)
        if now.no_descriptor > last.no_descriptor:
            self._make_do(now.no_descriptor - last.no_descriptor)

    def _look(self) -> _Seen:
        counters = self._prober.sweep.counters
        return _Seen(
            self._prober.clock(),
            self._busy_s(),
            counters.started,
            counters.lag.total,
            counters.reasons[Reason.LOCAL_FDS],
            len(self._prober.sweep.scheduler),
        )

    def _loaded_by(self, now: float) -> float:
        """Return when a load that shows now is over: all that came was probed, and some more."""
        least, most = (now + n * PERIOD_S for n in (LOADED_WINDOWS, LOADED_WINDOWS_MAX))
        joined_by = self._prober.sweep.scheduler.joined_by
        return min(max(least, joined_by + PERIOD_S), most)

    def _measure(self, busy: float, probes: int, wall_s: float) -> None:
        vitals = self._prober.vitals
        vitals.busy, vitals.probes_per_s = busy, probes / wall_s
        if busy >= BUSY_MIN and probes:
            cost_s = busy * wall_s / probes
            known = self._cost_s or cost_s
            self._cost_s = known + COST_SHARE * (cost_s - known)
            vitals.possible_per_s = 1 / self._cost_s

    def _admit(self, window: Window) -> None:
        vitals, before = self._prober.vitals, self._admission
        cadences = self._census.last.cadences
        top = ceiling(cadences, limit=self._stretch_max, flush_s=self._flush_s)
        longest_s = max((interval_s for interval_s, _ in cadences), default=0.0)
        settle = min(SETTLE_MAX, ceil(longest_s * before.stretch / PERIOD_S))
        after = self._admission = before.after(window, ceiling=top, settle=settle)
        vitals.stretch, vitals.full = after.stretch, after.full
        self._prober.sweep.scheduler.stretch = after.stretch
        seen = {"busy": round(window.busy, 2), "lag_ms": round(window.lag_s * 1000, 1)}
        if after.stretch > before.stretch:
            _log.warning("intervals_stretched", by=after.stretch, before=before.stretch, **seen)
        elif after.stretch < before.stretch:
            _log.info("intervals_eased", by=after.stretch, before=before.stretch, **seen)
        if after.full and not before.full:
            _log.error("full", stretch=after.stretch, then="no new target is taken on")

    def _compare(self, targets: int) -> None:
        """Say when there are more targets than connections may be kept, and when no longer."""
        kept, scarce = self._pool.max_kept, targets > self._pool.max_kept
        if scarce == self._scarce:
            return
        self._scarce = scarce
        if scarce:
            needed = descriptors_for(targets)
            _log.warning("connections_scarce", targets=targets, kept=kept, ulimit_needed=needed)
        else:
            _log.info("connections_suffice", targets=targets, kept=kept)

    def _make_do(self, lacking: int) -> None:
        """Keep fewer connections: the kernel had no descriptor for a probe."""
        pool = self._pool
        fewer = int(min(pool.max_kept, pool.open_connections) * KEPT_SHARE)
        if fewer < pool.max_kept:
            pool.max_kept = fewer
            _log.warning("descriptors_lacking", probes=lacking, kept_at_most=fewer)
