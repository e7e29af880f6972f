"""A deployment that is never at rest: what a controller does when a test lets things happen to it.

Its replicas are simulated and have no health check, so that they are ready without a prober.
"""

import random
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio

from controller.errors import Conflict, DatabaseUnreachable
from controller.model import RevisionSpec
from controller.provision.fleet.process import running_fleet
from controller.service import Service
from tests.fakes.prober import until

BARE: Final = RevisionSpec(image="demo:1", environment={"SIM_LOAD_S": "0"})
RESTLESS: Final[Mapping[str, object]] = {
    "max_period_s": 0.05,
    "first_sync_s": 0,
    "termination_grace_s": 0,
}
"""Settings of a controller that looks for work in every tick."""
SETTLED: Final = 3
"""Replicas at the end."""


@asynccontextmanager
async def simulated_fleet() -> AsyncIterator[Mapping[str, object]]:
    """Run a fleet; yield how a controller is told of it."""
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        socket = Path(directory, "fleet")
        async with running_fleet(socket):
            yield {"provisioner": "simulated", "fleet_socket": socket}


async def keep_busy(service: Service, chance: random.Random) -> None:
    """Change the number of replicas again and again, until cancelled."""
    while True:
        try:
            await service.scale("demo", chance.randint(2, 8))
        except (Conflict, DatabaseUnreachable):
            await anyio.sleep(0.1)
        await anyio.sleep(chance.uniform(0.1, 0.4))


async def settle(service: Service) -> None:
    """Ask for the final number of replicas, and wait until they are ready and alone."""
    await service.scale("demo", SETTLED)

    async def well() -> bool:
        routes = await service.list_routes()
        return len(routes) == SETTLED and all(route.ready for route in routes)

    await until(well, within_s=60)
