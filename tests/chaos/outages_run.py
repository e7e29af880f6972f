"""Outages of everything around the replicas, while every replica serves.

`python -m tests.chaos.outages_run [--full] [--postgres] [--only NAME,...]`: a real controller, real
probers, a real bus and database, a fleet that holds the truth. Bus, its memory, probers and
database are taken away, and one prober is cut off from the replicas. Prints one JSON object; ends
with 1 if one live replica was taken out, or something came back too late. In full size, the first
thing shown is that an eviction can happen at all.
"""

import argparse
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import asdict
from pathlib import Path
from typing import Final

import anyio
from redis.exceptions import RedisError

from controller.model import Health, RouteId, Traffic
from controller.provision.fleet.replica import Fault
from probe.wire import OutcomeKind
from tests.fakes.outage_figures import (
    FRESH_WITHIN_S,
    FULL,
    HOLD_WITHIN_S,
    REDUCED,
    TARGETS_WITHIN_S,
    Durations,
    Findings,
    Outage,
    is_bad,
    judge,
)
from tests.fakes.outage_rig import POLL_S, Rig

LOOK_S: Final = 0.5


class Run:
    """One rig, and what is done to it."""

    def __init__(self, rig: Rig, durations: Durations, chance: random.Random) -> None:
        self.rig, self.durations, self.chance = rig, durations, chance
        self.ids: tuple[RouteId, ...] = ()
        self.dead: set[RouteId] = set()
        """Those that really died."""

    @asynccontextmanager
    async def outage(self, name: str) -> AsyncIterator[Outage]:
        """Watch over the routes from before an outage until its aftermath is over."""
        found = Outage(name)
        before = await self.rig.active()
        self.ids = tuple(sorted(before))
        began = time.monotonic()
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, before, found)
            yield found
            found.seconds = round(time.monotonic() - began, 1)
            ended = time.monotonic()
            if self.durations.calm:
                await self._until(self._is_calm, within_s=self.durations.patience)
                found.calm_s = round(time.monotonic() - ended, 1)
            await anyio.sleep(self.durations.aftermath)
            group.cancel_scope.cancel()
        alive = before - self.dead
        found.evicted_live = len(alive - await self.rig.active())
        found.still_out = len(alive - await self.rig.serving())

    async def _watch(self, before: frozenset[RouteId], found: Outage) -> None:
        while True:
            seen = await self.rig.snapshot()
            if seen is not None:
                alive = before - self.dead
                mine = [route for route in seen.routes if route.id in alive]
                serving = sum(r.active and r.traffic is Traffic.ACTIVE for r in mine)
                found.lost_from_traffic = max(found.lost_from_traffic, len(alive) - serving)
                bad = sum(route.health is Health.UNHEALTHY for route in mine)
                found.unhealthy_max = max(found.unhealthy_max, bad)
            await anyio.sleep(LOOK_S)

    async def _until(
        self, holds: Callable[[], Awaitable[bool]], *, within_s: float
    ) -> float | None:
        """Return after how many seconds it held; None: not in time."""
        began = time.monotonic()
        while not await holds():
            if time.monotonic() - began > within_s:
                return None
            await anyio.sleep(POLL_S)
        return round(time.monotonic() - began, 2)

    async def _is_held(self) -> bool:
        seen = await self.rig.metrics()
        return any(name == "incident_active" and value for (name, _), value in seen.items())

    async def _is_calm(self) -> bool:
        return bool(await self.rig.metrics()) and not await self._is_held()

    async def _has_targets(self) -> bool:
        try:
            return self.rig.targets() >= len(self.ids)
        except RedisError:
            return False

    def _fresh_since(self, moment_s: float) -> Callable[[], Awaitable[bool]]:
        async def fresh() -> bool:
            try:
                found = [s.last_check >= moment_s for s in self.rig.statuses(self.ids)]
            except RedisError:
                return False
            return len(found) == len(self.ids) and all(found)

        return fresh

    async def _recovery(self, found: Outage, since_s: float) -> None:
        """Measure how targets and statuses come back; `since_s` is wall time, as is the bus's."""
        began = time.monotonic()
        found.targets_back_s = await self._until(
            self._has_targets, within_s=self.durations.patience
        )
        fresh = await self._until(self._fresh_since(since_s), within_s=self.durations.patience)
        found.fresh_s = None if fresh is None else round(time.monotonic() - began, 2)
        judge(found, "targets_back_s", TARGETS_WITHIN_S)
        judge(found, "fresh_s", FRESH_WITHIN_S)

    async def _hold(self, found: Outage, *, for_s: float) -> None:
        """Measure when HOLD begins, within an outage of `for_s`."""
        began = time.monotonic()
        found.hold_s = await self._until(self._is_held, within_s=for_s)
        await anyio.sleep(max(0.0, for_s - (time.monotonic() - began)))

    async def bus_down(self, found: Outage) -> None:
        """Kill the bus; it comes back empty."""
        self.rig.bus.kill()
        await self._hold(found, for_s=self.durations.bus)
        if found.hold_s is not None or self.durations.bus > HOLD_WITHIN_S:
            judge(found, "hold_s", HOLD_WITHIN_S)
        since_s = time.time()
        self.rig.bus.start()
        self.rig.redis.connection_pool.disconnect()
        found.felt = self.durations.bus
        await self._recovery(found, since_s)

    async def flushes(self, found: Outage) -> None:
        """Take the bus's memory, again and again."""
        for _ in range(self.durations.flushes):
            since_s = time.time()
            self.rig.redis.flushall()
            found.felt += 1
            await self._recovery(found, since_s)
            await anyio.sleep(self.durations.flush_gap)

    async def no_probers(self, found: Outage) -> None:
        """Kill every prober."""
        for prober in self.rig.probers:
            prober.end(patience_s=0.0)
        await self._hold(found, for_s=self.durations.probers)
        since_s = time.time()
        for prober in self.rig.probers:
            prober.start()
        found.felt = self.durations.probers
        found.fresh_s = await self._until(
            self._fresh_since(since_s), within_s=self.durations.patience
        )
        judge(found, "fresh_s", FRESH_WITHIN_S + 15.0)  # a dead prober's heartbeat lives so long

    async def database_restarts(self, found: Outage) -> None:
        """Take the database away for moments, and meanwhile one replica really dies."""
        victim = self.chance.choice(self.ids)
        self.dead.add(victim)
        await self.rig.fleet.inject([victim], Fault.KILL)
        ends = time.monotonic() + self.durations.database
        while time.monotonic() < ends:
            down_s = self.chance.uniform(*self.durations.database_down)
            if self.rig.postgres is None:
                await anyio.to_thread.run_sync(_lock, self.rig.file, down_s)
            else:
                self.rig.postgres.stop()
                await anyio.sleep(down_s)
                self.rig.postgres.start()
            found.felt += 1
            await anyio.sleep(self.chance.uniform(*self.durations.database_up))

        async def replaced() -> bool:
            seen = await self.rig.snapshot()
            return seen is not None and not any(r.id == victim and r.active for r in seen.routes)

        if await self._until(replaced, within_s=self.durations.patience) is None:
            found.late.append("the replica that died is still there")

    async def one_isolated(self, found: Outage) -> None:
        """Let one of the probers lose its way to the replicas, but not to the bus."""
        gone, name = self.rig.probers[-1], "prober-cut-off"
        gone.end()
        stranger = self.rig.a_prober_cut_off(name)
        stranger.start()

        async def speaks() -> bool:
            wrong = [
                s
                for s in self.rig.statuses(self.ids)
                if s.prober.startswith(name) and s.outcome is OutcomeKind.FAILED
            ]
            found.felt = max(found.felt, float(len(wrong)))
            return bool(wrong)

        if await self._until(speaks, within_s=self.durations.patience) is None:
            found.late.append(f"it never spoke: {stranger.log_tail()}")
        ends = time.monotonic() + self.durations.isolated
        while time.monotonic() < ends:
            await speaks()
            await anyio.sleep(POLL_S)
        stranger.end(patience_s=0.0)
        since_s = time.time()
        gone.start()
        found.fresh_s = await self._until(
            self._fresh_since(since_s), within_s=self.durations.patience
        )
        judge(found, "fresh_s", FRESH_WITHIN_S + 15.0)

    async def control(self) -> float | None:
        """Let one replica really fail: it must go, or all that follows shows nothing."""
        await anyio.sleep(self.durations.settle)
        victim = self.chance.choice(tuple(await self.rig.active()))
        await self.rig.fleet.inject([victim], Fault.FAIL)

        async def gone() -> bool:
            return victim not in await self.rig.active()

        return await self._until(gone, within_s=self.durations.patience)

    async def ready(self) -> bool:
        """Tell whether every replica wanted is ready, and nothing moves."""
        seen = await self.rig.snapshot()
        if seen is None:
            return False
        active = [route for route in seen.routes if route.active]
        return (
            len(active) == self.rig.size.routes
            and all(route.ready and route.traffic is Traffic.ACTIVE for route in active)
            and all(one.rollout is None for one in seen.deployments.values())
        )


OUTAGES: Final[Mapping[str, Callable[[Run, Outage], Awaitable[None]]]] = {
    "one_isolated": Run.one_isolated,
    "database_restarts": Run.database_restarts,
    "no_probers": Run.no_probers,
    "bus_down": Run.bus_down,
    "flushes": Run.flushes,
}


def _lock(path: Path, for_s: float) -> None:
    """Hold the database's file as another process would that does not let go."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30.0)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(for_s)
        connection.execute("ROLLBACK")


async def run(
    directory: Path, *, full: bool, postgres: bool, only: tuple[str, ...], seed: int
) -> Findings:
    """Run the outages one after another on one rig."""
    size, durations = FULL if full else REDUCED
    rig = Rig(directory, size, postgres=postgres)
    found = Findings(routes=size.routes, database="postgresql" if postgres else "sqlite")
    began = time.monotonic()
    try:
        await rig.start()
        one = Run(rig, durations, random.Random(seed))  # noqa: S311 - a seed
        if await one._until(one.ready, within_s=durations.patience) is None:
            raise TimeoutError(f"the fleet does not get ready: {rig.controller.log_tail()}")
        if full:
            found.control_evicted_s = await one.control()
        for name in only:
            if await one._until(one.ready, within_s=durations.patience) is None:
                raise TimeoutError(f"the fleet is not ready before {name}")
            async with one.outage(name) as outage:
                await OUTAGES[name](one, outage)
            found.outages[name] = outage
            print(json.dumps({name: asdict(outage)}), file=sys.stderr, flush=True)  # noqa: T201
        seen = await rig.metrics()
        found.evictions = {label: v for (n, label), v in seen.items() if n == "evictions_total"}
        found.violations = {
            label: value
            for (name, label), value in seen.items()
            if name == "invariant_violations_total" and value
        }
        log = await anyio.Path(rig.controller.log_path).read_text()
        found.controller_starts = log.count("event=leading")
    finally:
        await rig.close()
    found.seconds = round(time.monotonic() - began, 1)
    return found


def main() -> int:
    """Run, print, and return 1 if something happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--only", default=",".join(OUTAGES))
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    only = tuple(asked.only.split(","))
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        found = anyio.run(
            lambda: run(
                Path(directory),
                full=asked.full,
                postgres=asked.postgres,
                only=only,
                seed=asked.seed,
            )
        )
    print(json.dumps(asdict(found)))  # noqa: T201 - its output
    lacks_control = asked.full and found.control_evicted_s is None
    return int(is_bad(found) or lacks_control)


if __name__ == "__main__":
    sys.exit(main())
