"""sync_proxy by itself: what it commits, what it renews and when, and what it does without."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import structlog.testing

from controller.db.publications import Publications
from controller.db.repository import Repository
from controller.db.session import Database
from controller.errors import LeaseLost
from controller.metrics import ControllerMetrics
from controller.model import Deployment, Lifecycle, Route
from controller.publish.appproxy import AppProxy, Outcome
from controller.reconcile.handler import Schedule, World
from controller.reconcile.publish import SyncProxy
from controller.route.table import Publication
from probe.errors import BusUnreachable
from tests.fakes.database import some_routes
from tests.fakes.publishing import serve
from tests.fakes.reconcile import a_world

PERIOD_S = 30.0


class Kept(AppProxy):
    """A bus in memory, which refuses what is older as the script does."""

    def __init__(self) -> None:
        self.tables: dict[str, Publication] = {}
        self.announced: list[str] = []
        self.writes = 0
        self.away = False

    async def write(
        self, publications: Sequence[Publication], *, announce: bool
    ) -> tuple[Outcome, ...]:
        if self.away:
            raise BusUnreachable("the bus in memory is away: set `away` to False")
        self.writes += 1
        outcomes = tuple(map(self._keep, publications))
        for each, outcome in zip(publications, outcomes, strict=True):
            if outcome is Outcome.CHANGED or (announce and outcome is Outcome.SAME):
                self.announced.append(each.deployment_id)
        return outcomes

    def _keep(self, publication: Publication) -> Outcome:
        known = self.tables.get(publication.deployment_id)
        if known == publication:
            return Outcome.SAME
        if known is not None and known.version > publication.version:
            return Outcome.OLDER
        self.tables[publication.deployment_id] = publication
        return Outcome.CHANGED


class Desk:
    """A sync on a real database, and a bus in memory; time is the snapshot's."""

    def __init__(self, database: Database, epoch: int) -> None:
        self.repository = Repository(database)
        self.bus = Kept()
        self.epoch = epoch
        self.told = 0
        self.sync = SyncProxy(
            Publications(database),
            self.bus,
            ControllerMetrics(),
            Schedule(period_s=PERIOD_S),
            on_delivered=self._count,
        )
        self._later_ms = 0

    def _count(self) -> None:
        self.told += 1

    async def run(self, *, after_s: float = 0.0) -> int:
        """Let it run over what the database has, so much later than the last time."""
        self._later_ms += int(after_s * 1000)
        snapshot = await self.repository.observe()
        world = a_world(snapshot.routes, *snapshot.deployments.values())
        later = replace(world.snapshot, now_ms=world.snapshot.now_ms + self._later_ms)
        world = replace(world, snapshot=later)
        return await self.sync.commit(world, epoch=self.epoch)


@pytest.fixture
def desk(database: Database, epoch: int) -> Desk:
    return Desk(database, epoch)


@pytest.fixture
async def routes(repository: Repository, deployment: Deployment, epoch: int) -> tuple[Route, ...]:
    created = await some_routes(repository, deployment, 2, epoch=epoch)
    await repository.apply([serve(route) for route in created], epoch=epoch)
    return (await repository.observe()).routes


async def test_a_deployment_that_never_served_is_not_told_of(
    desk: Desk, deployment: Deployment
) -> None:
    """R-04: nothing to say is no I/O on the bus, and no row."""
    before = dict(desk.repository.sql_writes)
    assert await desk.run() == 0
    assert (dict(desk.repository.sql_writes), desk.bus.writes) == (before, 0)
    assert deployment.lifecycle is Lifecycle.DEPLOYING


async def test_what_is_there_is_renewed_once_a_period(
    desk: Desk, routes: tuple[Route, ...]
) -> None:
    """I10: and in between the bus is left alone."""
    assert await desk.run() == 1
    assert desk.bus.writes == 1
    for _ in range(3):
        assert await desk.run(after_s=5) == 0
    assert desk.bus.writes == 1
    assert await desk.run(after_s=PERIOD_S) == 0
    assert (desk.bus.writes, len(desk.bus.announced)) == (2, 1)
    assert routes


async def test_a_clock_that_stepped_back_delays_no_renewal(
    desk: Desk, routes: tuple[Route, ...]
) -> None:
    """R-45: keys live an hour; a database's clock set back by one let all of them expire."""
    await desk.run()
    await desk.run(after_s=-3600)
    assert desk.bus.writes == 2
    await desk.run(after_s=PERIOD_S)
    assert desk.bus.writes == 3
    assert routes


async def test_a_bus_that_failed_is_tried_at_the_next_run_whatever_the_period(
    desk: Desk, routes: tuple[Route, ...]
) -> None:
    desk.bus.away = True
    with structlog.testing.capture_logs() as logs:
        assert await desk.run() == 1, "committed all the same"
    assert [entry["event"] for entry in logs] == ["proxy_not_synced"]
    desk.bus.away = False
    assert await desk.run(after_s=1) == 0
    (published,) = desk.bus.tables.values()
    assert published.table.route_ids == {route.id for route in routes}
    assert desk.told == 1


async def test_a_sender_that_fails_is_asked_again(
    desk: Desk, deployment: Deployment, routes: tuple[Route, ...]
) -> None:
    """R-48: the outbox keeps what raises."""
    desk.bus.away = True
    table = '{"app":"demo","routes":[],"health_check":null}'
    with pytest.raises(BusUnreachable):
        await desk.sync.send(deployment.id, desk.epoch, 1, table)
    desk.bus.away = False
    await desk.sync.send(deployment.id, desk.epoch, 1, table)
    assert (desk.told, len(desk.bus.announced)) == (1, 1)
    await desk.sync.send(deployment.id, desk.epoch, 1, table)
    assert (desk.told, len(desk.bus.announced)) == (1, 1), "told of already"
    assert routes


async def test_a_leader_of_the_past_commits_and_tells_nothing(
    desk: Desk, routes: tuple[Route, ...]
) -> None:
    """R-57, I8"""
    world: World = a_world(routes, *(await desk.repository.observe()).deployments.values())
    with pytest.raises(LeaseLost):
        await desk.sync.commit(world, epoch=desk.epoch + 1)
    assert (desk.bus.writes, desk.sync.registry.newest) == (0, {})
