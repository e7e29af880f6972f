"""What proxies are to be told, over rows in memory."""

from collections.abc import Iterable, Mapping, Sequence

from controller.db.outbox import Effect
from controller.db.publications import KIND, NewTable, Publications, Published
from controller.errors import Conflict
from controller.model import DeploymentId, RouteId
from controller.route.table import ProxyTable, Publication, encode
from controller.simulate.rows import Rows
from controller.simulate.transaction import Write


class MemoryPublications(Publications):
    """What proxies are to be told, in rows in memory."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def load(self) -> Published:
        """Return the newest table of every deployment, of one that is gone until it is empty."""
        await self._rows.reach()
        tables = self._rows.tables
        undelivered = frozenset(map(DeploymentId, tables.outbox))
        living = self._rows.living()
        newest = {
            key: each
            for key, each in tables.publications.items()
            if each.table.routes or key in living or key in undelivered
        }
        return Published(newest=newest, undelivered=undelivered)

    async def tables(self) -> tuple[ProxyTable, ...]:
        """Return the newest table of every deployment that is not gone."""
        await self._rows.reach()
        found, living = self._rows.tables.publications, self._rows.living()
        return tuple(each.table for key, each in found.items() if key in living)

    async def departures(self, route_ids: Iterable[RouteId]) -> Mapping[RouteId, tuple[str, str]]:
        """Return who took each of these routes out of traffic, as category and error code."""
        await self._rows.reach()
        found = self._rows.tables.departures
        return {key: found[key] for key in sorted(route_ids) if key in found}

    async def commit(self, tables: Sequence[NewTable], *, epoch: int) -> tuple[Publication, ...]:
        """Write tables with the effects that deliver them, all or none."""
        await self._rows.reach()
        with self._rows.write(epoch=epoch) as write:
            published = tuple(_publish(write, new, epoch) for new in tables)
        await self._rows.exchange()
        return published


def _publish(write: Write, new: NewTable, epoch: int) -> Publication:
    key, known = new.deployment_id, write.tables.publications.get(new.deployment_id)
    generation = 0 if known is None else known.generation
    if generation != new.seen:
        raise Conflict(
            f"the table of deployment {key} is of generation {generation}, not {new.seen} any "
            "more; read it again and decide anew"
        )
    publication = Publication(
        deployment_id=key, epoch=epoch, generation=generation + 1, table=new.table
    )
    write.tables.publications[key] = publication
    waiting = write.tables.outbox.get(key)
    if waiting is None or (waiting.epoch, waiting.version) < publication.version:
        write.tables.outbox[key] = Effect(
            id=len(write.tables.outbox) + 1 if waiting is None else waiting.id,
            kind=KIND,
            subject=key,
            epoch=epoch,
            version=publication.generation,
            payload=encode(new.table),
        )
    return publication
