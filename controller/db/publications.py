"""What proxies were last told of each deployment, and what they are to be told next.

Used by sync_proxy, which alone writes it. A table and the effect that delivers it are one
transaction: what was committed is delivered, and nothing else ever is (R-57).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, or_, select, update

from controller.db import outbox
from controller.db.bulk import chunks, insert_rows
from controller.db.rows import Values
from controller.db.session import Database, Write
from controller.db.tables import deployments, history, publications
from controller.db.tables import outbox as waiting
from controller.errors import Conflict
from controller.model import DeploymentId, Lifecycle, RouteId
from controller.route.table import Cause, ProxyTable, Publication, decode, encode

KIND: Final = "proxy_table"
"""Of the effects that tell a proxy."""

_of: Final = publications.c


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTable:
    """A table to publish in the place of the one that was seen."""

    deployment_id: DeploymentId
    seen: int
    """The generation it follows; 0 where there was none."""
    table: ProxyTable
    cause: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What was committed, and how much of it is known to be delivered."""

    newest: Mapping[DeploymentId, Publication]
    undelivered: frozenset[DeploymentId]


class Publications:
    """The tables of all deployments, as rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> Published:
        """Return the newest table of every deployment, of one that is gone until it is empty.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        query = select(
            _of.deployment_id, _of.epoch, _of.generation, _of.content, deployments.c.lifecycle
        ).join(deployments, deployments.c.id == _of.deployment_id)
        behind = select(waiting.c.subject).where(waiting.c.kind == KIND)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
            undelivered = frozenset((await connection.execute(behind)).scalars())
        newest = {}
        for deployment_id, epoch, generation, content, lifecycle in rows:
            table = decode(content)
            gone = lifecycle == Lifecycle.DESTROYED.value and not table.routes
            if not gone or deployment_id in undelivered:
                newest[deployment_id] = Publication(
                    deployment_id=deployment_id, epoch=epoch, generation=generation, table=table
                )
        return Published(newest=newest, undelivered=undelivered)

    async def tables(self) -> tuple[ProxyTable, ...]:
        """Return the newest table of every deployment that is not gone.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        query = (
            select(_of.content)
            .join(deployments, deployments.c.id == _of.deployment_id)
            .where(deployments.c.lifecycle != Lifecycle.DESTROYED.value)
        )
        async with self._database.read() as connection:
            return tuple(map(decode, (await connection.execute(query)).scalars()))

    async def departures(self, route_ids: Iterable[RouteId]) -> Mapping[RouteId, tuple[str, str]]:
        """Return who took each of these routes out of traffic, as category and error code.

        One that nobody took out, by the records, is not in it.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        row = history.c
        served = or_(row.from_state.like("running%"), row.from_state.like("%traffic:active%"))
        left = or_(row.to_state.like("termin%"), row.to_state.like("%traffic:inactive%"))
        found: dict[RouteId, tuple[str, str]] = {}
        async with self._database.read() as connection:
            for ids in chunks(route_ids):
                query = (
                    select(row.subject, row.category, row.error_code)
                    .where(row.subject.in_(ids), served, left)
                    .order_by(row.id)
                )
                for subject, category, error_code in await connection.execute(query):
                    found[subject] = category, error_code  # the newest of each comes last
        return found

    async def commit(self, tables: Sequence[NewTable], *, epoch: int) -> tuple[Publication, ...]:
        """Write tables with the effects that deliver them, all or none.

        Raises:
            Conflict: if another table was written than the one that was seen.
            LeaseLost: if `epoch` does not lead any more.
            DatabaseUnreachable: if the database does not answer.
        """
        rows = [
            {
                "deployment_id": new.deployment_id,
                "generation": new.seen + 1,
                "content": encode(new.table),
                "cause": new.cause.value,
                "epoch": epoch,
            }
            for new in tables
        ]
        async with self._database.write(epoch=epoch) as write:
            await _refuse_other_than_seen(write, tables)
            stamped: list[Values] = [row | {"updated_at_ms": write.now_ms} for row in rows]
            first = frozenset(new.deployment_id for new in tables if not new.seen)
            made = [row for row in stamped if row["deployment_id"] in first]
            await insert_rows(write.connection, publications, made)
            await _replace(write, [row for row in stamped if row["deployment_id"] not in first])
            effects = {r["deployment_id"]: (r["generation"], r["content"]) for r in stamped}
            await outbox.put_all(write, kind=KIND, effects=effects)
        return tuple(
            Publication(
                deployment_id=new.deployment_id,
                epoch=epoch,
                generation=new.seen + 1,
                table=new.table,
            )
            for new in tables
        )


async def _refuse_other_than_seen(write: Write, tables: Sequence[NewTable]) -> None:
    """Check that nobody published meanwhile, and keep it so."""
    seen = {new.deployment_id: new.seen for new in tables}
    for ids in chunks(seen):
        query = (
            select(_of.deployment_id, _of.generation)
            .where(_of.deployment_id.in_(ids))
            .with_for_update()
        )
        found = {row.deployment_id: row.generation for row in await write.connection.execute(query)}
        for key in map(DeploymentId, ids):
            if found.get(key, 0) != seen[key]:
                raise Conflict(
                    f"the table of deployment {key} is of generation {found.get(key, 0)}, not "
                    f"{seen[key]} any more; read it again and decide anew"
                )


async def _replace(write: Write, rows: Sequence[Values]) -> None:
    if rows:
        given = [{f"new_{name}": value for name, value in row.items()} for row in rows]
        await write.connection.execute(_REPLACE, given)


_REPLACE: Final = (
    update(publications)
    .where(_of.deployment_id == bindparam("new_deployment_id"))
    .values(
        {
            column: bindparam(f"new_{column.name}")
            for column in (_of.generation, _of.content, _of.cause, _of.epoch, _of.updated_at_ms)
        }
    )
)
