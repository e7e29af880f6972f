"""What an end-to-end test does to a local stack, and how it waits for what follows."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from controller.bus import ControlBus, connect
from controller.db.repository import Repository
from controller.db.session import open_database
from controller.model import HealthCheck, Policy, RevisionSpec, Snapshot
from controller.provision.fleet.client import FleetClient
from controller.service import Service
from controller.up.sight import Sight
from controller.up.stack import Stack

POLL_S = 0.1


class Operator:
    """The service, the fleet and a look at everything, on one stack."""

    def __init__(self, stack: Stack, service: Service, fleet: FleetClient, sight: Sight) -> None:
        self.stack = stack
        self.service = service
        self.fleet = fleet
        self.sight = sight

    async def apply(self, name: str, replicas: int, *, version: int = 1, **sim: str) -> None:
        """Apply a deployment of simulated replicas, each probed every second."""
        environment = {f"SIM_{key.upper()}": value for key, value in sim.items()}
        await self.service.apply_deployment(
            name,
            replicas=replicas,
            policy=Policy(rollout_timeout_s=120),
            cleanup_target_statuses=frozenset(),
            revision=RevisionSpec(
                image=f"{name}:{version}",
                environment={"SIM_LOAD_S": "0.2"} | environment,
                health_check=HealthCheck(
                    path="/health",
                    interval_s=1.0,
                    max_wait_time_s=1.0,
                    max_retries=3,
                    initial_delay_s=30.0,
                ),
            ),
        )

    async def snapshot(self) -> Snapshot:
        """Look at everything, and return the database's side of it."""
        await self.sight.look()
        assert self.sight.snapshot is not None
        return self.sight.snapshot

    async def until(self, true: Callable[[Snapshot], bool], *, within_s: float) -> Snapshot:
        """Look until `true` holds; fail when it does not within `within_s`."""
        snapshot = await self.snapshot()
        with anyio.move_on_after(within_s):
            while not true(snapshot):
                self.stack.tend()
                await anyio.sleep(POLL_S)
                snapshot = await self.snapshot()
        assert true(snapshot), f"not within {within_s} s: {describe(snapshot)}"
        return snapshot

    async def throughout(
        self, check: Callable[[Snapshot], Awaitable[None]], *, for_s: float
    ) -> None:
        """Look again and again for `for_s`, and let `check` object."""
        with anyio.move_on_after(for_s):
            while True:
                await check(await self.snapshot())
                await anyio.sleep(POLL_S * 5)

    def evictions(self) -> int:
        """Return how many routes the controller has evicted."""
        return self.sight.totals["fleetpulse_evictions_total"]

    def violations(self) -> int:
        """Return how many invariants were seen broken."""
        return self.sight.totals["fleetpulse_invariant_violations_total"]


@asynccontextmanager
async def operating(stack: Stack) -> AsyncIterator[Operator]:
    """Open everything an operator needs on a running stack."""
    database = open_database(stack.database_url)
    bus = ControlBus(connect(stack.redis_url))
    fleet = FleetClient(stack.fleet_socket)
    sight = Sight(stack, Repository(database), bus)
    try:
        yield Operator(stack, Service(database), fleet, sight)
    finally:
        await sight.close()
        await fleet.close()
        await bus.aclose()
        await database.close()


def all_ready(replicas: int) -> Callable[[Snapshot], bool]:
    """Return whether exactly so many routes are ready, none other active, and all is at rest."""

    def true(snapshot: Snapshot) -> bool:
        active = [route for route in snapshot.routes if route.active]
        return (
            len(active) == replicas
            and all(route.ready for route in active)
            and all(d.rollout is None for d in snapshot.deployments.values())
        )

    return true


def describe(snapshot: Snapshot) -> str:
    """Return the states of all routes in one line."""
    routes = [f"{r.status}/{r.stage}/{r.health}" for r in snapshot.routes]
    lifecycles = [f"{d.name}:{d.lifecycle}" for d in snapshot.deployments.values()]
    return f"{lifecycles} { {state: routes.count(state) for state in set(routes)} }"
