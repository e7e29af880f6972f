"""One round of one prober: started, left to settle, and then watched from outside.

All are watched in the same way: CPU of the process tree over probes as the farm counted them.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.build import Programs
from bench.case import Case, Mix, Regime, RoundFailed, Values
from bench.farm import ONE_IN, Farm
from bench.machine import need_files, usage
from bench.peers import PEERS
from bench.running import Place, Running

_READY_S: Final = 120.0
"""Ten thousand targets are loaded and probed once within 3 s, a hundred thousand within 60 s."""
_POLL_S: Final = 0.05
_FLAPS: Final = 12
"""Intervals until a target that flaps has been found to do so."""
_KINDS: Final = {Mix.PASS: "pass", Mix.FAIL: "fail", Mix.FLAP: "flap", Mix.FAULTS: "pass"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things are watched."""

    warm_up_s: float
    seconds: float


@contextmanager
def field_of(case: Case, programs: Programs, directory: Path) -> Iterator[Place]:
    """Run the farm of a case, its targets told how to answer.

    Raises:
        Missing: if this machine cannot hold the connections.
    """
    if case.regime is Regime.KEPT:
        need_files(case.targets)
    directory.mkdir()
    with Farm(programs.farm, closes=case.regime is Regime.NEW) as farm:
        farm.answer(_KINDS[case.mix], first=1, last=case.targets)
        if case.mix is Mix.FAULTS:
            farm.answer("hang", first=2, last=case.targets, step=ONE_IN)
        yield Place(case, farm, programs, directory)


def steady(case: Case, programs: Programs, directory: Path, pace: Pace) -> Values:
    """Measure what a prober costs once it runs.

    Raises:
        RoundFailed: if it does not do its work.
    """
    with (
        field_of(case, programs, directory) as place,
        PEERS[case.prober].run(place) as running,
    ):
        until_probed(place.farm, _reachable(case), running)
        time.sleep(max(pace.warm_up_s, _settling(case) * case.interval_s))
        seconds = max(pace.seconds, case.interval_s)
        found = watched(running, place.farm, case, seconds=seconds)
        running.check()
        running.verify()
        return found


def until_probed(farm: Farm, times: int, running: Running) -> None:
    """Wait until the farm has seen that many probes, and the prober says that it is settled.

    Raises:
        RoundFailed: if the prober ends, or takes longer than is sane.
    """
    deadline = time.monotonic() + _READY_S
    while farm.counts().probes < times or not running.ready():
        running.check()
        if time.monotonic() > deadline:
            raise RoundFailed(
                f"after {_READY_S:g} s the farm saw {farm.counts().probes} probes, and not every "
                f"target had its own, {times} in all"
            )
        time.sleep(_POLL_S)


def watched(running: Running, farm: Farm, case: Case, *, seconds: float) -> Values:
    """Watch a prober for that long, and say what it cost.

    Raises:
        RoundFailed: if it sent no probe.
    """
    own = running.counters()
    bus_s, before, first = _bus_s(running), usage(running.pid), farm.mark(case.interval_s)
    began = time.monotonic()
    time.sleep(seconds)
    last, after = farm.counts(), usage(running.pid)
    took_s = time.monotonic() - began
    bus_s = _bus_s(running) - bus_s
    probes, cpu_s = last.probes - first.probes, after.cpu_s - before.cpu_s
    if not probes:
        raise RoundFailed(f"no probe came in {seconds:g} s")
    return {
        "of_asked": probes / took_s / case.wanted_per_s,
        "cpu_us": cpu_s * 1e6 / probes,
        "cpu_share": cpu_s / took_s,
        "rss_bytes": after.rss_bytes,
        "probes_per_s": probes / took_s,
        "connections_per_s": (last.connections - first.connections) / took_s,
        "sockets": last.open,
        "fullest_100ms": last.fullest_100ms / (case.wanted_per_s / 10),
        "late_p50_ms": last.late_ms[0],
        "late_p99_ms": last.late_ms[1],
        "late_p999_ms": last.late_ms[2],
        "bus_cpu_us": bus_s * 1e6 / probes,
        **running.found(own, running.counters(), took_s),
    }


def _bus_s(running: Running) -> float:
    return 0.0 if running.bus_pid is None else usage(running.bus_pid).cpu_s


def _settling(case: Case) -> int:
    """Return after how many intervals what is watched is no onset any more."""
    if case.mix is Mix.FLAP:
        return _FLAPS
    return 1 if case.interval_s <= 1 else 2  # the first probe of a longer one is out of its phase


def _reachable(case: Case) -> int:
    """Count the targets whose probes arrive at all."""
    return case.targets - case.targets // ONE_IN if case.mix is Mix.FAULTS else case.targets
