"""What proxies were last told of each deployment, and what they are to be told next.

Used by sync_proxy, which alone writes it. A table and the effect that delivers it are one
transaction: what was committed is delivered, and nothing else ever is (R-57).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import insert, or_, select, update

from controller.db import outbox
from controller.db.bulk import chunks
from controller.db.session import Database
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
        written = []
        async with self._database.write(epoch=epoch) as write:
            for new in tables:
                content = encode(new.table)
                values: dict[str, Any] = {
                    "generation": new.seen + 1,
                    "content": content,
                    "cause": new.cause.value,
                    "epoch": epoch,
                    "updated_at_ms": write.now_ms,
                }
                if new.seen:
                    seen = (_of.deployment_id == new.deployment_id, _of.generation == new.seen)
                    statement = update(publications).where(*seen).values(values)
                    if (await write.connection.execute(statement)).rowcount != 1:
                        raise Conflict(
                            f"the table of deployment {new.deployment_id} is not any more of "
                            f"generation {new.seen}; read it again and decide anew"
                        )
                else:
                    row = values | {"deployment_id": new.deployment_id}
                    await write.connection.execute(insert(publications), [row])
                await outbox.put(
                    write,
                    kind=KIND,
                    subject=new.deployment_id,
                    version=new.seen + 1,
                    payload=content,
                )
                written.append(
                    Publication(
                        deployment_id=new.deployment_id,
                        epoch=epoch,
                        generation=new.seen + 1,
                        table=new.table,
                    )
                )
        return tuple(written)
