"""The prober's shell: what is awaited lives here, what is decided does not.

Started by the daemon, one task each. Refresher: targets from the bus to the sweep. Ticker: time
to the sweep. Flusher: results from the sweep to the bus. While the bus is away all of it goes on
from memory, and says so in the metrics.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import inf
from typing import Final, Protocol

import anyio
import anyio.lowlevel
import structlog
from msgspec.structs import replace

from probe.bus import Poll
from probe.bus_targets import Targets
from probe.bus_writes import Entries
from probe.errors import BusError
from probe.ledger import Ledger, Lifeline, bump, observe
from probe.refresh import Refresh
from probe.sweep import TICK_S, Sweep
from probe.vitals import Vitals
from probe.wire import (
    HealthChange,
    ProberHeartbeat,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
)

RESTART_PAUSE_S: Final = 1.0
OLD_TIME_S: Final = 1.0
"""Who was stopped for so long while the bus told the time would go wrong by as much."""

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


class Refresher:
    """Brings the bus's targets to the sweep: what moved at once, everything in rotation."""

    def __init__(
        self,
        prober: Prober,
        refresh: Refresh,
        *,
        poll_s: float,
        settle: Settle | None = None,
        covers: Callable[[], None] = lambda: None,
        probe_at_once: bool = False,
    ) -> None:
        """Refresh every `poll_s`; `settle` decides before each what to own, `covers` hears of it.

        With `probe_at_once` even a target that another prober has just visited is probed within
        a second; its streak is taken over all the same.
        """
        self.loaded = anyio.Event()
        """Set once everything was read."""
        self._probe_at_once = probe_at_once
        self._prober = prober
        self._refresh = refresh
        self._poll_s = poll_s
        self._settle = settle
        self._covers = covers
        self._covered: tuple[int, ...] = ()
        self._doubted = 0
        self._told_time = False

    async def run(self) -> None:
        """Refresh for ever."""
        await repeat(self.step, period_s=self._poll_s, life=self._prober.lifeline)

    async def step(self) -> None:
        """Look at the bus once; raises `BusError` with nothing changed by what was not read."""
        bus, life, clock = self._prober.bus, self._prober.lifeline, self._prober.clock
        self._doubt_after_a_standstill()
        poll = await self._poll()
        if self._settle is not None:
            await self._settle(poll)
        wanted = self._refresh.wanted(poll, clock())
        with life.operation("read_targets"):
            found = await bus.read_targets(wanted, poll.time_s)
        contents = self._refresh.admitted(found, clock())
        unknown = [
            target.replica_id
            for partition, content in contents.items()
            for target in content
            if not self._refresh.knows(partition, target.replica_id)
        ]
        seeds = await self._read_seeds(unknown)
        if self._prober.vitals.full:
            contents = self._without(contents, set(unknown) - set(seeds))
        for partition, content in contents.items():
            now = clock()
            if self._refresh.doubted(partition):
                self._prober.sweep.replace(partition, (), now=now)
            self._prober.sweep.replace(
                partition, content, now=now, bus_now=life.bus_time(now), seeds=seeds
            )
            self._refresh.took(partition, content, poll)
            await anyio.lowlevel.checkpoint()  # a partition of 100k targets takes milliseconds
        self._prober.ridden_out = self._doubted
        self.loaded.set()
        self._say_what_is_covered()

    def _doubt_after_a_standstill(self) -> None:
        self._prober.runs(self._prober.clock())
        if self._prober.standstills > self._doubted:
            self._refresh.doubt()
            self._doubted = self._prober.standstills

    async def _poll(self) -> Poll:
        """Look what moved, and set the bus's clock."""
        life, clock = self._prober.lifeline, self._prober.clock
        asked_at = clock()
        with life.operation("poll"):
            poll = await self._prober.bus.poll()
        if clock() - asked_at < OLD_TIME_S or not self._told_time:
            life.heard(poll.time_s, clock())
            self._told_time = True
        return poll

    async def _read_seeds(
        self, unknown: Sequence[ReplicaId]
    ) -> dict[ReplicaId, ReplicaHealthStatus]:
        """Read what is known of targets that are new here."""
        if not unknown:
            return {}
        with self._prober.lifeline.operation("read_statuses"):
            seeds = await self._prober.bus.read_statuses(unknown)
        if self._probe_at_once:
            return {key: replace(seed, last_check=0.0) for key, seed in seeds.items()}
        return seeds

    def _without(
        self, contents: Mapping[int, Sequence[ReplicaProbeTarget]], new: AbstractSet[ReplicaId]
    ) -> Mapping[int, Sequence[ReplicaProbeTarget]]:
        """Leave out targets that nobody has a verdict on: there is no time to probe them.

        They are asked for again with the next full refresh; whoever has a verdict is taken on,
        for it may have been left behind by a prober that is gone.
        """
        if new:
            bump(self._prober.ledger.rejected, "full", len(new))
        return {
            partition: [target for target in content if target.replica_id not in new]
            for partition, content in contents.items()
        }

    def _say_what_is_covered(self) -> None:
        refresh, vitals = self._refresh, self._prober.vitals
        vitals.partitions_owned = len(refresh.partitions)
        vitals.targets_adopted = sum(len(refresh.adopted(p)) for p in refresh.adoptions)
        if self._covered != refresh.covered:
            self._covered = refresh.covered
            self._covers()


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
