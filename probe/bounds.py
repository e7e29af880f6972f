"""How many replicas one worker can watch, by what was measured: the first bound that is met.

Pure: `probe.commands.capacity` measures, the command prints.
"""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

HEADROOM: Final = 0.3
"""Of a core left free: a burst, a scrape, a neighbour."""
INTERVALS_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)


class Regime(msgspec.Struct, frozen=True, kw_only=True):
    """What probes cost over one kind of connection, their statuses on the bus included."""

    connections: Literal["kept", "new"]
    cpu_us_per_probe: float
    probes_per_second: int
    """That one worker can make with 30 % of a core left free."""
    probes_measured: int
    failed: int
    """Of those: more than a few, and the figures say little."""


class BusFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What writing the statuses came to; its CPU is in that of the probes."""

    url: str
    """Without its password; empty for a server of our own."""
    statuses_written: int
    statuses_per_second: int
    """That this way to the bus bears, one write after the other as the daemon does."""


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas one worker can watch at one interval."""

    interval_s: float
    if_kept: int
    """Where replicas keep connections open; those beyond the descriptors are dialled each time."""
    if_closed: int
    """Where they close them between two probes, as many servers do after 5 s."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine has, for one worker."""

    memory_available_mb: int
    descriptors: int
    connections_kept_max: int
    in_flight_max: int
    local_ports: int
    cpus: int


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker can do on this machine."""

    regimes: tuple[Regime, ...]
    reach: tuple[Reach, ...]
    bus: BusFigures | None
    """None where there was none: statuses were written out, and not sent."""
    latency_s: float
    """Of a reply, on average: assumed, not measured."""
    memory_bytes_per_target: int
    machine: Machine
    headroom: float = HEADROOM


def capacity_of(
    regimes: tuple[Regime, Regime],
    machine: Machine,
    *,
    bus: BusFigures | None,
    latency_s: float,
    memory_bytes_per_target: int,
) -> Capacity:
    """Find how many replicas are too many, at each interval and in both regimes."""
    kept, new = regimes
    memory_bytes = machine.memory_available_mb * 1_000_000 * (1 - HEADROOM)
    in_memory = int(memory_bytes / memory_bytes_per_target)

    def bounded(count: float, interval_s: float) -> int:
        per_second = machine.in_flight_max / latency_s
        if bus is not None:
            per_second = min(per_second, bus.statuses_per_second)
        return int(min(count, in_memory, per_second * interval_s))

    return Capacity(
        regimes=regimes,
        reach=tuple(
            Reach(
                interval_s=each,
                if_kept=bounded(kept_and_dialled(each, kept, new, machine), each),
                if_closed=bounded(new.probes_per_second * each, each),
            )
            for each in INTERVALS_S
        ),
        bus=bus,
        latency_s=latency_s,
        memory_bytes_per_target=memory_bytes_per_target,
        machine=machine,
    )


def kept_and_dialled(interval_s: float, kept: Regime, new: Regime, machine: Machine) -> float:
    """Return how many replicas one core can watch when so many connections can be kept."""
    all_kept = kept.probes_per_second * interval_s
    max_kept = machine.connections_kept_max
    if all_kept <= max_kept:
        return all_kept
    return max_kept + (1 - max_kept / all_kept) * new.probes_per_second * interval_s


def lines(found: Capacity) -> Iterator[str]:
    """Yield the findings for a person."""
    machine = found.machine
    yield f"one worker, {found.headroom:.0%} of a core left free; cores here: {machine.cpus}"
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
    yield from _bounds(found, machine)
    failed = sum(regime.failed for regime in found.regimes)
    if failed:
        yield f"{failed} probes did not pass: the machine was too busy, measure again"


def _bounds(found: Capacity, machine: Machine) -> Iterator[str]:
    most = int(machine.in_flight_max / found.latency_s)
    yield (
        f"{machine.in_flight_max:,} probes in flight: {most:,} a second, if a reply takes "
        f"{found.latency_s:g} s on average (--latency)"
    )
    bus = found.bus
    if bus is None:
        yield "no bus: statuses were written out, not sent; name one with --redis"
    else:
        where = bus.url or "a Valkey of our own"
        yield f"statuses were written to {where}: up to {bus.statuses_per_second:,} a second"
    kept, size = machine.connections_kept_max, found.memory_bytes_per_target / 1000
    yield f"{machine.descriptors:,} file descriptors: {kept:,} connections are kept, the rest dial"
    yield f"{size:.1f} KB of memory a replica; {machine.memory_available_mb:,} MB are available"
    yield f"{machine.local_ports:,} local ports for new connections to one address and port"
