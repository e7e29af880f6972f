"""Everything between a route in the database and a proxy that routes by it, led by hand.

One scene per test: the real handlers, outbox and bus, a line that can be cut, and a reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from sqlalchemy import select, update

from controller.db.publications import KIND, Publications
from controller.db.repository import Repository
from controller.db.session import Database
from controller.db.tables import publications
from controller.db.tables import routes as route_rows
from controller.model import Deployment, Route, RouteChange, RouteStatus, Stage, Traffic
from controller.publish.appproxy import AppProxy, Outcome
from controller.reconcile.handler import Schedule
from controller.reconcile.outbox import Deliverer
from controller.reconcile.publish import SyncProxy
from controller.reconcile.traffic import Drain
from controller.route.leave import leave
from controller.route.table import Publication
from probe.errors import BusUnreachable
from tests.fakes.appproxy import FakeAppProxy
from tests.fakes.database import change, rows
from tests.fakes.reconcile import Ticks

NO_MARKS = Schedule(period_s=1.0)
TICKS_TO_CONVERGE = 2


class Line(AppProxy):
    """The way to the bus; `away` cuts it."""

    away = False

    async def write(
        self, publications: Sequence[Publication], *, announce: bool
    ) -> tuple[Outcome, ...]:
        if self.away:
            raise BusUnreachable("the line is cut: set `away` to False")
        return await super().write(publications, announce=announce)


class Term:
    """One leader's publishing: a sync, a drain, a delivery, each when the test says so."""

    def __init__(self, repository: Repository, line: Line, ticks: Ticks, *, epoch: int) -> None:
        self.told = 0
        self.epoch = epoch
        self.sync = SyncProxy(
            Publications(repository.database),
            line,
            ticks.metrics,
            NO_MARKS,
            on_delivered=self._count,
        )
        self.deliverer = Deliverer(
            {KIND: self.sync.send},
            database=repository.database,
            metrics=ticks.metrics,
            epoch=epoch,
            clock=lambda: ticks.now_s,
        )
        self._ticks = ticks
        self._handlers = (self.sync, Drain(NO_MARKS, self.sync.registry, timeout_s=60.0))

    def _count(self) -> None:
        self.told += 1

    async def decide(self) -> int:
        """Let the handlers run once; return how many rows they changed."""
        self._ticks.now_s += 1.0
        return await self._ticks.of(*self._handlers).runner.tick(epoch=self.epoch)

    async def tick(self) -> int:
        """Run the handlers, and deliver what they committed."""
        changed = await self.decide()
        await self.deliverer.deliver()
        return changed


@dataclass(slots=True, kw_only=True)
class Scene:
    """A deployment of four routes that serve, its leader, the bus, and a proxy."""

    repository: Repository
    database: Database
    client: Redis
    line: Line
    ticks: Ticks
    term: Term
    reader: FakeAppProxy
    deployment: Deployment
    routes: tuple[Route, ...]

    def another_term(self) -> Term:
        """Build what a leader begins with, who knows what the database has and no more."""
        return Term(self.repository, self.line, self.ticks, epoch=self.term.epoch)

    async def settle(self) -> None:
        """Let everybody have the ticks they may take to agree."""
        for _ in range(TICKS_TO_CONVERGE):
            await self.term.tick()
            await self.reader.tick()

    @property
    def known(self) -> list[Route | str]:
        """Return the routes the proxy knows, as the scene has them."""
        ours = {route.id: route for route in self.routes}
        known = sorted(self.reader.endpoints[self.deployment.id].routes)
        return [ours.get(key, key) for key in known]  # type: ignore[call-overload]  # an id is text

    async def let_go(self, routes: Sequence[Route], category: str, *, code: str = "") -> None:
        """Send routes away, with the record of a handler."""
        changes = [leave(r, category=category, message="goes", error_code=code) for r in routes]
        await self.repository.apply(changes, epoch=self.term.epoch)

    async def lose(self, routes: Sequence[Route]) -> None:
        """Let routes be gone without a record, as a bug or a hand in the database would."""
        gone = update(route_rows).where(route_rows.c.id.in_([route.id for route in routes]))
        async with self.database.write(epoch=None) as write:
            await write.connection.execute(gone.values(status=RouteStatus.TERMINATED.value))

    async def stages(self) -> list[Stage | None]:
        """Return where the routes stand that have not ended."""
        return [route.stage for route in (await self.repository.observe()).routes]

    async def kept(self) -> list[tuple[int, str]]:
        """Return generation and cause of each table."""
        query = select(publications.c.generation, publications.c.cause)
        return [(generation, cause) for generation, cause in await rows(self.database, query)]

    def count(self, outcome: str) -> float | None:
        """Return how many tables ended so."""
        return self.ticks.metrics.registry.get_sample_value(
            "fleetpulse_publishes_total", {"outcome": outcome}
        )

    @property
    def incident(self) -> float | None:
        """Return whether a refused table is shown."""
        return self.ticks.metrics.registry.get_sample_value(
            "fleetpulse_incident_active", {"kind": "publication_refused"}
        )


def serve(route: Route) -> RouteChange:
    """Let a route serve at an address of its own."""
    number = int(route.id[-2:], 16)
    return change(
        route,
        category="check_warming_up",
        status=RouteStatus.RUNNING,
        traffic=Traffic.ACTIVE,
        traffic_ratio=1.0,
        session_id=f"session-{number}",
        host="127.0.0.1",
        port=8000 + number,
    )
