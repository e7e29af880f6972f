"""Ends the sessions that keep a takeover waiting: those of a leader that stands still.

Used by `controller.lease`. A leader that is stopped, or cut off, in the midst of a write keeps its
locks. PostgreSQL ends who is idle in a transaction, but not who was stopped between the two halves
of one statement (parsed, not executed yet): no timeout of the server reaches into that, before
version 17. Whoever blocks a takeover has lost the lease already, so nothing is lost with it.
SQLite cannot end another process's transaction, and needs not: it rolls back with its process.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.db.session import Database
from controller.errors import DatabaseUnreachable

log = structlog.get_logger()

_OWN = text("SELECT pg_backend_pid()")
_CUT = text(
    "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE pid = ANY (pg_blocking_pids(:waits)) AND usename = current_user"
)


@asynccontextmanager
async def clears_the_way(
    database: Database, connection: AsyncConnection, *, after_s: float
) -> AsyncIterator[None]:
    """End the sessions of our own user that `connection` waits for after `after_s` in the block.

    One of them may be a standby that waits as well: its own block raises what the server said.
    """
    if connection.dialect.name != "postgresql":
        yield
        return
    waits = int((await connection.execute(_OWN)).scalar_one())

    async def cut() -> None:
        await anyio.sleep(after_s)
        try:
            async with database.read() as other:
                ended = (await other.execute(_CUT, {"waits": waits})).scalar_one()
        except DatabaseUnreachable as error:
            log.info("old_leader_not_cut_off", error=str(error))
            return
        if ended:
            log.warning("old_leader_cut_off", sessions=ended, why="it stands still in a write")

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
