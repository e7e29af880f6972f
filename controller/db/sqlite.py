"""What only SQLite needs: how a connection is opened, how its transactions begin, its errors.

Used by `controller.db.session` alone.
"""

import sqlite3
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import aiosqlite
import anyio.to_thread
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from controller.db.server import Purpose, Server
from controller.errors import ControllerError, DatabaseUnreachable

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
_TOLD: Final = (
    (
        ("no such table", "no such column"),
        "lacks the present schema",
        "run `fleetpulse db upgrade`",
    ),
    (
        ("unable to open",),
        "cannot be opened",
        "check the path and its rights, or create it with `fleetpulse db upgrade`",
    ),
    (
        ("file is not a database", "malformed"),
        "is no database that can be used",
        "name another path, or bring the file back from its backup",
    ),
    (("readonly",), "may not be written to", "give this user write access to it and its folder"),
    (("full",), "has no room", "free space on its disk"),
    (("locked",), "stayed busy", "see which process holds it"),
)
"""What SQLite says, what that means, and what helps."""


class Sqlite(Server):
    """One file; without `create` it must be there already."""

    pool_size = POOL_SIZE

    def __init__(self, path: str, *, shown: str, create: bool) -> None:
        super().__init__(shown)
        uri = f"file:{quote(path)}?mode={'rwc' if create else 'rw'}"
        self.engine = create_async_engine(
            "sqlite+aiosqlite://",
            async_creator=lambda: _connect(uri),
            poolclass=AsyncAdaptedQueuePool,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT_MS / 1000,
        )
        event.listen(self.engine.sync_engine, "begin", _begin)

    def options(self, purpose: Purpose) -> Mapping[str, object]:
        """Return the option that `_begin` reads."""
        return {WRITES: purpose is not Purpose.READ}

    async def begun(self, connection: AsyncConnection, purpose: Purpose) -> None:
        """Add nothing: a connection's pragmas bound it, and one writer at a time is all."""

    def told(self, error: DBAPIError | OSError) -> ControllerError:
        """Return what went wrong as one sentence with a remedy."""
        what = str(error.orig if isinstance(error, DBAPIError) else error)
        for said, meaning, remedy in _TOLD:
            if any(words in what for words in said):
                return DatabaseUnreachable(f"database {self.shown!r} {meaning} ({what}); {remedy}")
        return DatabaseUnreachable(
            f"database {self.shown!r} did not answer ({what}); see what holds it, or its disk"
        )


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
