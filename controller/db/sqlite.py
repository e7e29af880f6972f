"""What only SQLite needs: how a connection is opened, and how its transactions begin.

Used by `controller.db.session` alone, which knows no other difference between databases but the
name of the clock.
"""

import sqlite3
from typing import Final
from urllib.parse import quote

import aiosqlite
import anyio.to_thread
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

WRITES: Final = "fleetpulse_writes"
"""The execution option that tells a transaction that will write."""
BUSY_TIMEOUT_MS: Final = 5_000
"""How long a writer of another process is waited for: a third of a lease."""
POOL_SIZE: Final = 5
"""Connections of one process; each is a thread."""

_PRAGMAS: Final = (
    f"busy_timeout = {BUSY_TIMEOUT_MS}",  # first: the next one may have to wait
    "journal_mode = WAL",  # readers and the writer do not wait for each other
    "synchronous = NORMAL",  # with WAL: a power cut may lose the newest commits, no more
    "foreign_keys = ON",
)


def open_engine(path: str, *, create: bool) -> AsyncEngine:
    """Return an engine on the file at `path`; without `create` it must be there already."""
    uri = f"file:{quote(path)}?mode={'rwc' if create else 'rw'}"
    engine = create_async_engine(
        "sqlite+aiosqlite://",
        async_creator=lambda: _connect(uri),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_MS / 1000,
    )
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


async def _connect(uri: str) -> aiosqlite.Connection:
    # The driver's own way of opening transactions starts them late and upgrades them: it lost
    # 331 of 600 concurrent updates without an error. isolation_level None: we say BEGIN.
    connection = aiosqlite.connect(uri, uri=True, isolation_level=None)
    thread = connection._thread  # noqa: SLF001 - as SQLAlchemy does: there is no other way to it
    thread.daemon = True
    try:
        await connection
        for pragma in _PRAGMAS:
            async with connection.execute(f"PRAGMA {pragma}"):
                pass
    except sqlite3.Error:
        await connection.close()
        # A refused connection's thread still reports to the loop, which may be closed by then:
        # that printed a traceback below the one sentence for a mistyped path.
        await anyio.to_thread.run_sync(thread.join)
        raise
    return connection


def _begin(connection: Connection) -> None:
    """Begin late for readers, at once for writers: a later upgrade fails instead of waiting."""
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
