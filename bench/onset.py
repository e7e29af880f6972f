"""The scenes that are about moments: a start, a restart, a new target, a change of verdict.

Moments are read off two independent clocks of one kind: the farm's, for when a probe arrived, and
ours, for when we wrote to the bus or saw it change (both are CLOCK_MONOTONIC).
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final

from bench.build import Programs
from bench.case import Case, RoundFailed, Values
from bench.farm import Farm, fleet, target
from bench.machine import cores
from bench.peers.ours import Bus, Daemon, bus_in, daemon_on
from bench.running import Place
from bench.steady import Pace, field_of, until_probed
from probe.wire import ReplicaProbeTarget

_NEW_TARGETS: Final = 30
_APART_S: Final = 0.0371
"""Between two new targets: in step with neither the poll of the bus nor the tick."""
_SIGHT_S: Final = 0.002
"""How finely the bus is read while something is awaited."""
_PATIENCE_S: Final = 20.0


def pick_up(case: Case, programs: Programs, directory: Path, pace: Pace) -> Values:
    """Measure how soon a new target is probed, and a changed verdict is on the bus.

    Raises:
        RoundFailed: if one of them never is.
    """
    with field_of(case, programs, directory) as place, bus_in(directory) as bus:
        targets = fleet(case.targets, place.farm.port, interval_s=case.interval_s)
        bus.write(targets)
        with daemon_on(place, bus, targets) as daemon:
            until_probed(place.farm, case.targets, daemon)
            time.sleep(pace.warm_up_s)
            with cores(prober=False):
                waits = _picked_up(place, bus, daemon)
                delays = _turned(place.farm, bus, daemon, targets[:_NEW_TARGETS])
    return {
        "pick_up_s": max(waits),
        "pick_up_median_s": median(waits),
        "verdict_s": max(delays),
        "verdict_median_s": median(delays),
    }


def start(case: Case, programs: Programs, directory: Path, pace: Pace) -> Values:
    """Measure the first sweep from exec on, and how even a restart is.

    Raises:
        RoundFailed: if not every target gets its status.
    """
    with (
        field_of(case, programs, directory) as place,
        bus_in(directory) as bus,
        ExitStack() as life,
    ):
        targets = fleet(case.targets, place.farm.port, interval_s=case.interval_s)
        bus.write(targets)
        keys = bus.keys()
        began = time.monotonic()
        daemon = life.enter_context(daemon_on(place, bus, targets))
        with cores(prober=False):
            _until(lambda: bus.keys() >= keys + len(targets), daemon, "a target has no status")
            _until(lambda: all(bus.statuses(targets)), daemon, "a target has no status")
        first_sweep_s = time.monotonic() - began
        time.sleep(pace.warm_up_s)
        life.close()
        return {
            "first_sweep_s": first_sweep_s,
            "restart_fullest_100ms": _restarted(place, bus, targets, pace),
        }


def _restarted(place: Place, bus: Bus, targets: Sequence[ReplicaProbeTarget], pace: Pace) -> float:
    """Start it again; return its fullest 100 ms over the mean, from its first probe on."""
    farm = place.farm
    probes = farm.mark(place.case.interval_s).probes
    with daemon_on(place, bus, list(targets)) as daemon:
        _until(lambda: farm.counts().probes > probes, daemon, "nothing was probed again")
        time.sleep(max(pace.seconds, 2 * place.case.interval_s))
        return farm.counts().fullest_100ms / (place.case.wanted_per_s / 10)


def _picked_up(place: Place, bus: Bus, daemon: Daemon) -> list[float]:
    """Write new targets one by one; return how long each waited for its first probe."""
    first = place.case.targets + 1
    written: dict[int, float] = {}
    for number in range(first, first + _NEW_TARGETS):
        bus.write([target(number, place.farm.port, interval_s=place.case.interval_s)])
        written[number] = time.monotonic()
        time.sleep(_APART_S)
    _until(
        lambda: all(place.farm.seen(number).count for number in written),
        daemon,
        "a new target was never probed",
    )
    return [place.farm.seen(number).first - at for number, at in written.items()]


def _turned(
    farm: Farm, bus: Bus, daemon: Daemon, targets: Sequence[ReplicaProbeTarget]
) -> list[float]:
    """Let targets fail; return how long after its probe each one's verdict was on the bus."""
    farm.answer("fail", first=1, last=len(targets))
    seen: dict[int, float] = {}

    def all_seen() -> bool:
        now = time.monotonic()
        for number, status in enumerate(bus.statuses(targets), 1):
            if number not in seen and status is not None and not status.healthy:
                seen[number] = now
        return len(seen) == len(targets)

    _until(all_seen, daemon, "a verdict never changed on the bus")
    return [at - farm.seen(number).turned for number, at in seen.items()]


def _until(holds: Callable[[], bool], daemon: Daemon, otherwise: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        daemon.check()
        if time.monotonic() > deadline:
            raise RoundFailed(f"{otherwise}, in {_PATIENCE_S:g} s")
        time.sleep(_SIGHT_S)
