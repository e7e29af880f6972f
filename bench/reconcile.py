"""`python -m bench.reconcile`: what the controller costs for a large fleet, at rest and changing.

Real handlers on a real database (SQLite, or the one `--database` names, which must be empty) and
a real Valkey. CPU of this process alone, per tick in which every handler is due: a tick is one
look at everything, and whatever follows from it.
"""

import argparse
import json
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import anyio
from redis.asyncio import Redis

from bench.fleet_rows import BusFigure, FleetSize, routes_of, write_fleet
from controller.bus import BusFiles, ControlBus, connect
from controller.db import migrate
from controller.db.repository import Repository
from controller.db.session import Database, open_database
from controller.embedded import EmbeddedValkey
from controller.lease import Lease
from controller.metrics import ControllerMetrics
from controller.provision.external import ExternalProvisioner
from controller.reconcile.leadership import Leadership
from controller.settings import Settings
from probe.wire import Keys

SHARE_CHANGED = 10
"""One route in so many comes back to health in the tick that counts changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What one tick cost."""

    cpu_s: float
    wall_s: float
    rows_written: int


class Bench:
    """One controller's parts, led by hand."""

    def __init__(self, database: Database, bus_url: str, database_url: str) -> None:
        settings = Settings(database_url=database_url, redis_url=bus_url, lease_s=600)
        bus = ControlBus(connect(bus_url, files=BusFiles.of(settings)), Keys())
        self._repository = Repository(database)
        self._lease = Lease(database, holder="bench", lease_s=600)
        self._leadership = Leadership(
            settings, bus, self._repository, ControllerMetrics(), ExternalProvisioner()
        )

    async def tick(self) -> Tick:
        """Let every handler run once."""
        epoch = self._lease.epoch or await self._lease.acquire() or 0
        self._leadership.runner.hurry()
        before = sum(self._repository.sql_writes.values())
        cpu, wall = time.process_time(), time.perf_counter()
        await self._leadership.runner.tick(epoch=epoch)
        return Tick(
            cpu_s=time.process_time() - cpu,
            wall_s=time.perf_counter() - wall,
            rows_written=sum(self._repository.sql_writes.values()) - before,
        )


async def measure(size: FleetSize, database_url: str, bus: EmbeddedValkey) -> dict[str, object]:
    """Return the figures of one run."""
    await migrate.upgrade(database_url)
    database = open_database(database_url)
    try:
        await write_fleet(database, size, unhealthy=size.routes // SHARE_CHANGED)
        redis = Redis.from_url(bus.url)
        figure = BusFigure(redis, await routes_of(database))
        await figure.speak()
        bench = Bench(database, bus.url, database_url)
        changed = await bench.tick()
        settled = await bench.tick()
        rest = []
        for _ in range(5):
            await figure.speak()
            rest.append(await bench.tick())
        await redis.aclose()
    finally:
        await database.close()
    calm = sorted(rest, key=lambda tick: tick.cpu_s)[len(rest) // 2]
    return {
        "routes": size.routes,
        "deployments": size.deployments,
        "history_rows": size.history_rows,
        "rest_cpu_s": round(calm.cpu_s, 3),
        "rest_wall_s": round(calm.wall_s, 3),
        "rest_rows_written": sum(tick.rows_written for tick in rest),
        "changed_routes": size.routes // SHARE_CHANGED,
        "changed_cpu_s": round(changed.cpu_s, 3),
        "changed_wall_s": round(changed.wall_s, 3),
        "changed_rows_written": changed.rows_written + settled.rows_written,
        "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Print one object with the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=1000)
    parser.add_argument("--routes-each", type=int, default=10)
    parser.add_argument("--history", type=int, default=1_000_000)
    parser.add_argument("--database", default="", help="an empty database; default: SQLite")
    chosen = parser.parse_args()
    size = FleetSize(
        deployments=chosen.deployments,
        routes_each=chosen.routes_each,
        history_rows=chosen.history,
    )
    with tempfile.TemporaryDirectory(prefix="fp-bench-") as directory:
        bus = EmbeddedValkey(Path(directory))
        bus.start()
        try:
            url = chosen.database or f"sqlite:///{directory}/fleet.db"
            print(json.dumps(anyio.run(measure, size, url, bus)))
        finally:
            bus.stop()


if __name__ == "__main__":
    main()
