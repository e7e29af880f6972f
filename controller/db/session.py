"""Opening the database, and the only two ways into it: `read` and `write`.

Used by everything that needs SQL. A write transaction cannot be opened without passing the
fence: first thing inside it, the lease's epoch must still be the caller's.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
from sqlalchemy import BigInteger, event, select
from sqlalchemy.engine import URL, Connection, ExecutionContext, make_url
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.functions import FunctionElement

from controller.db.sqlite import POOL_SIZE, WRITES, open_engine
from controller.db.tables import leader_lease
from controller.errors import DatabaseUnreachable, InvalidInput, LeaseLost

LEASE_NAME: Final = "controller"
"""The lease that fences writes."""


class now_ms(FunctionElement[int]):  # noqa: N801 - used like the SQL function it stands for
    """The database's clock, in milliseconds since 1970; the only clock that decides."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "sqlite")
def _now_ms_sqlite(_element: now_ms, _compiler: SQLCompiler, **_kw: object) -> str:
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


@compiles(now_ms, "postgresql")
def _now_ms_postgresql(_element: now_ms, _compiler: SQLCompiler, **_kw: object) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One open write transaction that has passed the fence."""

    connection: AsyncConnection
    now_ms: int
    """One moment for everything written in it."""
    epoch: int | None
    """Of the lease it was written under; None for what a person asked for."""


class Database:
    """One database: reads see one moment, writes happen whole or not at all."""

    def __init__(self, engine: AsyncEngine, *, url: str) -> None:
        self._engine = engine
        self._url = url
        self.sql_writes: Counter[str] = Counter()
        """Rows written per table since the start, committed or not (I10 counts on it)."""
        event.listen(engine.sync_engine, "after_cursor_execute", self._count_writes)

    def __repr__(self) -> str:
        return f"Database({self._url!r})"

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a read transaction: everything read in it is of one moment.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        async with self._connect(writes=False) as connection:
            yield connection

    @asynccontextmanager
    async def write(self, *, epoch: int | None) -> AsyncIterator[Write]:
        """Open a write transaction under `epoch`; it commits when the block ends well.

        Raises:
            LeaseLost: if `epoch` is not, or no longer, the one that leads.
            DatabaseUnreachable: if the database does not answer, or stays busy for 5 s.
        """
        async with self._connect(writes=True) as connection:
            now = await _pass_fence(connection, epoch)
            yield Write(connection=connection, now_ms=now, epoch=epoch)

    @asynccontextmanager
    async def _connect(self, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        """Hold one transaction, and let cancellation wait for its end.

        A statement cannot be taken back from the driver's thread: cancelled there, it left its
        connection open, and with it the lock on the whole database. Nothing but SQL belongs
        inside, so the wait is milliseconds, and 5 s where somebody else holds the lock.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        with self._plain_errors(), anyio.CancelScope(shield=True):
            async with self._engine.connect() as connection:
                await connection.execution_options(**{WRITES: writes})
                async with connection.begin():
                    yield connection

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise DatabaseUnreachable(
                f"database {self._url!r}: all {POOL_SIZE} connections are busy; see what holds it"
            ) from error
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise DatabaseUnreachable(self._sentence(error)) from error

    def _sentence(self, error: DBAPIError) -> str:
        what = str(error.orig)
        if "no such table" in what or "no such column" in what:
            return (
                f"database {self._url!r} lacks the present schema ({what}); "
                "run `fleetpulse db upgrade`"
            )
        if "unable to open" in what:
            return (
                f"database {self._url!r} cannot be opened ({what}); check the path and its "
                "rights, or create it with `fleetpulse db upgrade`"
            )
        return f"database {self._url!r} did not answer ({what}); see what holds it, or its disk"

    def _count_writes(
        self,
        _connection: Connection,
        cursor: DBAPICursor,
        _statement: str,
        parameters: Any,  # noqa: ANN401 - SQLAlchemy's own event signature
        context: ExecutionContext,
        executemany: bool,  # noqa: FBT001 - same
    ) -> None:
        compiled = context.compiled
        if not isinstance(compiled, SQLCompiler) or not isinstance(compiled.statement, UpdateBase):
            return
        table = str(compiled.statement.table)
        self.sql_writes[table] += len(parameters) if executemany else max(cursor.rowcount, 0)


async def _pass_fence(connection: AsyncConnection, epoch: int | None) -> int:
    if epoch is None:
        return int((await connection.execute(select(now_ms()))).scalar_one())
    # Sharing the key, not the row: renewals go on meanwhile, a takeover waits for this commit.
    leading = (
        select(now_ms())
        .select_from(leader_lease)
        .where(
            leader_lease.c.name == LEASE_NAME,
            leader_lease.c.epoch == epoch,
            leader_lease.c.expires_at_ms > now_ms(),
        )
        .with_for_update(read=True, key_share=True)
    )
    now = (await connection.execute(leading)).scalar_one_or_none()
    if now is None:
        raise LeaseLost(
            f"epoch {epoch} of the lease {LEASE_NAME!r} has ended; stop writing and start again"
        )
    return int(now)


def open_database(url: str, *, create: bool = False) -> Database:
    """Return the database at `url`, unopened until its first use; the schema is not touched.

    Accepts `sqlite:///relative.db`, `sqlite:////absolute.db` and a bare path. Without `create`
    a path with nothing there is an error at the first use, not a new empty file.

    Raises:
        InvalidInput: if `url` cannot be read, or names a kind of database not spoken here.
    """
    return Database(open_engine(_file_of(url), create=create), url=url)


def _file_of(url: str) -> str:
    parsed = _read_url(url) if "://" in url else URL.create("sqlite", database=url)
    backend = parsed.get_backend_name()
    if backend != "sqlite":
        shown = parsed.render_as_string(hide_password=True)
        raise InvalidInput(
            f"database URL {shown!r}: {backend!r} is not spoken by this version; use sqlite:///PATH"
        )
    if not parsed.database or parsed.database == ":memory:":
        raise InvalidInput(f"database URL {url!r} names no file; write for example fleet.db")
    return parsed.database


def _read_url(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        raise InvalidInput(
            f"database URL {url!r} cannot be read; write for example sqlite:///fleet.db"
        ) from error
