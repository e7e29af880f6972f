"""Everything goes wrong at the prober while nothing goes wrong at its replicas.

`python -m tests.chaos.faults_run --targets N --seconds S`, inside a network namespace of its own:
a real prober, bus, name server and farm. The prober is stopped and resumed, loses its file
descriptors, its local ports and its name server, again and again, and a tenth of what it watches
hangs. Prints what it made of it as JSON: the healthy replicas it ever called bad must be none.
"""

import argparse
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final
from urllib.request import urlopen
from uuid import UUID

import anyio
from anyio.from_thread import start_blocking_portal
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from bench.build import build
from bench.farm import Farm, host
from controller.embedded import EmbeddedValkey
from probe.bus.targets import TargetFeed
from probe.wire import Keys, ReplicaId, ReplicaProbeTarget, decode_status
from tests.fakes.nameserver import NXDOMAIN, SILENT, Answer, NameServer, name_server

GOOD: Final = ("kept", "fresh", "named", "crowd")
"""Deployments whose replicas all answer 200 at once, always."""
HANGING: Final = "hanging"
CROWD: Final = 200
"""Targets at one address and port: only they can run out of local ports."""
FDS: Final = 64
PORTS: Final = "40000 40049"
STALL_S: Final = 1.5
HOLD_S: Final = 2.0
CALM_S: Final = 1.0
TIMEOUT_S: Final = 1.0
READY_S: Final = 60.0
LINES: Final = 5
_PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(slots=True)
class Findings:
    """What one run came to."""

    targets: int
    seconds: float = 0.0
    probes_of_healthy: int = 0
    false_bad: int = 0
    """Probes of healthy replicas that were counted as failed."""
    false_bad_by_deployment: dict[str, int] = field(default_factory=dict)
    turned: list[str] = field(default_factory=list)
    """What the prober logged of the first healthy replicas that it turned against."""
    unhealthy_verdicts: int = 0
    """Healthy replicas whose status said otherwise at any look."""
    hanging_found: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    questions_unanswered: int = 0
    """By the name server, while it was silent."""
    not_passed: dict[str, int] = field(default_factory=dict)
    """By reason, hanging replicas included: those that begin with LOCAL are the prober's own."""


def main() -> int:
    """Run, print, and return 1 if one healthy replica was ever called bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        found = _run(Path(directory), asked.targets, asked.seconds, random.Random(asked.seed))  # noqa: S311 - a seed
    print(json.dumps(asdict(found)))  # noqa: T201 - its output
    return int(found.false_bad > 0 or found.unhealthy_verdicts > 0)


def _run(directory: Path, count: int, seconds: float, chance: random.Random) -> Findings:
    programs = build(directory)
    bus = EmbeddedValkey(directory / "bus")
    bus.start()
    found = Findings(targets=count)
    try:
        with (
            Farm(programs.farm) as farm,
            Farm(programs.farm, closes=True) as closing,
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(name_server()) as names,
        ):
            names.ttl_s = 1
            names.otherwise = _address
            farm.answer("hang", first=count + 1, last=count + count // 9, step=1)
            targets = _fleet(count, farm.port, closing.port)
            anyio.run(_load, bus.url, targets)
            with _prober(directory, bus.url, names.address) as (prober, url):
                _until(lambda: _healthy(bus, targets) == count, "every good one is healthy")
                before = _counts(url)
                began = time.monotonic()
                troubles: dict[str, Callable[[], None]] = {
                    "stall": lambda: _stall(prober.pid, chance),
                    "fds": lambda: _without_fds(prober.pid),
                    "ports": lambda: _without_ports(closing.port),
                    "names": lambda: _without_names(names, found),
                }
                _make_trouble(prober, troubles, found, until=began + seconds, chance=chance)
                found.seconds = time.monotonic() - began
                _settle(found, before, url)
                found.unhealthy_verdicts = count - _healthy(bus, targets)
                found.hanging_found = _judged_bad(bus, targets)
                good = {target.replica_id for target in targets if target.deployment in GOOD}
                found.turned = _turned(directory / "probe.log", good)[:LINES]
    finally:
        bus.stop()
    return found


def _address(question: str) -> Answer:
    """Answer that `n7.farm.test` is target 7."""
    name, family = question.split()
    return [host(int(name[1:].partition(".")[0]))] if family == "A" else NXDOMAIN


def _fleet(count: int, port: int, closing_port: int) -> list[ReplicaProbeTarget]:
    """Return `count` good targets of four sorts, and a tenth as many more that hang."""

    def one(number: int, deployment: str, where: str, at: int) -> ReplicaProbeTarget:
        return ReplicaProbeTarget(
            replica_id=ReplicaId(str(UUID(int=number, version=4))),
            replica_host=where,
            inference_port=at,
            health_path="/health",
            interval_s=1.0,
            timeout_s=TIMEOUT_S,
            connect_timeout_s=TIMEOUT_S,
            max_retries=1,
            deployment=deployment,
        )

    crowd = min(CROWD, count // 5)
    targets = [one(number, "crowd", host(1), closing_port) for number in range(1, crowd + 1)]
    for number in range(crowd + 1, count + 1):
        match number % 10:
            case 0:
                targets.append(one(number, "named", f"n{number}.farm.test", port))
            case 1 | 2 | 3:
                targets.append(one(number, "fresh", host(number), closing_port))
            case _:
                targets.append(one(number, "kept", host(number), port))
    last = count + count // 9
    targets += [one(number, HANGING, host(number), port) for number in range(count + 1, last + 1)]
    return targets


async def _load(url: str, targets: list[ReplicaProbeTarget]) -> None:
    feed = TargetFeed(AsyncRedis.from_url(url))
    await feed.load(targets)
    await feed.aclose()


@contextmanager
def _prober(
    directory: Path, bus_url: str, nameserver: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    config = directory / "probe.toml"
    config.write_text(
        "[probe]\n"
        f'redis_url = "{bus_url}"\nmetrics = "127.0.0.1:0"\nallow = ["127.0.0.0/8"]\n'
        f'allow_dns = true\nnameservers = ["{nameserver}"]\n'
    )
    log = (directory / "probe.log").open("wb")
    command = [sys.executable, "-m", "probe", "--config", str(config)]
    prober = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert prober.stdout is not None
        said = prober.stdout.readline().decode()
        if "http://" not in said:
            raise RuntimeError((directory / "probe.log").read_text()[-2000:])
        yield prober, said.split()[-1]
    finally:
        log.close()
        if prober.poll() is None:
            prober.terminate()
            prober.wait(20)


def _make_trouble(
    prober: subprocess.Popen[bytes],
    troubles: dict[str, Callable[[], None]],
    found: Findings,
    *,
    until: float,
    chance: random.Random,
) -> None:
    """Do one thing after another to the prober, each long enough to be felt."""
    order: list[str] = []
    while time.monotonic() < until:
        if not order:
            order = chance.sample(sorted(troubles), len(troubles))
        name = order.pop()
        troubles[name]()
        found.faults[name] = found.faults.get(name, 0) + 1
        time.sleep(CALM_S)
        if prober.poll() is not None:
            raise RuntimeError(f"the prober ended with {prober.returncode} after {name}")


def _stall(pid: int, chance: random.Random) -> None:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(chance.uniform(0.3, STALL_S))
    os.kill(pid, signal.SIGCONT)


def _without_fds(pid: int) -> None:
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (FDS, before[1]))
    time.sleep(HOLD_S)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def _without_ports(port: int) -> None:
    """Leave few local ports, and take all of them towards the address of the crowd."""
    before = _PORT_RANGE.read_text()
    _PORT_RANGE.write_text(PORTS)
    taken: list[socket.socket] = []
    ends = time.monotonic() + HOLD_S
    while time.monotonic() < ends:
        try:
            taken.append(socket.create_connection((host(1), port)))
        except OSError:  # all are taken: by us, and for a moment by the prober
            time.sleep(0.01)
    for one in taken:
        one.close()
    _PORT_RANGE.write_text(before)


def _without_names(names: NameServer, found: Findings) -> None:
    asked = names.asked.total()
    names.otherwise = lambda _question: SILENT
    time.sleep(2 * HOLD_S)
    names.otherwise = _address
    found.questions_unanswered += names.asked.total() - asked


def _counts(url: str) -> dict[tuple[str, ...], float]:
    """Read probes by deployment and outcome, and what did not pass by reason."""
    counts: dict[tuple[str, ...], float] = {}
    with urlopen(url, timeout=10) as page:  # noqa: S310 - our own prober
        text = page.read().decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "fleetpulse_probes_total":
                counts[sample.labels["deployment"], sample.labels["outcome"]] = sample.value
            elif sample.name == "fleetpulse_probe_failures_total":
                counts[(sample.labels["reason"],)] = sample.value
    return counts


def _settle(found: Findings, before: dict[tuple[str, ...], float], url: str) -> None:
    after = _counts(url)
    since = {name: int(value - before.get(name, 0.0)) for name, value in after.items()}
    for deployment in GOOD:
        found.probes_of_healthy += sum(
            count for name, count in since.items() if name[0] == deployment
        )
        if failed := since.get((deployment, "failed"), 0):
            found.false_bad += failed
            found.false_bad_by_deployment[deployment] = failed
    found.not_passed = {name[0]: count for name, count in since.items() if count and not name[1:]}


def _turned(log: Path, good: set[ReplicaId]) -> list[str]:
    """Return the lines that tell of a good replica found bad, in order."""
    return [
        line
        for line in log.read_text().splitlines()
        if "event=verdict_changed" in line and "healthy=false" in line.lower()
        if any(one in line for one in good)
    ]


def _statuses(
    bus: EmbeddedValkey, targets: list[ReplicaProbeTarget]
) -> Iterator[tuple[str, bool | None]]:
    keys = Keys()
    with Redis.from_url(bus.url) as client:
        values = client.mget([keys.status(target.replica_id) for target in targets])
    for target, value in zip(targets, values, strict=True):
        yield target.deployment, None if value is None else decode_status(value).healthy


def _healthy(bus: EmbeddedValkey, targets: list[ReplicaProbeTarget]) -> int:
    return sum(healthy is True for where, healthy in _statuses(bus, targets) if where in GOOD)


def _judged_bad(bus: EmbeddedValkey, targets: list[ReplicaProbeTarget]) -> int:
    return sum(healthy is False for where, healthy in _statuses(bus, targets) if where == HANGING)


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {READY_S:g} s: {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
