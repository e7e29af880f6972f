"""One round of each prober against a fresh farm, measured from outside in the same way.

Each is given the same targets, lets every one be probed before the clock starts, and is then
watched for the same time: CPU of its process tree over probes as the farm counted them.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from bench.build import Programs
from bench.farm import Farm, cores, fleet, hosts, usage
from controller.child import Child
from controller.embedded import EmbeddedValkey
from probe.bus_targets import TargetFeed
from probe.wire import Keys, ReplicaProbeTarget, decode_status

_WARM_UP_S = 2.0
_READY_S = 60.0
"""Ten thousand targets are loaded and probed once within 5 s; beyond this something is broken."""
_LEAST_CPU_S = 0.1
"""Ten clock ticks: below that the error is more than a tenth."""

_TAIL_CHARS = 2000


class RoundFailed(Exception):  # noqa: N818 - reads as what it is
    """A prober did not do its work, so its cost says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one prober cost."""

    prober: str
    probes: int
    """Counted at the farm, while the clock ran."""
    probes_per_second: float
    cpu_us_per_probe: float | None
    """None when the round was too short for clock ticks of 10 ms to say anything."""
    rss_bytes: int
    connections: int
    """Opened over the whole round: as many as there are targets when all were kept alive."""
    bus_cpu_us_per_probe: float = 0.0
    """What the bus server spent, which is not in `cpu_us_per_probe`."""


def floor_round(programs: Programs, *, targets: int, seconds: float) -> Round:
    """Let the C floor probe every target once a second.

    Raises:
        RoundFailed: if a probe failed.
    """
    with Farm(programs.farm) as farm:
        whole_s = seconds + _WARM_UP_S + 1.0
        command = [str(programs.floor), str(targets), str(whole_s)]
        with cores(prober=True):
            floor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with floor:
            assert floor.stdin is not None
            assert floor.stdout is not None
            floor.stdin.write("".join(f"{host} {farm.port}\n" for host in hosts(targets)).encode())
            floor.stdin.close()
            floor.stdout.readline()
            time.sleep(_WARM_UP_S)
            done = _watched("C floor", farm, floor.pid, seconds=seconds)
            said = json.loads(floor.stdout.readline())
    if said["failed"]:
        raise RoundFailed(f"{said['failed']} of the floor's probes failed")
    return done


def wire_round(programs: Programs, directory: Path, *, targets: int, seconds: float) -> Round:
    """Let our wire do the same by itself, without a bus.

    Raises:
        RoundFailed: if it does not start, or a probe failed.
    """
    directory.mkdir()
    log = directory / "wire.log"
    with Farm(programs.farm) as farm, log.open("wb") as errors:
        command = [sys.executable, "-m", "bench.wire", str(targets), str(farm.port)]
        with cores(prober=True):
            wire = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        try:
            _until_probed(farm, 2 * targets, lambda: wire.poll() is None, log)
            time.sleep(_WARM_UP_S)
            done = _watched("fleetpulse wire", farm, wire.pid, seconds=seconds)
        finally:
            said, _ = wire.communicate(timeout=_READY_S)  # the end of its input is the wire's
    failed = json.loads(said)["failed"]
    if failed:
        raise RoundFailed(f"{failed} of the wire's probes failed")
    return done


def our_round(programs: Programs, directory: Path, *, targets: int, seconds: float) -> Round:
    """Let `python -m probe` do the same, with its targets and statuses on a real bus.

    Raises:
        RoundFailed: if the prober does not start, or a status on the bus is not healthy.
        EmbeddedError: if there is no embedded Valkey.
    """
    directory.mkdir()
    bus = EmbeddedValkey(directory / "bus")
    command = [sys.executable, "-m", "probe", "--redis", bus.url]
    command += ["--allow", "127.0.0.0/8", "--metrics", "127.0.0.1:0"]
    log = directory / "probe.log"
    prober = Child(command, log_path=log)
    with Farm(programs.farm) as farm:
        try:
            with cores(prober=False):
                bus.start()
            wanted = fleet(targets, farm.port)
            anyio.run(_load, bus.url, wanted)
            with cores(prober=True):
                prober.start()
            _until_probed(farm, 2 * targets, lambda: prober.pid is not None, log)
            time.sleep(_WARM_UP_S)
            if prober.pid is None or bus.pid is None:
                raise RoundFailed(_ended(log))
            done = _watched("fleetpulse probe", farm, prober.pid, seconds=seconds, bus_pid=bus.pid)
            _all_healthy(bus, wanted)
        finally:
            prober.end()
            bus.stop()
    return done


def _watched(
    name: str, farm: Farm, pid: int, *, seconds: float, bus_pid: int | None = None
) -> Round:
    def bus_cpu_s() -> float:
        return 0.0 if bus_pid is None else usage(bus_pid).cpu_s

    bus_before_s, before, first = bus_cpu_s(), usage(pid), farm.counts()
    began = time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - began
    last, after, bus_after_s = farm.counts(), usage(pid), bus_cpu_s()
    probes, cpu_s = last.probes - first.probes, after.cpu_s - before.cpu_s
    if not probes:
        raise RoundFailed(f"{name} sent no probe in {seconds:g} s")
    return Round(
        prober=name,
        probes=probes,
        probes_per_second=probes / took_s,
        cpu_us_per_probe=cpu_s * 1e6 / probes if cpu_s >= _LEAST_CPU_S else None,
        rss_bytes=after.rss_bytes,
        connections=last.connections,
        bus_cpu_us_per_probe=(bus_after_s - bus_before_s) * 1e6 / probes,
    )


async def _load(url: str, targets: list[ReplicaProbeTarget]) -> None:
    feed = TargetFeed(AsyncRedis.from_url(url))
    await feed.load(targets)
    await feed.aclose()


def _until_probed(farm: Farm, times: int, lives: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while farm.counts().probes < times:
        if not lives():
            raise RoundFailed(_ended(log))
        if time.monotonic() > deadline:
            raise RoundFailed(
                f"after {_READY_S:g} s the farm saw {farm.counts().probes} of {times} probes"
            )
        time.sleep(0.05)


def _ended(log: Path) -> str:
    return f"the prober ended: {log.read_text()[-_TAIL_CHARS:]}"


def _all_healthy(bus: EmbeddedValkey, targets: list[ReplicaProbeTarget]) -> None:
    keys = Keys()
    with Redis.from_url(bus.url) as client:
        values = client.mget([keys.status(target.replica_id) for target in targets])
    healthy = sum(value is not None and decode_status(value).healthy for value in values)
    if healthy != len(targets):
        raise RoundFailed(f"only {healthy} of {len(targets)} statuses on the bus are healthy")
