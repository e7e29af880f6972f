"""Opening the database, and the only two ways into it: `read` and `write`.

Used by everything that needs SQL. A write transaction cannot be opened without passing the
fence: first thing inside it, the lease's epoch must still be the caller's.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import anyio
from sqlalchemy import BigInteger, event, select
from sqlalchemy.engine import Connection, ExecutionContext, make_url
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.functions import FunctionElement

from controller.db.postgres import Postgres
from controller.db.server import Purpose, Server, StoodInTheWay
from controller.db.sqlite import Sqlite
from controller.db.tables import leader_lease
from controller.errors import DatabaseUnreachable, InvalidInput, LeaseLost
from probe.layers import mask_url

LEASE_NAME: Final = "controller"
"""The lease that fences writes."""
TALLY: Final = "fleetpulse_tally"
"""The execution option that holds what a transaction has written so far."""
TRIES: Final = 3
"""How often a transaction is begun that others stand in the way of."""

_Result = TypeVar("_Result")
_Begun = tuple[AsyncConnection, AsyncExitStack]


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

    def __init__(self, server: Server) -> None:
        self._server = server
        self.sql_writes: Counter[str] = Counter()
        """Rows committed per table since the start (I10 counts on it)."""
        event.listen(server.engine.sync_engine, "after_cursor_execute", _count_writes)

    def __repr__(self) -> str:
        return f"Database({self._server.shown!r})"

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a read transaction: everything read in it is of one moment.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        async with self._transaction(Purpose.READ) as connection:
            yield connection

    @asynccontextmanager
    async def write(self, *, epoch: int | None) -> AsyncIterator[Write]:
        """Open a write transaction under `epoch`; it commits when the block ends well.

        Raises:
            LeaseLost: if `epoch` is not, or no longer, the one that leads.
            Conflict: if another transaction stood in the way; nothing is written.
            DatabaseUnreachable: if the database does not answer, or stays busy for up to 5 s.
        """
        async with self._transaction(Purpose.WRITE) as connection:
            now = await _pass_fence(connection, epoch)
            yield Write(connection=connection, now_ms=now, epoch=epoch)

    async def transact(
        self, work: Callable[[Write], Awaitable[_Result]], *, epoch: int | None
    ) -> _Result:
        """Run `work` in a write transaction, and again where another one stood in its way.

        It did when two waited for each other, and when both wrote the first row of one name.

        Raises:
            LeaseLost: if `epoch` is not, or no longer, the one that leads.
            Conflict: if others stood in the way each time.
            IntegrityError: if the rows are there each time.
            DatabaseUnreachable: if the database does not answer, or stays busy for up to 5 s.
        """
        for left in reversed(range(TRIES)):
            try:
                async with self.write(epoch=epoch) as write:
                    return await work(write)
            except (StoodInTheWay, IntegrityError):
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def migrate(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that changes the schema, once no other one does.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        async with self._transaction(Purpose.MIGRATE) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, purpose: Purpose) -> AsyncIterator[AsyncConnection]:
        """Hold one transaction, and let cancellation wait for its end.

        A statement cannot be taken back from the driver's thread: cancelled there, it left its
        connection open, and with it the lock on the whole database. Nothing but SQL belongs
        inside, so the wait is milliseconds, and 5 s where somebody else holds the lock.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        tally: Counter[str] = Counter()
        options = {**self._server.options(purpose), TALLY: tally}
        with self._plain_errors(), anyio.CancelScope(shield=True):
            connection, held = await self._begin(purpose, options)
            async with held:
                yield connection
        self.sql_writes.update(tally)

    async def _begin(self, purpose: Purpose, options: Mapping[str, object]) -> _Begun:
        try:
            return await self._begin_once(purpose, options)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        # The server was started again since the pool had that connection; all the others that it
        # had are dropped with it.
        return await self._begin_once(purpose, options)

    async def _begin_once(self, purpose: Purpose, options: Mapping[str, object]) -> _Begun:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(self._server.engine.connect())
            await connection.execution_options(**options)
            await stack.enter_async_context(connection.begin())
            await self._server.begun(connection, purpose)
            return connection, stack.pop_all()

    async def close(self) -> None:
        """Close every connection."""
        await self._server.engine.dispose()

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise DatabaseUnreachable(
                f"database {self._server.shown!r}: all {self._server.pool_size} connections are "
                "busy; see what holds it"
            ) from error
        except IntegrityError:
            raise
        except (DBAPIError, OSError) as error:
            raise self._server.told(error) from error


def _count_writes(
    connection: Connection,
    cursor: DBAPICursor,
    _statement: str,
    parameters: Any,  # noqa: ANN401 - SQLAlchemy's own event signature
    context: ExecutionContext,
    executemany: bool,  # noqa: FBT001 - same
) -> None:
    compiled = context.compiled
    if not isinstance(compiled, SQLCompiler) or not isinstance(compiled.statement, UpdateBase):
        return
    tally = connection.get_execution_options()[TALLY]
    tally[str(compiled.statement.table)] += (
        len(parameters) if executemany else max(cursor.rowcount, 0)
    )


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


def open_database(url: str, *, create: bool = False, migrates: bool = False) -> Database:
    """Return the database at `url`, unopened until its first use; the schema is not touched.

    Accepts `postgresql://USER:PASSWORD@HOST/NAME`, `sqlite:///relative.db`,
    `sqlite:////absolute.db` and a bare path. Without `create` a path with nothing there is an
    error at the first use, not a new empty file. With `migrates` a statement may take an hour.

    Raises:
        InvalidInput: if `url` cannot be read, or names a kind of database not spoken here.
    """
    if "://" not in url:
        return Database(Sqlite(_file_in(url, shown=url), shown=url, create=create))
    shown = mask_url(url)
    match url.partition("://")[0]:
        case "sqlite":
            return Database(Sqlite(_file_of(url, shown=shown), shown=shown, create=create))
        case "postgresql" | "postgres" | "postgresql+asyncpg":
            return Database(Postgres(url, migrates=migrates))
        case other:
            raise InvalidInput(
                f"database URL {shown!r}: {other!r} is not spoken by this version; use "
                "sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
            )


def _file_of(url: str, *, shown: str) -> str:
    try:
        return _file_in(make_url(url).database, shown=shown)
    except (ArgumentError, ValueError) as error:
        raise InvalidInput(
            f"database URL {shown!r} cannot be read; write for example sqlite:///fleet.db"
        ) from error


def _file_in(path: str | None, *, shown: str) -> str:
    if not path or path == ":memory:":
        raise InvalidInput(f"database URL {shown!r} names no file; write for example fleet.db")
    return path
