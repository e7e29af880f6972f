"""How many replicas one worker can watch: the first bound that is met."""

import msgspec
import pytest

from probe.bounds import BusFigures, Capacity, Machine, Regime, capacity_of, kept_and_dialled, lines

MACHINE = Machine(
    memory_available_mb=1000,
    descriptors=20_000,
    connections_kept_max=50_000,
    in_flight_max=100_000,
    local_ports=28_232,
    cpus=2,
)


def regime(connections: str, per_second: int) -> Regime:
    figures = {"connections": connections, "probes_per_second": per_second}
    others = {"cpu_us_per_probe": 0.7e6 / per_second, "probes_measured": 1000, "failed": 0}
    return msgspec.convert({**figures, **others}, Regime)


KEPT, NEW = regime("kept", 40_000), regime("new", 10_000)


def capacity(
    machine: Machine = MACHINE,
    *,
    new: Regime = NEW,
    bus_per_second: int | None = None,
    latency_s: float = 0.1,
    memory_bytes_per_target: int = 700,
) -> Capacity:
    bus = None
    if bus_per_second is not None:
        bus = BusFigures(url="", statuses_written=1, statuses_per_second=bus_per_second)
    return capacity_of(
        (KEPT, new),
        machine,
        bus=bus,
        latency_s=latency_s,
        memory_bytes_per_target=memory_bytes_per_target,
    )


def reach(found: Capacity) -> tuple[int, int]:
    """Return how many replicas at 2 s: kept, closed."""
    (at_two,) = (each for each in found.reach if each.interval_s == 2.0)
    return at_two.if_kept, at_two.if_closed


@pytest.mark.parametrize(("max_kept", "count"), [(50_000, 40_000), (20_000, 25_000), (0, 10_000)])
def test_what_cannot_be_kept_is_dialled(max_kept: int, count: int) -> None:
    machine = msgspec.structs.replace(MACHINE, connections_kept_max=max_kept)
    assert kept_and_dialled(1.0, KEPT, NEW, machine) == count


def test_where_nothing_else_bounds_it_the_cpu_does() -> None:
    machine = msgspec.structs.replace(MACHINE, connections_kept_max=80_000)
    assert reach(capacity(machine)) == (80_000, 20_000)


def test_memory_is_a_bound_and_the_headroom_is_left_there_too() -> None:
    assert reach(capacity(memory_bytes_per_target=70_000)) == (10_000, 10_000)


def test_slow_replicas_take_up_the_places_in_flight() -> None:
    """1,000 places and replies of half a second: 2,000 probes a second, whatever the CPU could."""
    machine = msgspec.structs.replace(MACHINE, in_flight_max=1000)
    assert reach(capacity(machine, latency_s=0.5)) == (4000, 4000)


def test_a_slow_bus_is_a_bound() -> None:
    assert reach(capacity(bus_per_second=3000)) == (6000, 6000)


def test_a_person_reads_a_table_its_assumption_and_is_told_of_a_bad_measurement() -> None:
    doubtful = msgspec.structs.replace(NEW, failed=3)
    text = "\n".join(lines(capacity(new=doubtful, bus_per_second=160_000)))
    assert "40,000" in text
    assert "50,000 connections are kept, the rest dial" in text
    assert "1,000,000 a second, if a reply takes 0.1 s on average (--latency)" in text
    assert "a Valkey of our own: up to 160,000 a second" in text
    assert "3 probes did not pass" in text
    assert "no bus" in "\n".join(lines(capacity()))
