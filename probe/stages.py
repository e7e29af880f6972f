"""The prober's shell: what is awaited lives here, what is decided does not.

Started by the daemon, one task each. Refresher: targets from the bus to the sweep. Ticker: time
to the sweep. Flusher: results from the sweep to the bus. Heartbeat: that we live. While the bus
is away all of it goes on from memory, and says so in the metrics.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

import anyio
import anyio.lowlevel
import structlog
from msgspec.structs import replace

from probe.bus import Poll
from probe.bus_targets import Targets
from probe.bus_writes import SetEx
from probe.errors import BusError
from probe.ledger import Ledger, Lifeline, bump, observe
from probe.reasons import REASONS, OutcomeKind
from probe.refresh import Refresh
from probe.report import status_of
from probe.scheduler import Check
from probe.sweep import TICK_S, TRANSITIONS_MAX, Sweep
from probe.vitals import Vitals
from probe.wire import (
    HealthChange,
    Keys,
    ProberHeartbeat,
    ReplicaHealthStatus,
    ReplicaId,
    encode,
    status_ttl_s,
)

WRITE_COUNT: Final = 1000
"""Statuses in one write at most: what the bus takes in one command."""
RESTART_PAUSE_S: Final = 1.0
LOGGED_CHANGES_MAX: Final = 20
"""Lines per flush: when a whole fleet changes, 10,000 lines would hold the loop for 0.3 s."""
_OWN_FAULTS: Final = tuple(
    reason for reason, entry in REASONS.items() if entry.kind is OutcomeKind.PROBE_ERROR
)

_log = structlog.get_logger("probe.stages")

Clock = Callable[[], float]
"""Monotonic seconds."""


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

    async def write_statuses(self, items: Sequence[SetEx]) -> float:
        """Write key, value, time to live; the same ones twice is harmless."""

    async def announce(self, changes: Sequence[HealthChange]) -> None:
        """Append verdict changes to the stream."""

    async def heartbeat(self, beat: ProberHeartbeat) -> float:
        """Write a heartbeat."""


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
        self, prober: Prober, refresh: Refresh, *, poll_s: float, probe_at_once: bool = False
    ) -> None:
        """Refresh every `poll_s`.

        With `probe_at_once` even a target that another prober has just visited is probed within
        a second; its streak is taken over all the same.
        """
        self.loaded = anyio.Event()
        """Set once everything was read."""
        self._probe_at_once = probe_at_once
        self._prober = prober
        self._refresh = refresh
        self._poll_s = poll_s

    async def run(self) -> None:
        """Refresh for ever."""
        await repeat(self.step, period_s=self._poll_s, life=self._prober.lifeline)

    async def step(self) -> None:
        """Look at the bus once; raises `BusError` with nothing changed by what was not read."""
        bus, life, clock = self._prober.bus, self._prober.lifeline, self._prober.clock
        with life.operation("poll"):
            poll = await bus.poll()
        life.heard(poll.time_s, clock())
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
        seeds: dict[ReplicaId, ReplicaHealthStatus] = {}
        if unknown:
            with life.operation("read_statuses"):
                seeds = await bus.read_statuses(unknown)
        if self._probe_at_once:
            seeds = {key: replace(seed, last_check=0.0) for key, seed in seeds.items()}
        for partition, content in contents.items():
            now = clock()
            self._prober.sweep.replace(
                partition, content, now=now, bus_now=life.bus_time(now), seeds=seeds
            )
            self._refresh.took(partition, content, poll)
            await anyio.lowlevel.checkpoint()  # a partition of 100k targets takes milliseconds
        self.loaded.set()


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
        observe(self._prober.ledger.loop_lag, late_s)
        self.lag_max_s = max(self.lag_max_s, late_s)
        self.ticked_at = now
        self._prober.sweep.tick(now)
        self._after()


class Flusher:
    """Writes results to the bus: `count` at once, or what there is after `wait_s`."""

    def __init__(
        self, prober: Prober, keys: Keys, *, count: int, wait_s: float, late_s: float
    ) -> None:
        self._prober = prober
        self._keys = keys
        self._count = count
        self._wait_s = wait_s
        self._late_s = late_s
        self._ttl_s = lru_cache(status_ttl_s)  # a fleet has few intervals
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
        await self.flush()

    async def flush(self) -> None:
        """Write what waits now; on `BusError` the newest result of each check still waits."""
        prober, sweep = self._prober, self._prober.sweep
        if prober.sick is not None:
            self._forget()
            return
        self._take_changes()
        waiting = sweep.dirty
        while waiting > 0:
            checks = sweep.take_dirty(min(waiting, WRITE_COUNT))
            waiting -= WRITE_COUNT
            items = self._items(checks)
            if not items:
                continue
            try:
                with prober.lifeline.operation("write_statuses"):
                    await prober.bus.write_statuses(items)
            except BaseException:  # cancelled, too: written twice is harmless, lost is not
                sweep.put_back(checks)
                raise
            prober.ledger.statuses_written += len(items)
        if self._changes:  # after the statuses: who is woken by a change reads the new status
            with prober.lifeline.operation("announce"):
                await prober.bus.announce(list(self._changes))
            self._changes.clear()

    def _forget(self) -> None:
        """Drop what waits: a sick prober's word is void, later as well."""
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

    def _items(self, checks: Sequence[Check]) -> list[SetEx]:
        """Encode the statuses of `checks`, less those whose results are too old to be news."""
        ledger, instance = self._prober.ledger, self._prober.instance
        status_key, ttl_s, note_phases = self._keys.status, self._ttl_s, ledger.note_phases
        now, offset_s = self._prober.clock(), self._prober.lifeline.offset_s
        oldest, at = now - self._late_s, now + offset_s
        items: list[SetEx] = []
        for check in checks:
            outcome = check.outcome
            if outcome is None or check.removed:
                continue
            if check.ended_at < oldest:
                ledger.results_dropped += 1
                continue
            note_phases(check.replica_id, outcome, at)
            status = status_of(check, outcome, offset_s=offset_s, prober=instance)
            items.append((status_key(check.replica_id), encode(status), ttl_s(check.interval_s)))
        return items


class Heartbeat:
    """Says every 5 s that this prober lives, and how well."""

    def __init__(
        self, prober: Prober, ticker: Ticker, *, partitions: tuple[int, ...], version: str
    ) -> None:
        self._prober = prober
        self._ticker = ticker
        self._partitions = partitions
        self._version = version
        self._started = prober.clock()
        self._last = _Work(self._started)

    async def step(self) -> None:
        """Write one heartbeat."""
        prober, last = self._prober, self._last
        done = _work_of(prober)
        beat = ProberHeartbeat(
            instance=prober.instance,
            partitions=self._partitions,
            targets=len(prober.sweep.scheduler),
            probes_per_second=round(_share(done.started - last.started, done.at - last.at), 1),
            loop_lag_ms=round(self._ticker.lag_max_s * 1000, 3),
            version=self._version,
            started_at=round(prober.lifeline.bus_time(self._started), 3),
            at=0.0,  # the bus stamps it
            sick=prober.sick or "",
            interval_stretch=round(prober.vitals.stretch, 3),
            error_ratio=round(_share(done.errors - last.errors, done.ended - last.ended), 4),
        )
        with prober.lifeline.operation("beat"):
            await prober.bus.heartbeat(beat)
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
