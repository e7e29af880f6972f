"""The prober's shell: what is awaited lives here, what is decided does not.

What the stages share, and the ticker: time to the sweep. The refresher brings targets from the
bus to the sweep, the flusher results from the sweep to the bus, each in a module of its own and
one task each of the daemon. While the bus is away all of it goes on from memory, and says so in
the metrics.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, Protocol

import anyio
import structlog

from probe.bus.prober import Poll
from probe.bus.targets import Targets
from probe.bus.writes import Entries
from probe.errors import BusError
from probe.ledger import Ledger, Lifeline, bump, observe
from probe.sweep import TICK_S, Sweep
from probe.vitals import Vitals
from probe.wire import (
    HealthChange,
    ProberHeartbeat,
    ReplicaHealthStatus,
    ReplicaId,
)

RESTART_PAUSE_S: Final = 1.0

_log = structlog.get_logger("probe.stages")

Clock = Callable[[], float]
"""Monotonic seconds."""
Settle = Callable[[Poll], Awaitable[None]]
"""Decides what to own, before anything is read."""


class Bus(Protocol):
    """What the stages ask of the bus; every method raises `BusError` and nothing else."""

    async def poll(self) -> Poll:
        """Read versions, epoch and time."""

    async def read_targets(self, partitions: Iterable[int], time_s: float) -> Targets:
        """Read whole partitions."""

    async def read_statuses(
        self, replica_ids: Iterable[ReplicaId]
    ) -> dict[ReplicaId, ReplicaHealthStatus]:
        """Read what was last found; absent ones are left out."""

    async def write_statuses(self, build: Callable[[], Entries]) -> None:
        """Write what `build` returns when all is ready; the same twice is harmless."""

    async def announce(self, changes: Sequence[HealthChange]) -> None:
        """Append verdict changes to the stream."""

    async def heartbeat(self, beat: ProberHeartbeat, *, ttl_s: int) -> float:
        """Write a heartbeat."""

    async def read_probers(self, time_s: float) -> dict[str, ProberHeartbeat]:
        """Read the heartbeats of the probers that live."""

    async def read_lives(self, replica_ids: Iterable[ReplicaId]) -> dict[ReplicaId, float]:
        """Read how many seconds statuses have left to live; absent ones are left out."""


@dataclass(slots=True)
class Prober:
    """What all stages share."""

    instance: str
    bus: Bus
    sweep: Sweep
    lifeline: Lifeline
    ledger: Ledger
    clock: Clock
    vitals: Vitals = field(default_factory=Vitals)
    sick: str | None = None
    """Why it does not trust itself: then it writes no status and owns no partition (S7)."""
    standstill_s: float = 5.0
    """Who stood still for longer was perhaps replaced: nothing known from before is written."""
    standstills: int = 0
    ridden_out: int = 0
    """After how many of them ownership, targets and statuses have been read again."""
    _ran_at: float = field(default=inf, init=False)

    @property
    def outdated(self) -> bool:
        """Whether it stood still, and what it knows is from before."""
        return self.ridden_out < self.standstills

    @property
    def muted(self) -> bool:
        """Whether what it knows must not be written: it is sick, or stood still."""
        return self.sick is not None or self.outdated

    def runs(self, now: float) -> None:
        """Note that this process runs, and whether it has not for long (stopped, or starved).

        Called wherever something may be written or believed: after a stop the loop may come to
        any of these places first.
        """
        still_s = now - self._ran_at
        self._ran_at = now
        if still_s > self.standstill_s:
            self.standstills += 1
            _log.warning("stood_still", seconds=round(still_s, 1), then="reading everything again")


async def supervise(name: str, stage: Callable[[], Awaitable[None]], ledger: Ledger) -> None:
    """Run a stage for ever: a fault in one is logged, counted, and costs the others nothing."""
    while True:
        try:
            await stage()
        except Exception:  # noqa: BLE001 - a fault nobody foresaw is exactly what this is for
            bump(ledger.restarts, name)
            _log.exception("stage_failed", stage=name, again_in_s=RESTART_PAUSE_S)
            await anyio.sleep(RESTART_PAUSE_S)


async def repeat(step: Callable[[], Awaitable[None]], *, period_s: float, life: Lifeline) -> None:
    """Do a step every `period_s`; while the bus is away, as often as the back-off says."""
    failures = 0
    while True:
        try:
            await step()
        except BusError:
            await anyio.sleep(life.backoff_s(failures))
            failures += 1
        else:
            failures = 0
            await anyio.sleep(period_s)


class Ticker:
    """Gives the sweep the time, every 10 ms; late ticks are not made up for."""

    def __init__(self, prober: Prober, *, after: Callable[[], None]) -> None:
        self.ticked_at = prober.clock()
        self.lag_max_s = 0.0
        """The worst since somebody last set it to zero."""
        self._prober = prober
        self._after = after

    async def run(self) -> None:
        """Tick for ever."""
        clock = self._prober.clock
        planned = clock() + TICK_S
        while True:
            await anyio.sleep(max(0.0, planned - clock()))
            now = clock()
            self.tick(now, late_s=max(0.0, now - planned))
            planned = max(planned + TICK_S, now)

    def tick(self, now: float, *, late_s: float) -> None:
        """Tick once, `late_s` after it was planned."""
        self._prober.runs(now)
        observe(self._prober.ledger.loop_lag, late_s)
        self.lag_max_s = max(self.lag_max_s, late_s)
        self.ticked_at = now
        if not self._prober.outdated:  # else what it starts would be a crowd, and void
            self._prober.sweep.tick(now)
        self._after()
