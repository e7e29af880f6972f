"""Keeping proxies told: what is committed of each deployment's table, and what is delivered.

A table that changed is committed with the effect that delivers it, and sent after that commit
(R-57); `send` is what the outbox calls. Each full period every table is written to the bus once
more, which renews its life, and heals a bus that lost its memory. At rest nothing else happens.
"""

from collections.abc import Callable, Iterable, Mapping

import structlog

from controller.db.publications import NewTable, Publications
from controller.errors import Conflict
from controller.metrics import ControllerMetrics, Publish
from controller.model import DeploymentId, Lifecycle, RouteId, Snapshot
from controller.publish.appproxy import AppProxy, Outcome
from controller.reconcile.handler import FleetHandler, Schedule, World
from controller.reconcile.registry import Registry
from controller.route.table import (
    Cause,
    ProxyTable,
    Publication,
    cause_among,
    cause_of,
    decode,
    departed,
    emptied,
    shrinks,
    tables,
)
from probe.errors import BusError

log = structlog.get_logger()


class SyncProxy(FleetHandler):
    """RUNNING and ACTIVE routes are known to proxies; no other route is."""

    name = "sync_proxy"

    def __init__(
        self,
        publications: Publications,
        proxy: AppProxy,
        metrics: ControllerMetrics,
        schedule: Schedule,
        *,
        on_delivered: Callable[[], None],
    ) -> None:
        """Prepare; `on_delivered` is called when the bus has another table than before."""
        super().__init__(schedule)
        self._publications = publications
        self._proxy = proxy
        self._metrics = metrics
        self._on_delivered = on_delivered
        self.registry = Registry()
        self._refused: dict[DeploymentId, ProxyTable] = {}
        self._synced_at_ms: int | None = None
        self._announce = False
        """Whether an event may have been lost between a table and its failed end."""

    def forget(self) -> None:
        """Write everything at the next run: the bus lost its memory."""
        self._synced_at_ms = None

    async def commit(self, world: World, *, epoch: int) -> int:
        """Commit the tables that changed, and renew what the bus has when it is time."""
        if not self.registry.loaded:
            found = await self._publications.load()
            self.registry.load(found.newest, found.undelivered)
        written = await self._publish(world.snapshot, epoch=epoch)
        if self.registry.loaded:
            await self._sync(world.snapshot)
        return written

    async def send(self, subject: str, epoch: int, version: int, payload: str) -> None:
        """Deliver one committed table; the outbox's sender.

        Raises:
            BusError: if it did not arrive: to be tried again.
        """
        publication = Publication(
            deployment_id=DeploymentId(subject),
            epoch=epoch,
            generation=version,
            table=decode(payload),
        )
        # It may be there already: by a sync, which told of it, or by a try that was cut short.
        untold = not self.registry.has(publication)
        try:
            (outcome,) = await self._proxy.write([publication], announce=untold)
        except BusError:
            self._metrics.published(Publish.FAILED)
            raise
        if outcome is Outcome.OLDER:
            self._metrics.published(Publish.OLDER)
            return
        self._metrics.published(Publish.DELIVERED)
        if self.registry.delivered(publication):
            self._on_delivered()

    async def _publish(self, snapshot: Snapshot, *, epoch: int) -> int:
        newest = self.registry.newest
        wanted = tables(snapshot.deployments, snapshot.routes)
        changed = {
            key: table
            for key, table in wanted.items()
            if (table.routes if (before := newest.get(key)) is None else table != before.table)
        }
        kept = wanted.keys() | snapshot.unreadable.keys()
        gone = {key: each for key, each in newest.items() if key not in kept}
        changed |= {key: emptied(each.table) for key, each in gone.items() if each.table.routes}
        self._settle_refusals(changed)
        if not changed:
            return 0
        accepted = await self._accepted(changed, snapshot)
        if not accepted:
            return 0
        try:
            published = await self._publications.commit(accepted, epoch=epoch)
        except Conflict as error:
            log.warning("publication_lost", error=str(error))
            self.registry.loaded = False
            return 0
        newest |= {each.deployment_id: each for each in published}
        return len(published)

    async def _accepted(
        self, changed: Mapping[DeploymentId, ProxyTable], snapshot: Snapshot
    ) -> list[NewTable]:
        newest = self.registry.newest
        left = {
            key: departed(before.table, table)
            for key, table in changed.items()
            if (before := newest.get(key)) is not None
        }
        causes = await self._causes(left, snapshot)
        accepted = []
        for key, table in changed.items():
            before = newest.get(key)
            why = {route_id: causes[route_id] for route_id in left.get(key, ())}
            explained = frozenset(route_id for route_id, cause in why.items() if cause)
            if before is not None and shrinks(before.table, table, explained=explained):
                self._refuse(key, before.table, table, unexplained=len(why) - len(explained))
                continue
            seen = 0 if before is None else before.generation
            accepted.append(
                NewTable(deployment_id=key, seen=seen, table=table, cause=cause_among(why))
            )
        return accepted

    async def _causes(
        self, left: Mapping[DeploymentId, frozenset[RouteId]], snapshot: Snapshot
    ) -> dict[RouteId, Cause | None]:
        """Return why each route left its table, by the records."""
        causes: dict[RouteId, Cause | None] = {}
        unknown: set[RouteId] = set()
        for key, route_ids in left.items():
            deployment = snapshot.deployments.get(key)
            if deployment is None or deployment.lifecycle is Lifecycle.DESTROYING:
                causes |= dict.fromkeys(route_ids, Cause.DESTROY)
            elif deployment.forced(snapshot.now_ms):
                causes |= dict.fromkeys(route_ids, Cause.OPERATOR)
            else:
                unknown |= route_ids
        found = await self._publications.departures(unknown) if unknown else {}
        return causes | {
            route_id: cause_of(*found[route_id]) if route_id in found else None
            for route_id in unknown
        }

    def _refuse(
        self, key: DeploymentId, before: ProxyTable, table: ProxyTable, *, unexplained: int
    ) -> None:
        if self._refused.get(key) == table:
            return
        self._refused[key] = table
        self._metrics.published(Publish.REFUSED)
        self._metrics.publications_refused(len(self._refused))
        log.error(
            "publication_refused",
            deployment=before.app,
            before=len(before.routes),
            after=len(table.routes),
            unexplained=unexplained,
            consequence="proxies keep the routes they have",
        )

    def _settle_refusals(self, changed: Mapping[DeploymentId, ProxyTable]) -> None:
        """End the incident of every deployment whose table is as it was, or another by now."""
        settled = [key for key, table in self._refused.items() if changed.get(key) != table]
        for key in settled:
            log.info("publication_settled", deployment=self._refused.pop(key).app)
        if settled:
            self._metrics.publications_refused(len(self._refused))

    async def _sync(self, snapshot: Snapshot) -> None:
        now_ms, synced = snapshot.now_ms, self._synced_at_ms
        if synced is not None and 0 <= now_ms - synced < self.schedule.period_s * 1000:
            return  # below 0 the clock stepped back, and the keys may not wait for it
        living = [
            each
            for key, each in self.registry.newest.items()
            if key in snapshot.deployments or each.table.routes
        ]
        if not living:
            return
        try:
            outcomes = await self._proxy.write(living, announce=self._announce)
        except BusError as error:
            self._metrics.bus_error()
            log.warning("proxy_not_synced", tables=len(living), error=str(error))
            self._synced_at_ms, self._announce = None, True
            return
        self._synced_at_ms, self._announce = now_ms, False
        self._after_sync(living, outcomes)

    def _after_sync(self, living: Iterable[Publication], outcomes: Iterable[Outcome]) -> None:
        news = older = 0
        for publication, outcome in zip(living, outcomes, strict=True):
            if outcome is Outcome.OLDER:
                older += 1
                continue
            first = self.registry.delivered(publication)
            news += first
            if outcome is Outcome.CHANGED and not first:
                self._metrics.published(Publish.HEALED)
        if older:
            self._metrics.published(Publish.OLDER, older)
            log.warning("proxy_has_newer", tables=older, consequence="it keeps them for an hour")
        if news:
            self._on_delivered()
