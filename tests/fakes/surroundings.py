"""What a controller process of a test lives among: a simulated fleet and a prober, both real."""

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from controller.child import Child
from controller.embedded import EmbeddedValkey
from controller.model import HealthCheck, RevisionSpec
from controller.provision.fleet.client import FleetClient
from controller.provision.fleet.process import running_fleet
from tests.fakes.prober import ProberProcess

CHECK: Final = HealthCheck(path="/health", interval_s=1.0, max_wait_time_s=1.0, max_retries=3)


def simulated(version: int = 1, *, load_s: float = 0.0) -> RevisionSpec:
    """Return what a simulated replica runs, probed every second."""
    return RevisionSpec(
        image=f"demo:{version}", environment={"SIM_LOAD_S": str(load_s)}, health_check=CHECK
    )


class Surroundings(NamedTuple):
    """What runs, and how a controller is told of it."""

    fleet: FleetClient
    fleet_process: Child
    settings: Mapping[str, object]

    @classmethod
    @asynccontextmanager
    async def running(cls, bus: EmbeddedValkey, log: Path) -> AsyncIterator["Surroundings"]:
        """Run both until the block ends; the prober logs to `log`."""
        with tempfile.TemporaryDirectory(prefix="fp-") as directory:
            socket = Path(directory, "fleet")
            async with running_fleet(socket) as process, ProberProcess.running(bus.url, log):
                client = FleetClient(socket)
                try:
                    yield cls(client, process, {"provisioner": "simulated", "fleet_socket": socket})
                finally:
                    await client.close()
