"""What this machine could probe: measured with the prober's own parts, in a few seconds.

Called by `fleetpulse capacity`. A stand-in for a fleet runs in a process of its own; here run the
daemon's scheduler, sweep, pool, verdicts and status texts, once over kept connections and once
over new ones. CPU time is counted, not wall time, so a busy machine blurs the figures little. What
the bus costs on its own side, and what replicas far away cost in latency, it cannot know.
"""

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from time import monotonic, process_time
from typing import Final, Literal, NamedTuple

import anyio
import msgspec

from probe.check import StatusJudge
from probe.errors import SettingsError
from probe.http.policy import ConnectPolicy
from probe.http.pool import HttpPool
from probe.limits import RESERVED_FDS, Room, local_ports, make_room
from probe.responder import Answer
from probe.scheduler import Scheduler
from probe.status_text import StatusText
from probe.sweep import TICK_S, Sweep
from probe.wire import Keys, ReplicaId, ReplicaProbeTarget

HEADROOM: Final = 0.3
"""Of a core left free: a burst, a scrape, a neighbour."""
INTERVALS_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
TARGETS_MAX: Final = 2000
RATE_PER_S: Final = 4000.0
"""Low enough for a slow core, high enough that the probes outweigh the ticks."""
SETTLE_S: Final = 1.0
SECONDS_MAX: Final = 13.0
SECONDS_MIN: Final = 2 * SETTLE_S + 1.0
FIRST_ADDRESS: Final = int(IPv4Address("127.96.0.1"))
PAGE_BYTES: Final = resource.getpagesize()


class Regime(msgspec.Struct, frozen=True, kw_only=True):
    """What probes cost over one kind of connection."""

    connections: Literal["kept", "new"]
    cpu_us_per_probe: float
    probes_per_second: int
    """That one worker can make with 30 % of a core left free."""
    probes_measured: int
    failed: int
    """Of those: more than a few, and the figures say little."""


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas one worker can watch at one interval."""

    interval_s: float
    if_kept: int
    """Where replicas keep connections open; those beyond the descriptors are dialled each time."""
    if_closed: int
    """Where they close them between two probes, as many servers do after 5 s."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker can do on this machine."""

    regimes: tuple[Regime, ...]
    reach: tuple[Reach, ...]
    memory_bytes_per_target: int
    memory_available_mb: int
    descriptors: int
    connections_kept_max: int
    local_ports: int
    cpus: int
    headroom: float = HEADROOM


class _Cost(NamedTuple):
    regime: Regime
    bytes_per_target: int


async def measure(seconds: float, progress: Callable[[float], None]) -> Capacity:
    """Measure for about so many seconds; `progress` is told the share that is done.

    Raises:
        SettingsError: if this machine cannot be measured.
    """
    room = make_room(0, 0)
    count = min(TARGETS_MAX, room.max_open // 2)
    each_s = seconds / 2
    costs: list[_Cost] = []
    with _fleet() as port:
        for part, kept in enumerate((True, False)):
            half = partial(_half, progress, part / 2)
            costs.append(await _regime(count, port, each_s, kept=kept, progress=half))
    progress(1.0)
    return _capacity(costs, room)


def _half(progress: Callable[[float], None], start: float, done: float) -> None:
    progress(start + done / 2)


@contextmanager
def _fleet() -> Iterator[int]:
    """Start the stand-in for a fleet, and return its port."""
    command = [sys.executable, "-m", "probe.responder"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603 - ours
        try:
            line = process.stdout.readline() if process.stdout else b""
            if not line.strip().isdigit():
                raise SettingsError("the stand-in for a fleet did not start: see its error above")
            yield int(line)
        finally:
            process.kill()


async def _regime(
    count: int, port: int, seconds: float, *, kept: bool, progress: Callable[[float], None]
) -> _Cost:
    room = make_room(0, 0)
    judge = StatusJudge(ConnectPolicy.of(["127.0.0.0/8"]))
    wire = HttpPool(
        judge,
        loop=asyncio.get_running_loop(),
        max_open=room.max_open,
        max_kept=room.max_kept if kept else 0,
    )
    before_bytes = _resident_bytes()
    sweep = Sweep(Scheduler(), wire, clock=monotonic, max_in_flight=room.max_in_flight)
    sweep.replace(0, _targets(count, port), now=monotonic())
    drive = _Drive(sweep)
    try:
        await drive.run(SETTLE_S, lambda done: progress(done * SETTLE_S / seconds))
        start_cpu_s, start = process_time(), _counted(sweep)
        rest_s = seconds - SETTLE_S
        await drive.run(rest_s, lambda done: progress((SETTLE_S + done * rest_s) / seconds))
        cpu_s, end = process_time() - start_cpu_s, _counted(sweep)
        grown_bytes = _resident_bytes() - before_bytes
    finally:
        sweep.stop()
        await anyio.sleep(TICK_S)  # for what was closed to be gone before the next is measured
    probes = end[0] - start[0]
    if not probes:
        raise SettingsError("no probe ended: this machine is too busy to be measured now")
    cost_s = cpu_s / probes
    regime = Regime(
        connections="kept" if kept else "new",
        cpu_us_per_probe=round(cost_s * 1e6, 1),
        probes_per_second=int((1 - HEADROOM) / cost_s),
        probes_measured=probes,
        failed=end[1] - start[1],
    )
    return _Cost(regime, max(0, grown_bytes) // count)


class _Drive:
    """Ticks a sweep and writes its statuses down, as the daemon does."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._text = StatusText(Keys(), prober="capacity")

    async def run(self, seconds: float, progress: Callable[[float], None]) -> None:
        """Tick for so long."""
        sweep, began = self._sweep, monotonic()
        planned = now = began
        while now < began + seconds:
            await anyio.sleep(max(0.0, planned - now))
            now = monotonic()
            sweep.tick(now)
            for check in sweep.take_dirty(sweep.dirty):
                if check.outcome is not None:
                    self._text.entry(check, check.outcome, 0.0)
            planned = max(planned + TICK_S, now)
            progress(min(1.0, (now - began) / seconds))


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


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


def _available_bytes() -> int:
    """Return what the kernel says could be used without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise SettingsError("/proc/meminfo has no MemAvailable: this system cannot be measured")


def _capacity(costs: list[_Cost], room: Room) -> Capacity:
    kept, new = (cost.regime for cost in costs)
    per_target = max(1, *(cost.bytes_per_target for cost in costs))
    memory = int(_available_bytes() * (1 - HEADROOM)) // per_target
    reach = tuple(
        Reach(
            interval_s=each,
            if_kept=min(memory, _kept_and_dialled(each, kept, new, room.max_kept)),
            if_closed=min(memory, int(new.probes_per_second * each)),
        )
        for each in INTERVALS_S
    )
    return Capacity(
        regimes=(kept, new),
        reach=reach,
        memory_bytes_per_target=per_target,
        memory_available_mb=_available_bytes() // 1_000_000,
        descriptors=room.max_open + RESERVED_FDS,
        connections_kept_max=room.max_kept,
        local_ports=local_ports(),
        cpus=len(os.sched_getaffinity(0)),
    )


def _kept_and_dialled(interval_s: float, kept: Regime, new: Regime, max_kept: int) -> int:
    """Return how many replicas one core can watch when so many connections can be kept."""
    all_kept = kept.probes_per_second * interval_s
    if all_kept <= max_kept:
        return int(all_kept)
    return int(max_kept + (1 - max_kept / all_kept) * new.probes_per_second * interval_s)


def lines(found: Capacity) -> Iterator[str]:
    """Yield the findings for a person."""
    yield f"one worker, {found.headroom:.0%} of a core left free; cores here: {found.cpus}"
    yield ""
    yield f"{'':24}{'CPU a probe':>12}{'probes/s':>12}"
    for regime in found.regimes:
        name = f"{regime.connections} connections"
        cost = f"{regime.cpu_us_per_probe:.1f} us"
        yield f"{name:24}{cost:>12}{regime.probes_per_second:>12,}"
    yield ""
    yield f"{'replicas, every':24}" + "".join(f"{each.interval_s:>10g} s" for each in found.reach)
    for name, counts in (
        ("if they keep connections", [each.if_kept for each in found.reach]),
        ("if they close them", [each.if_closed for each in found.reach]),
    ):
        yield f"{name:24}" + "".join(f"{count:>12,}" for count in counts)
    yield ""
    kept, size = found.connections_kept_max, found.memory_bytes_per_target / 1000
    yield f"{found.descriptors:,} file descriptors: {kept:,} connections are kept, the rest dial"
    yield f"{size:.1f} KB of memory a replica; {found.memory_available_mb:,} MB are available"
    yield f"{found.local_ports:,} local ports for new connections to one address and port"
    failed = sum(regime.failed for regime in found.regimes)
    if failed:
        yield f"{failed} probes did not pass: the machine was too busy, measure again"
