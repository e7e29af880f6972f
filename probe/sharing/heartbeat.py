"""The heartbeat: tells the bus that this prober lives, how well, and what it covers.

Started by the daemon. The other probers share the work out by it, and the controller tells a
missing status from a missing prober; so what changes here is said at once.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import anyio

from probe.reasons import REASONS, OutcomeKind
from probe.stages import Prober, Ticker, repeat
from probe.wire import HEARTBEAT_TTL_S, ProberHeartbeat

_OWN_FAULTS: Final = tuple(
    reason for reason, entry in REASONS.items() if entry.kind is OutcomeKind.PROBE_ERROR
)


class Heartbeat:
    """Says every few seconds that this prober lives, and at once when what it covers changes."""

    def __init__(
        self,
        prober: Prober,
        ticker: Ticker,
        *,
        covered: Callable[[], tuple[int, ...]],
        version: str,
        period_s: float = 5.0,
        ttl_s: int = HEARTBEAT_TTL_S,
        shard: str = "",
    ) -> None:
        self._prober = prober
        self._ticker = ticker
        self._covered = covered
        self._version = version
        self._period_s = period_s
        self._ttl_s = ttl_s
        self._shard = shard
        self._news = anyio.Event()
        self._started = prober.clock()
        self._last = _Work(self._started)

    def hurry(self) -> None:
        """Write the next heartbeat now."""
        self._news.set()

    async def run(self) -> None:
        """Beat for ever."""
        await repeat(self._beat_and_wait, period_s=0.0, life=self._prober.lifeline)

    async def _beat_and_wait(self) -> None:
        self._news = anyio.Event()
        await self.step()
        with anyio.move_on_after(self._period_s):
            await self._news.wait()

    async def step(self) -> None:
        """Write one heartbeat."""
        prober, last = self._prober, self._last
        done = _work_of(prober)
        beat = ProberHeartbeat(
            instance=prober.instance,
            partitions=self._covered(),
            targets=len(prober.sweep.scheduler),
            probes_per_second=round(_share(done.started - last.started, done.at - last.at), 1),
            loop_lag_ms=round(self._ticker.lag_max_s * 1000, 3),
            version=self._version,
            started_at=round(prober.lifeline.bus_time(self._started), 3),
            at=0.0,  # the bus stamps it
            sick=prober.sick or "",
            interval_stretch=round(prober.vitals.stretch, 3),
            error_ratio=round(_share(done.errors - last.errors, done.ended - last.ended), 4),
            shard=self._shard,
        )
        with prober.lifeline.operation("beat"):
            await prober.bus.heartbeat(beat, ttl_s=self._ttl_s)
        self._last = done
        self._ticker.lag_max_s = 0.0


class _Work(NamedTuple):
    """What a prober has done up to a moment."""

    at: float
    started: int = 0
    ended: int = 0
    errors: int = 0


def _work_of(prober: Prober) -> _Work:
    counters = prober.sweep.counters
    reasons = counters.reasons
    errors = sum(reasons[reason] for reason in _OWN_FAULTS)
    return _Work(prober.clock(), counters.started, sum(reasons.values()), errors)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
