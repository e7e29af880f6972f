"""Our prober, twice: its wire alone, and the whole daemon with a bus of its own.

`Daemon` is used by the scenes as well: they write targets and read statuses while it runs.
"""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import anyio
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from bench.case import Mix, Regime, RoundFailed, Values
from bench.farm import ONE_IN, fleet
from bench.machine import cores
from bench.running import Peer, Place, Process, Running, never, started
from controller.child import Child
from controller.embedded import EmbeddedValkey
from probe.bus.targets import TargetFeed
from probe.wire import Keys, ReplicaHealthStatus, ReplicaProbeTarget, decode_status

_END_S: Final = 30.0
_METRICS_S: Final = 30.0
_LAG: Final = "fleetpulse_schedule_lag_seconds_bucket"
_ENDED: Final = "fleetpulse_probes_total"
_AS_ASKED: Final = {"FLEETPULSE_PROBE__INTERVAL_STRETCH_MAX": "1"}
"""All are compared at the rate that is asked for: one that asked less often would look cheaper."""


class _Wire(Running):
    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log

    def check(self) -> None:
        if self._process.poll() is not None:
            raise RoundFailed(f"the wire ended: {self._log.read_text()[-2000:]}")


@contextmanager
def _wire(place: Place) -> Iterator[Running]:
    command = [sys.executable, "-m", "bench.wire", str(place.case.targets), str(place.farm.port)]
    command += ["--interval-s", str(place.case.interval_s)]
    command += ["--new"] if place.case.regime is Regime.NEW else []
    log = place.directory / "wire.log"
    with log.open("wb") as errors, cores(prober=True):
        wire = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
    running = _Wire(wire, log)
    try:
        yield running
        running.check()
    finally:
        said, _ = wire.communicate(timeout=_END_S)  # the end of its input is the wire's
    failed = json.loads(said)["failed"]
    if failed:
        raise RoundFailed(f"{failed} of the wire's probes failed")


class Bus:
    """The bus of one round, on the farm's cores; its server is not counted with the prober."""

    def __init__(self, directory: Path) -> None:
        self.server = EmbeddedValkey(directory / "bus")
        with cores(prober=False):
            self.server.start()
        self.client = Redis.from_url(self.server.url)
        self.written = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.server.url

    def write(self, targets: Iterable[ReplicaProbeTarget]) -> None:
        """Put new targets onto it, as the controller does."""
        wanted = list(targets)
        self.written += len(wanted)

        async def load() -> None:
            feed = TargetFeed(AsyncRedis.from_url(self.url))
            await feed.load(wanted)
            await feed.aclose()

        anyio.run(load)

    def statuses(self, targets: Iterable[ReplicaProbeTarget]) -> list[ReplicaHealthStatus | None]:
        """Read what is said of these targets."""
        keys = Keys()
        values = self.client.mget([keys.status(target.replica_id) for target in targets])
        assert isinstance(values, list)
        return [None if value is None else decode_status(value) for value in values]

    def keys(self) -> int:
        """Count all keys: cheap enough to ask all the time."""
        size = self.client.dbsize()
        assert isinstance(size, int)
        return size

    def bytes(self) -> float:
        """Count what went in and out of it so far."""
        info = self.client.info("stats")
        assert isinstance(info, dict)
        return float(info["total_net_input_bytes"] + info["total_net_output_bytes"])

    def stop(self) -> None:
        """End it."""
        self.client.close()
        self.server.stop()


class Daemon(Process):
    """`fleetpulse probe` at work."""

    def __init__(
        self, child: Child, bus: Bus, must_be_healthy: list[ReplicaProbeTarget], *, keys: int
    ) -> None:
        super().__init__(child)
        assert bus.server.pid is not None
        self.bus_pid = bus.server.pid
        self._bus = bus
        self._must_be_healthy = must_be_healthy
        self._keys = keys

    def ready(self) -> bool:
        """Tell whether the bus has as many keys as it will have once each target has its status."""
        return self._bus.keys() >= self._keys

    def counters(self) -> Values:
        """Read its own metrics, and the bus's bytes."""
        with urlopen(self._metrics_url(), timeout=_METRICS_S) as page:  # noqa: S310 - our own
            text = page.read().decode()
        found: Values = {"bus_bytes": self._bus.bytes(), "ended": 0.0}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == _LAG:
                    found[f"lag {sample.labels['le']}"] = sample.value
                elif sample.name == _ENDED:
                    found["ended"] += sample.value
        return found

    def found(self, before: Values, after: Values, took_s: float) -> Values:
        """Say how late it started its probes, and what it moved over the bus."""
        grown = {name: after[name] - before.get(name, 0.0) for name in after}
        lag = {float(name[4:]): n for name, n in grown.items() if name.startswith("lag ")}
        return {
            "bus_bytes_per_s": grown["bus_bytes"] / took_s,
            "ended_per_s": grown["ended"] / took_s,
            "lag_p99_ms": _bound(lag, 0.99) * 1e3,
            "lag_p999_ms": _bound(lag, 0.999) * 1e3,
        }

    def verify(self) -> None:
        """Look whether every target that answers is healthy on the bus."""
        statuses = self._bus.statuses(self._must_be_healthy)
        amiss = Counter(
            "without a status" if status is None else f"{status.reason} {status.detail}"
            for status in statuses
            if status is None or not status.healthy
        )
        if amiss:
            why, count = amiss.most_common(1)[0]
            raise RoundFailed(
                f"{amiss.total()} of {len(statuses)} targets are not healthy, {count} of them {why}"
            )

    def _metrics_url(self) -> str:
        deadline = time.monotonic() + _METRICS_S
        while time.monotonic() < deadline:
            told = re.search(r"http://[\d.:]+/metrics", self.log())
            if told:
                return told[0]
            self.check()
            time.sleep(0.01)
        raise RoundFailed(f"the prober did not say where its metrics are in {_METRICS_S:g} s")


def _bound(cumulative: dict[float, float], share: float) -> float:
    """Return the least bound below which `share` of all values are."""
    whole = max(cumulative.values(), default=0.0)
    return min((bound for bound, n in cumulative.items() if n >= share * whole), default=0.0)


@contextmanager
def bus_in(directory: Path) -> Iterator[Bus]:
    """Run a bus until the block ends."""
    bus = Bus(directory)
    try:
        yield bus
    finally:
        bus.stop()


@contextmanager
def daemon_on(
    place: Place, bus: Bus, must_be_healthy: list[ReplicaProbeTarget]
) -> Iterator[Daemon]:
    """Run the daemon until the block ends."""
    command = [sys.executable, "-m", "probe", "--redis", bus.url]
    command += ["--allow", "127.0.0.0/8", "--metrics", "127.0.0.1:0"]
    if place.case.workers > 1:
        command += ["--workers", str(place.case.workers)]
    keys = bus.keys() + bus.written
    with started(place, command, environment=_AS_ASKED) as child:
        yield Daemon(child, bus, must_be_healthy, keys=keys)


@contextmanager
def _probe(place: Place) -> Iterator[Running]:
    case, farm = place.case, place.farm
    refusing = farm.refusing_port if case.mix is Mix.FAULTS else None
    targets = fleet(case.targets, farm.port, interval_s=case.interval_s, refusing_port=refusing)
    with bus_in(place.directory) as bus:
        bus.write(targets)
        with daemon_on(place, bus, _answering(targets, case.mix)) as daemon:
            yield daemon


def _answering(targets: list[ReplicaProbeTarget], mix: Mix) -> list[ReplicaProbeTarget]:
    """Return those that answer 200 whenever they are asked."""
    match mix:
        case Mix.PASS:
            return targets
        case Mix.FAULTS:
            return [each for n, each in enumerate(targets, 1) if n % ONE_IN not in {1, 2}]
        case Mix.FAIL | Mix.FLAP:
            return []


WIRE: Final = Peer(
    "our schedule, deadlines, HTTP, verdicts and counters; no bus, no metrics port", _wire, never
)
PROBE: Final = Peer(
    "our whole daemon, from the target on the bus to the status on the bus", _probe, never
)
