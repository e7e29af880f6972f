"""Ends the sessions that keep a takeover waiting: those of a leader that stands still.

Used by `controller.lease`. A leader that is stopped, or cut off, in the midst of a write keeps its
locks. PostgreSQL ends who is idle in a transaction, but not who was stopped between the two halves
of one statement (parsed, not executed yet): no timeout of the server reaches into that, before
version 17. Whoever blocks a takeover has lost the lease already, so nothing is lost with it.
Standbys queue behind one another; only who waits for its client is ended, so never one of them.
SQLite cannot end another process's transaction, and needs not: it rolls back with its process.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.db.session import Database
from controller.errors import DatabaseUnreachable

log = structlog.get_logger()

_OWN = text("SELECT pg_backend_pid()")
_CUT = text(
    "WITH RECURSIVE way (pid) AS (SELECT unnest(pg_blocking_pids(:waits)) "
    "UNION SELECT unnest(pg_blocking_pids(pid)) FROM way) "
    "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) "
    "FROM pg_stat_activity JOIN way USING (pid) "
    "WHERE usename = current_user AND wait_event_type = 'Client' "
    "AND state_change < clock_timestamp() - make_interval(secs => :silent_s)"
)
"""Everybody on the way to `waits` whose client has said nothing for so long."""
AGAIN_S: Final = 0.25
"""Who waits behind another standby may have that one to wait for next."""


@asynccontextmanager
async def clears_the_way(
    database: Database, connection: AsyncConnection, *, after_s: float
) -> AsyncIterator[None]:
    """End what stands still before `connection`, from `after_s` in the block until its end.

    Standing still is to hold a lock, as our own user, and to say nothing for `after_s`.
    """
    if connection.dialect.name != "postgresql":
        yield
        return
    waits = int((await connection.execute(_OWN)).scalar_one())

    async def cut() -> None:
        await anyio.sleep(after_s)
        while True:
            try:
                async with database.read() as other:
                    way = {"waits": waits, "silent_s": after_s}
                    ended = (await other.execute(_CUT, way)).scalar_one()
            except DatabaseUnreachable as error:
                log.info("old_leader_not_cut_off", error=str(error))
                return
            if ended:
                log.warning("old_leader_cut_off", sessions=ended, why="it stands still in a write")
            await anyio.sleep(AGAIN_S)

    raised: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(cut)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - goes on below, as itself and in no group
            raised = error
        group.cancel_scope.cancel()
    if raised is not None:
        raise raised
