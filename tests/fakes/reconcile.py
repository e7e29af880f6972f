"""Handlers that do what a test says, an observer without a bus, and a bus that keeps a record."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import pytest

from controller.bus import ControlBus, Written
from controller.db.repository import Repository
from controller.metrics import ControllerMetrics
from controller.model import Decision, Deployment, Health, Route, RouteChange
from controller.reconcile.handler import (
    Applied,
    DeploymentHandler,
    Plan,
    RouteHandler,
    Schedule,
    World,
)
from controller.reconcile.observe import Observer
from controller.reconcile.runner import Handler, Runner
from controller.route.guard import BusView, HoldCause
from probe.errors import BusUnreachable
from probe.wire import ReplicaId, ReplicaProbeTarget
from tests.fakes.database import change
from tests.fakes.nouns import a_view, snapshot_of

ALWAYS: Final = Schedule(period_s=1.0, on_mark_s=0.0)


def a_world(
    routes: Iterable[Route] = (),
    *deployments: Deployment,
    view: BusView | None = None,
    hold: Iterable[HoldCause] = (),
) -> World:
    """Build what a handler is given, with a bus in order."""
    return World(
        snapshot=snapshot_of(routes, *deployments), view=view or a_view(), hold=frozenset(hold)
    )


class Eyes(Observer):
    """Sees the database, and a bus in order."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.while_looking: Callable[[], None] | None = None
        """What happens meanwhile."""

    async def observe(self) -> World:
        if self.while_looking is not None:
            self.while_looking()
        snapshot = await self._repository.observe()
        return World(snapshot=snapshot, view=a_view(), hold=frozenset())

    async def again(self, world: World) -> World:
        del world
        return await self.observe()


class EachRoute(RouteHandler):
    """Asks `plan` what to do with the routes it is given; remembers what it was told after."""

    def __init__(
        self,
        plan: Callable[[Sequence[Route]], Plan],
        *,
        name: str = "each_route",
        schedule: Schedule = ALWAYS,
    ) -> None:
        super().__init__(schedule)
        self.plan = plan
        self.name = name  # type: ignore[misc]  # one class serves as several handlers here
        self.told: list[Applied] = []
        self.runs = 0

    def select(self, world: World) -> Sequence[Route]:
        self.runs += 1
        return world.snapshot.routes

    async def decide(self, world: World, routes: Sequence[Route]) -> Plan:
        return self.plan(routes)

    async def after(self, world: World, applied: Applied) -> None:
        self.told.append(applied)


class EachDeployment(DeploymentHandler):
    """Asks `decision` what to do with each deployment."""

    name = "each_deployment"

    def __init__(self, decision: Callable[[Deployment], Decision | None]) -> None:
        super().__init__(ALWAYS)
        self.decision = decision

    def select(self, world: World) -> Sequence[Deployment]:
        return list(world.snapshot.deployments.values())

    def decide(
        self, world: World, deployment: Deployment, routes: Sequence[Route]
    ) -> Decision | None:
        return self.decision(deployment)


class Ticks:
    """A runner on a real database; time moves when told to."""

    runner: Runner

    def __init__(self, repository: Repository) -> None:
        self.now_s = 1000.0
        self.metrics = ControllerMetrics()
        self.eyes = Eyes(repository)
        self._repository = repository

    def of(self, *handlers: Handler) -> "Ticks":
        """Let these handlers run from now on."""
        self.runner = Runner(
            handlers,
            repository=self._repository,
            observer=self.eyes,
            metrics=self.metrics,
            clock=lambda: self.now_s,
        )
        return self

    def failures(self, handler: str) -> float | None:
        """Return how many failures are counted for a handler."""
        return self.metrics.registry.get_sample_value(
            "fleetpulse_reconcile_failures_total", {"handler": handler}
        )


class RecordingBus(ControlBus):
    """Keeps the targets it is given; `away` makes every write fail."""

    def __init__(self) -> None:
        self.targets: dict[ReplicaId, ReplicaProbeTarget] = {}
        self.writes: list[list[str]] = []
        self.refuse: dict[ReplicaId, str] = {}
        """Targets that are refused, and why."""
        self.away = False

    async def write_targets(self, targets: Iterable[ReplicaProbeTarget]) -> Written:
        self._reach()
        given = {target.replica_id: target for target in targets}
        self.writes.append([*given])
        failed = [(key, why) for key, why in self.refuse.items() if key in given]
        self.targets |= {key: given[key] for key in given.keys() - self.refuse.keys()}
        return Written(written=len(given) - len(failed), failed=failed)

    async def remove_targets(self, replica_ids: Iterable[ReplicaId]) -> None:
        self._reach()
        for replica_id in replica_ids:
            self.targets.pop(replica_id, None)

    def _reach(self) -> None:
        if self.away:
            raise BusUnreachable("the recording bus is away: set `away` to False")


@pytest.fixture
def ticks(repository: Repository) -> Ticks:
    """A runner to be given its handlers."""
    return Ticks(repository)


def degrade(routes: Sequence[Route]) -> Plan:
    """Plan a change of every route."""
    return plan_of(*(change(route, health=Health.DEGRADED) for route in routes))


def nothing(routes: Sequence[Route]) -> Plan:
    """Plan no change."""
    del routes
    return Plan()


def plan_of(*changes: RouteChange) -> Plan:
    """Build a plan without notes."""
    return Plan(changes=changes)
