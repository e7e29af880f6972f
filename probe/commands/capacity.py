"""What this machine could probe: measured with the prober's own parts, in a few seconds.

Called by `fleetpulse capacity`. A stand-in for a fleet runs in a process of its own; here run the
daemon's scheduler, sweep, pool, verdicts and flusher, once over kept connections and once over
new ones. CPU time is counted, not wall time, so a busy machine blurs the figures little. What the
bus costs on its own side it cannot know, and how slow replicas are it has to be told.
"""

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from ipaddress import IPv4Address
from math import inf
from pathlib import Path
from time import monotonic, process_time
from typing import Final, NamedTuple

import anyio
from msgspec.structs import replace

from probe.bounds import HEADROOM, BusFigures, Capacity, Machine, Regime, capacity_of
from probe.check import StatusJudge
from probe.commands.stand_ins import stand_in_bus, stand_in_fleet
from probe.errors import BusUnreachable, SettingsError
from probe.flusher import Flusher
from probe.http.policy import ConnectPolicy
from probe.http.pool import HttpPool
from probe.layers import mask_url
from probe.ledger import Ledger, Lifeline
from probe.limits import RESERVED_FDS, Room, local_ports, make_room
from probe.parts import bus_of
from probe.schedule.scheduler import Scheduler
from probe.selfwatch.responder import Answer
from probe.settings import Settings
from probe.stages import Prober
from probe.status_text import StatusText
from probe.sweep import TICK_S, Sweep
from probe.wire import (
    Keys,
    OutcomeKind,
    Reason,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
)

TARGETS_MAX: Final = 2000
RATE_PER_S: Final = 4000.0
"""Low enough for a slow core, high enough that the probes outweigh the ticks."""
SETTLE_S: Final = 1.0
WRITES: Final = 10
SECONDS_MAX: Final = 13.0
SECONDS_MIN: Final = 2 * SETTLE_S + 1.0
FIRST_ADDRESS: Final = int(IPv4Address("127.96.0.1"))
PAGE_BYTES: Final = resource.getpagesize()
LATENCY_S: Final = 0.1
"""Of a reply, unless somebody knows better: a model server that is busy."""
KEY_PREFIX: Final = "capacity:"
"""Of what is written to the bus; all of it expires by itself within two minutes."""

_Progress = Callable[[float], None]


class _Cost(NamedTuple):
    regime: Regime
    bytes_per_target: int
    statuses_per_second: int
    """0 where there is no bus."""


class _Span(NamedTuple):
    """What a stretch of time came to."""

    cpu_s: float
    probes: int
    failed: int


class _Course(NamedTuple):
    """What is the same in both regimes."""

    room: Room
    targets: int
    port: int
    seconds: float
    settings: Settings | None
    """With the way to the bus; None where there is none."""
    ledger: Ledger


async def measure(
    seconds: float,
    progress: _Progress,
    *,
    settings: Settings | None = None,
    latency_s: float = LATENCY_S,
) -> Capacity:
    """Measure for about so many seconds; `progress` is told the share that is done.

    Statuses go to the bus of `settings`; without, to a server of our own if there is one.

    Raises:
        SettingsError: if this machine cannot be measured.
        BusError: if the bus cannot be used.
    """
    room, ledger = make_room(0, 0), Ledger()
    count = min(TARGETS_MAX, room.max_open // 2)
    costs: list[_Cost] = []
    with stand_in_fleet() as port, _way_to_a_bus(settings) as way:
        course = _Course(room, count, port, seconds / 2, way, ledger)
        for part, kept in enumerate((True, False)):
            half = partial(_half, progress, part / 2)
            costs.append(await _regime(course, half, kept=kept))
    progress(1.0)
    kept_cost, new_cost = costs
    return capacity_of(
        (kept_cost.regime, new_cost.regime),
        _machine(room),
        bus=None if way is None else _bus_figures(settings, ledger, costs),
        latency_s=latency_s,
        memory_bytes_per_target=max(1, kept_cost.bytes_per_target, new_cost.bytes_per_target),
    )


def _half(progress: _Progress, start: float, done: float) -> None:
    progress(start + done / 2)


@contextmanager
def _way_to_a_bus(settings: Settings | None) -> Iterator[Settings | None]:
    """Return settings that lead to a bus, and under keys that nobody reads."""
    if settings is not None:
        yield replace(settings, key_prefix=KEY_PREFIX)
        return
    with stand_in_bus() as url:
        yield None if url is None else Settings(redis_url=url, key_prefix=KEY_PREFIX)


async def _regime(course: _Course, progress: _Progress, *, kept: bool) -> _Cost:
    room, count = course.room, course.targets
    wire = HttpPool(
        StatusJudge(ConnectPolicy.of(["127.0.0.0/8"])),
        loop=asyncio.get_running_loop(),
        max_open=room.max_open,
        max_kept=room.max_kept if kept else 0,
    )
    before_bytes = _resident_bytes()
    sweep = Sweep(Scheduler(), wire, clock=monotonic, max_in_flight=room.max_in_flight)
    _watch(sweep, count, course.port)
    try:
        async with _flusher_of(sweep, course) as flusher:
            found = await _measured(sweep, flusher, course, progress)
            grown_bytes = _resident_bytes() - before_bytes
            written_per_s = 0 if flusher is None else await _writes_per_s(sweep, flusher)
    finally:
        sweep.stop()
        await anyio.sleep(TICK_S)  # for what was closed to be gone before the next is measured
    if not found.probes:
        raise SettingsError("no probe ended: this machine is too busy to be measured now")
    cost_s = found.cpu_s / found.probes
    regime = Regime(
        connections="kept" if kept else "new",
        cpu_us_per_probe=round(cost_s * 1e6, 1),
        probes_per_second=int((1 - HEADROOM) / cost_s),
        probes_measured=found.probes,
        failed=found.failed,
    )
    return _Cost(regime, max(0, grown_bytes) // count, written_per_s)


async def _measured(
    sweep: Sweep, flusher: Flusher | None, course: _Course, progress: _Progress
) -> _Span:
    text = StatusText(Keys(), prober="capacity")
    look = partial(_write_out, sweep, text) if flusher is None else flusher.look
    async with anyio.create_task_group() as group:
        if flusher is not None:
            group.start_soon(flusher.run)
        await _drive(sweep, look, SETTLE_S, partial(_share, progress, course, 0.0))
        start_cpu_s, start = process_time(), _counted(sweep)
        rest_s = course.seconds - SETTLE_S
        await _drive(sweep, look, rest_s, partial(_share, progress, course, SETTLE_S))
        cpu_s, end = process_time() - start_cpu_s, _counted(sweep)
        group.cancel_scope.cancel()
    return _Span(cpu_s, end[0] - start[0], end[1] - start[1])


def _share(progress: _Progress, course: _Course, before_s: float, done_s: float) -> None:
    progress(min(1.0, (before_s + done_s) / course.seconds))


@asynccontextmanager
async def _flusher_of(sweep: Sweep, course: _Course) -> AsyncIterator[Flusher | None]:
    """Return what writes statuses in the daemon, if there is where to."""
    settings = course.settings
    if settings is None:
        yield None
        return
    bus = bus_of(settings)
    lifeline = Lifeline(course.ledger, clock=monotonic, backoff_max_s=settings.bus_backoff_s)
    try:
        await bus.hello()
        yield Flusher(
            Prober("capacity", bus, sweep, lifeline, course.ledger, monotonic),
            Keys(settings.key_prefix),
            count=settings.flush_count,
            wait_s=settings.flush_s,
            late_s=settings.late_result_s,
        )
    finally:
        with anyio.CancelScope(shield=True):
            await bus.aclose()


def _write_out(sweep: Sweep, text: StatusText) -> None:
    for check in sweep.take_dirty(sweep.dirty):
        if check.outcome is not None:
            text.entry(check, check.outcome, 0.0)


async def _writes_per_s(sweep: Sweep, flusher: Flusher) -> int:
    """Write all statuses a few times over, with nothing else to do; the fastest counts."""
    checks, took_s = list(sweep.scheduler), inf
    for _ in range(WRITES):
        sweep.put_back(checks)
        began = monotonic()
        await flusher.flush()
        took_s = min(took_s, monotonic() - began)
    return int(len(checks) / took_s)


async def _drive(
    sweep: Sweep, look: Callable[[], None], seconds: float, progress: _Progress
) -> None:
    """Tick a sweep for so long, as the daemon does."""
    planned = now = began = monotonic()
    while now < began + seconds:
        await anyio.sleep(max(0.0, planned - now))
        now = monotonic()
        sweep.tick(now)
        look()
        planned = max(planned + TICK_S, now)
        progress(now - began)


def _watch(sweep: Sweep, count: int, port: int) -> None:
    """Watch a fleet that was healthy a while ago: no verdict changes, so nobody is told of any."""
    targets = _targets(count, port)
    seeds = {
        each.replica_id: ReplicaHealthStatus(
            replica_id=each.replica_id, healthy=True, outcome=OutcomeKind.PASSED, reason=Reason.OK
        )
        for each in targets
    }
    sweep.replace(0, targets, now=monotonic(), bus_now=0.0, seeds=seeds)


def _targets(count: int, port: int) -> list[ReplicaProbeTarget]:
    return [
        ReplicaProbeTarget(
            replica_id=ReplicaId(f"00000000-0000-4000-8000-{number:012x}"),
            replica_host=str(IPv4Address(FIRST_ADDRESS + number)),
            inference_port=port,
            health_path=Answer.GOOD.value,
            interval_s=count / RATE_PER_S,
        )
        for number in range(count)
    ]


def _counted(sweep: Sweep) -> tuple[int, int]:
    """Return how many probes ended, and how many of them did not pass."""
    reasons = sweep.counters.reasons
    ended = sum(reasons.values())
    return ended, ended - sweep.counters.passed


def _bus_figures(settings: Settings | None, ledger: Ledger, costs: list[_Cost]) -> BusFigures:
    if ledger.bus_errors or not ledger.statuses_written:
        raise BusUnreachable(
            f"{ledger.bus_errors} writes to the bus failed: these figures would mean nothing"
        )
    return BusFigures(
        url="" if settings is None else mask_url(settings.redis_url),
        statuses_written=ledger.statuses_written,
        statuses_per_second=max(cost.statuses_per_second for cost in costs),
    )


def _machine(room: Room) -> Machine:
    return Machine(
        memory_available_mb=_available_bytes() // 1_000_000,
        descriptors=room.max_open + RESERVED_FDS,
        connections_kept_max=room.max_kept,
        in_flight_max=room.max_in_flight,
        local_ports=local_ports(),
        cpus=len(os.sched_getaffinity(0)),
    )


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


def _available_bytes() -> int:
    """Return what the kernel says could be used without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise SettingsError("/proc/meminfo has no MemAvailable: this system cannot be measured")
