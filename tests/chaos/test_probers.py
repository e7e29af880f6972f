"""Probers that are killed, stopped and restarted at random, before a farm whose truth changes.

Reduced by default; with FLEETPULSE_FULL=1 four probers watch 5,000 targets every 10 s for five
minutes, and are stopped for 150 s. Prints its figures as JSON (`-s` shows them).
"""

import json
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import anyio
import pytest
from redis.asyncio import Redis

from controller.embedded import EmbeddedValkey
from probe.bus.targets import TargetFeed
from probe.wire import Keys, ReplicaHealthStatus, ReplicaId, decode_heartbeat, decode_status
from tests.fakes.entries import replica, target
from tests.fakes.farm import Farm, Plot, Served
from tests.fakes.prober import ProberProcess, until

FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
SEED: Final = int(os.environ.get("FLEETPULSE_SEED", "1"))
WITHOUT_TTL: Final = ("route_probe_index:", "route_probe_versions", "route_health_changes")
GOOD, BAD = "ok200", "s503"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How big, and how fast; the reduced one is the same in quicker motion."""

    probers: int
    targets: int
    interval_s: float
    seconds: float
    answer_s: float
    """How long a replica takes: so many probes of a stopped prober are in flight."""
    stop_s: float
    """Longer than results may be old: who was stopped for so long is replaced."""
    rest_s: float
    """Between two faults, and at most until a prober that was killed is back: at full size as long
    as a take-over takes, a heartbeat's life and an interval. Reduced, faults overlap."""
    age_max_s: float
    heartbeat_s: float
    heartbeat_ttl_s: int


SIZES: Final = (
    Sizes(4, 5000, 10.0, 300.0, 2.0, 150.0, 30.0, 45.0, 5.0, 15)
    if FULL
    else Sizes(3, 300, 1.0, 10.0, 0.3, 6.0, 1.2, 10.0, 0.3, 1)
)
"""Reduced: the age allowed is not a tenth, for what a busy machine adds is not either."""
MORE: Final = ("kill", "kill", "restart", *["stop"] * FULL)
"""Once each was tried; a second stop takes too long for the reduced size."""
DOUBLE_MAX: Final = 0.2
LATE_S: Final = 3.0
"""A result may say the truth of so long ago, at its end: the loops of a busy machine lag."""


@dataclass(slots=True)
class Figures:
    """What was seen."""

    probers: int
    targets: int
    interval_s: float
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    flips: int = 0
    statuses_seen: int = 0
    status_age_max_s: float = 0.0
    stale_verdicts: int = 0
    """Statuses that say what was not true any more when their probe is said to have ended."""
    older_after_newer: int = 0
    """Statuses replaced by one of an earlier probe with another verdict."""
    probes: int = 0
    double_probes_ratio: float = 0.0
    """Those looked at early on purpose, at the edge of a verdict, are among them."""
    busiest_second_ratio: float = 0.0
    """The most probes in one second, by the mean of all."""
    keys_without_ttl: int = 0


class SlowlyServed(Served):
    """Answers a while after it was asked: who is stopped meanwhile finds the old truth later."""

    def _answer(self, kind: str) -> None:
        self._later(SIZES.answer_s, lambda: self._answer_now(kind))

    def _answer_now(self, kind: str) -> None:
        if not self._transport.is_closing():
            super()._answer(kind)


class SlowFarm(Farm):
    serving = SlowlyServed

    def __init__(self) -> None:
        super().__init__()
        self.doubles = 0
        """Requests that came less than half an interval after the last one at that address."""
        self._last: dict[str, float] = {}

    def asked(self, host: str, head: bytes) -> str:
        now = time.monotonic()
        self.doubles += now - self._last.get(host, 0.0) < SIZES.interval_s / 2
        self._last[host] = now
        return super().asked(host, head)


class Crew:
    """Prober processes by number; each may be killed, stopped or ended, and comes back."""

    def __init__(self, url: str, logs: Path) -> None:
        self._url = url
        self._logs = logs
        self._running: dict[int, tuple[ProberProcess, AsyncExitStack]] = {}

    async def start(self, number: int) -> None:
        log = self._logs / f"{number}-{time.monotonic_ns()}.log"
        stack = AsyncExitStack()
        arguments = ProberProcess.running(self._url, log)
        self._running[number] = (await stack.enter_async_context(arguments), stack)

    async def end(self, number: int, sign: signal.Signals) -> int:
        prober, stack = self._running.pop(number)
        code = await prober.end(sign)
        await stack.aclose()
        return code

    def send(self, number: int, sign: signal.Signals) -> None:
        self._running[number][0].process.send_signal(sign)

    async def end_all(self) -> None:
        for number in list(self._running):
            self.send(number, signal.SIGCONT)
            assert await self.end(number, signal.SIGTERM) == 0

    def said(self) -> str:
        return "".join(log.read_text() for log in self._logs.glob("*.log"))


class Witness:
    """Knows the truth about each replica, and looks at what the bus says of it."""

    def __init__(self, farm: Farm, plots: list[Plot], chance: random.Random) -> None:
        self.figures = Figures(SIZES.probers, SIZES.targets, SIZES.interval_s)
        self._farm = farm
        self._plots = plots
        self._chance = chance
        self._truth: defaultdict[int, list[tuple[float, bool]]] = defaultdict(lambda: [(0.0, True)])
        self._newest: dict[int, ReplicaHealthStatus] = {}

    def flip(self) -> None:
        """Let some replicas fall ill, and some others recover."""
        now = time.time()
        for number in self._chance.sample(range(len(self._plots)), k=len(self._plots) // 5):
            well = not self._truth[number][-1][1]
            self._truth[number].append((now, well))
            self._farm.turn(self._plots[number], GOOD if well else BAD)
            self.figures.flips += 1

    def look(self, now_s: float, values: list[bytes | str | None]) -> None:
        """Judge every status; `now_s` is of the bus, whose clock is this machine's."""
        figures = self.figures
        for number, value in enumerate(values):
            assert value is not None, f"target {number} has no status"
            status = decode_status(value)
            figures.status_age_max_s = max(figures.status_age_max_s, now_s - status.last_check)
            before = self._newest.get(number)
            if before is not None and before.last_check == status.last_check:
                continue
            self._newest[number] = status
            figures.statuses_seen += 1
            figures.stale_verdicts += not self._was_true(number, status)
            if before is not None and before.last_check - status.last_check > LATE_S / 3:
                figures.older_after_newer += before.healthy != status.healthy

    def _was_true(self, number: int, status: ReplicaHealthStatus) -> bool:
        """Tell whether the replica was so at some moment just before the probe's end."""
        truth = self._truth[number]
        ends = [at for at, _ in truth[1:]] + [float("inf")]
        return any(
            well == status.healthy
            and began <= status.last_check + 0.1
            and ended >= status.last_check - LATE_S
            for (began, well), ended in zip(truth, ends, strict=True)
        )


@pytest.fixture
async def farm() -> AsyncIterator[SlowFarm]:
    async with SlowFarm() as planted:
        yield planted


@pytest.mark.timeout(600)
@pytest.mark.xdist_group("chaos")
async def test_killed_stopped_and_restarted_probers_leave_no_hole_and_no_stale_verdict(
    bus: EmbeddedValkey, farm: SlowFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-62, R-64: status age, stale verdicts, double probes, keys that would live for ever."""
    monkeypatch.setenv("FLEETPULSE_PROBE__HEARTBEAT_S", str(SIZES.heartbeat_s))
    monkeypatch.setenv("FLEETPULSE_PROBE__HEARTBEAT_TTL_S", str(SIZES.heartbeat_ttl_s))
    chance = random.Random(SEED)  # noqa: S311 - a run can be repeated
    plots = [farm.plant(GOOD) for _ in range(SIZES.targets)]
    async with Redis.from_url(bus.url) as client:
        await load(client, plots)
        witness, crew = Witness(farm, plots, chance), Crew(bus.url, tmp_path)
        for number in range(SIZES.probers):
            await crew.start(number)
        await until(lambda: settled(client), within_s=60)
        seconds: Counter[int] = Counter()
        asked, doubles, began = farm.requests.total(), farm.doubles, time.monotonic()
        async with anyio.create_task_group() as group:
            group.start_soon(count, farm, seconds)
            group.start_soon(watch, client, witness)
            await harass(crew, witness, chance)
            group.cancel_scope.cancel()
        probes, took_s = farm.requests.total() - asked, time.monotonic() - began
        summarise(witness.figures, probes, took_s, seconds)
        witness.figures.double_probes_ratio = round((farm.doubles - doubles) / probes, 4)
        await crew.end_all()
        async for key in client.scan_iter(count=1000):
            name = key.decode()
            if not name.startswith(WITHOUT_TTL) and name != "bus_epoch":
                witness.figures.keys_without_ttl += await client.ttl(key) < 0
    figures = witness.figures
    print(json.dumps(asdict(figures)))  # noqa: T201 - the figures, shown with -s
    assert "Traceback" not in crew.said()
    assert figures.faults.keys() == {"kill", "stop", "restart"}
    assert figures.status_age_max_s <= SIZES.age_max_s
    assert figures.stale_verdicts == 0
    assert figures.older_after_newer == 0
    assert figures.double_probes_ratio <= DOUBLE_MAX
    assert figures.keys_without_ttl == 0


async def load(client: Redis, plots: list[Plot]) -> None:
    targets = [
        target(
            number,
            replica_host=plot.host,
            inference_port=plot.port,
            interval_s=SIZES.interval_s,
            timeout_s=SIZES.interval_s,
            connect_timeout_s=SIZES.interval_s / 2,
            max_retries=1,
        )
        for number, plot in enumerate(plots)
    ]
    await TargetFeed(client).load(targets)


async def settled(client: Redis) -> bool:
    """Tell whether every partition has one owner, and every target a status."""
    keys = [key async for key in client.scan_iter("prober:*", count=1000)]
    beats = [decode_heartbeat(value) for value in await client.mget(keys) if value] if keys else []
    owned = sorted(partition for beat in beats for partition in beat.partitions)
    statuses = await client.mget(status_keys())
    return len(beats) == SIZES.probers and owned == list(range(64)) and None not in statuses


def status_keys() -> list[str]:
    return [Keys().status(ReplicaId(replica(number))) for number in range(SIZES.targets)]


async def watch(client: Redis, witness: Witness) -> None:
    """Look at every status four times an interval."""
    keys = status_keys()
    while True:
        values = await client.mget(keys)
        seconds, micros = await client.time()
        witness.look(seconds + micros / 1e6, values)
        await anyio.sleep(SIZES.interval_s / 4)


async def count(farm: Farm, seconds: Counter[int]) -> None:
    """Count the farm's requests by the second."""
    began = time.monotonic()
    while True:
        before, since = farm.requests.total(), time.monotonic()
        await anyio.sleep(1.0)
        lasted_s = time.monotonic() - since
        seconds[int(since - began)] = int((farm.requests.total() - before) / lasted_s)


async def harass(crew: Crew, witness: Witness, chance: random.Random) -> None:
    """Do something to a prober again and again, never to all of them at once."""
    began, faults = time.monotonic(), Counter[str]()
    stopped: dict[int, float] = {}
    plan = ["stop", "kill", "restart"]
    while plan or time.monotonic() - began < SIZES.seconds:
        kind = plan.pop(0) if plan else chance.choice(MORE)
        sound = [number for number in range(SIZES.probers) if number not in stopped]
        if kind == "stop" and len(sound) < SIZES.probers - 1:
            kind = "kill"
        number = chance.choice(sound)
        faults[kind] += 1
        if kind == "stop":
            crew.send(number, signal.SIGSTOP)
            stopped[number] = time.monotonic() + SIZES.stop_s
        else:
            await crew.end(number, signal.SIGKILL if kind == "kill" else signal.SIGTERM)
            await anyio.sleep(chance.uniform(0.0, SIZES.rest_s))
            await crew.start(number)
        witness.flip()
        await anyio.sleep(SIZES.rest_s)
        for number, until_s in list(stopped.items()):
            if time.monotonic() >= until_s:
                crew.send(number, signal.SIGCONT)
                del stopped[number]
                await anyio.sleep(SIZES.rest_s)  # it joins, which is a hand-over too
    for number, until_s in stopped.items():
        await anyio.sleep(max(0.0, until_s - time.monotonic()))
        crew.send(number, signal.SIGCONT)
    await anyio.sleep(2 * SIZES.interval_s)  # what those who come back would write, is seen
    witness.figures.faults = dict(faults)


def summarise(figures: Figures, probes: int, seconds: float, per_second: Counter[int]) -> None:
    figures.seconds = round(seconds, 1)
    figures.probes = probes
    figures.status_age_max_s = round(figures.status_age_max_s, 2)
    figures.busiest_second_ratio = round(max(per_second.values()) * seconds / probes, 3)
