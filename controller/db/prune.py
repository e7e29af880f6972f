"""Forgetting what is past its time: history, ended routes, the logs of evictions and holds.

Used by `controller.reconcile.prune`. What goes is chosen outside of any write, then removed in
short transactions, so that nobody waits for it; at rest nothing is written. What belongs to a
rollout in flight stays, whatever its age: its failures are counted from these rows.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

from sqlalchemy import Column, ColumnElement, Table, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.db.session import Database
from controller.db.tables import TERMINAL, deployments, evictions, history, holds, routes

BATCH: Final = 1_000
"""Rows removed in one transaction: some milliseconds."""
BATCHES: Final = 5
"""Transactions for each table in one run: a backlog shrinks by 5,000 rows a minute."""

_DAY_MS: Final = 86_400_000


class Pruner:
    """Removes old rows, the oldest first; remembers how far it has looked."""

    def __init__(
        self, database: Database, *, history_keep_days: float, routes_keep_days: float
    ) -> None:
        self._database = database
        self._history_keep_ms = int(history_keep_days * _DAY_MS)
        self._routes_keep_ms = int(routes_keep_days * _DAY_MS)
        self._looked_at = 0
        """The id in history up to which this pass has looked."""

    async def run(self, *, now_ms: int, epoch: int) -> int:
        """Remove a bounded number of rows; return how many.

        Raises:
            LeaseLost: if `epoch` does not lead any more.
            DatabaseUnreachable: if the database does not answer.
        """
        removed = 0
        for table, find in (
            (history, self._old_history),
            (routes, self._ended_routes),
            (evictions, partial(self._older, evictions, evictions.c.at_ms)),
            (holds, partial(self._older, holds, holds.c.to_ms)),
        ):
            for _ in range(BATCHES):
                async with self._database.read() as connection:
                    ids, more = await find(connection, now_ms)
                if ids:
                    removed += await self._remove(table, ids, epoch=epoch)
                if not more:
                    break
        return removed

    async def _remove(self, table: Table, ids: Sequence[object], *, epoch: int) -> int:
        async with self._database.write(epoch=epoch) as write:
            removing = delete(table).where(table.c.id.in_(ids))
            return (await write.connection.execute(removing)).rowcount

    async def _old_history(
        self, connection: AsyncConnection, now_ms: int
    ) -> tuple[list[int], bool]:
        """Return rows that nothing was added to for long, walking by age of their beginning."""
        before_ms = now_ms - self._history_keep_ms
        of = history.c
        walking = (
            select(of.id, of.created_at_ms, of.updated_at_ms, of.rollout_id)
            .where(of.id > self._looked_at)
            .order_by(of.id)
        )
        oldest = (await connection.execute(walking.limit(1))).first()
        if oldest is None or oldest.created_at_ms >= before_ms:
            self._looked_at = 0
            return [], False
        in_flight = set((await connection.execute(_IN_FLIGHT)).scalars())
        seen = [
            row
            for row in await connection.execute(walking.limit(BATCH))
            if row.created_at_ms < before_ms
        ]
        self._looked_at = seen[-1].id
        old = [
            row.id
            for row in seen
            if row.updated_at_ms < before_ms and row.rollout_id not in in_flight
        ]
        return old, True

    async def _ended_routes(
        self, connection: AsyncConnection, now_ms: int
    ) -> tuple[list[str], bool]:
        of = routes.c
        query = select(of.id).where(
            of.status.in_(TERMINAL),
            of.entered_at_ms < now_ms - self._routes_keep_ms,
            _not_in_flight(of.rollout_id),
        )
        ids = list((await connection.execute(query.limit(BATCH))).scalars())
        return ids, len(ids) == BATCH

    async def _older(
        self, table: Table, at_ms: Column[int], connection: AsyncConnection, now_ms: int
    ) -> tuple[list[int], bool]:
        """Return rows of a log that ended as long ago as history does; null has not ended."""
        query = select(table.c.id).where(at_ms < now_ms - self._history_keep_ms).order_by(at_ms)
        ids = list((await connection.execute(query.limit(BATCH))).scalars())
        return ids, len(ids) == BATCH


_IN_FLIGHT: Final = select(deployments.c.rollout_id).where(deployments.c.rollout_id.is_not(None))


def _not_in_flight(rollout_id: ColumnElement[str | None]) -> ColumnElement[bool]:
    return rollout_id.is_(None) | rollout_id.not_in(_IN_FLIGHT)
