# ruff: noqa: S608 - the statements are made of this file's own constants
"""An auditor inside the database: at every row of history, who led when it was written.

Triggers write down, in the same transaction, the epoch of the row beside that of the lease: on
SQLite, whose writers take turns, the truth; on PostgreSQL as late as the commit allows. A stale
commit is a row of an epoch that was over, by that or by the time of the takeover.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.db.session import Database
from controller.errors import DatabaseUnreachable

_TABLES: Final = (
    "CREATE TABLE audit_rows (history_id BIGINT, epoch BIGINT, leads BIGINT, at_ms BIGINT)",
    "CREATE TABLE audit_terms (epoch BIGINT, holder VARCHAR(128), at_ms BIGINT)",
)
_SQLITE_NOW: Final = "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
_SQLITE: Final = (
    *(
        f"CREATE TRIGGER audit_row_{name} AFTER {when} ON history WHEN NEW.epoch IS NOT NULL "
        "BEGIN INSERT INTO audit_rows "
        f"SELECT NEW.id, NEW.epoch, l.epoch, {_SQLITE_NOW} FROM leader_lease l; END"
        for name, when in (("made", "INSERT"), ("counted", "UPDATE"))
    ),
    *(
        f"CREATE TRIGGER audit_term_{name} AFTER {when} ON leader_lease "
        f"BEGIN INSERT INTO audit_terms VALUES (NEW.epoch, NEW.holder, {_SQLITE_NOW}); END"
        for name, when in (("first", "INSERT"), ("next", "UPDATE OF epoch"))
    ),
)
_PG_NOW: Final = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
_AUDIT_ROW: Final = (
    "CREATE FUNCTION audit_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    f"INSERT INTO audit_rows SELECT NEW.id, NEW.epoch, l.epoch, {_PG_NOW} FROM leader_lease l; "
    "RETURN NULL; END $$"
)
_AT_EACH_ROW: Final = (
    "CREATE CONSTRAINT TRIGGER audit_row AFTER INSERT OR UPDATE ON history "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.epoch IS NOT NULL) "
    "EXECUTE FUNCTION audit_row()"
)
_AUDIT_TERM: Final = (
    "CREATE FUNCTION audit_term() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    f"INSERT INTO audit_terms VALUES (NEW.epoch, NEW.holder, {_PG_NOW}); RETURN NULL; END $$"
)
_AT_EACH_TERM: Final = (
    "CREATE TRIGGER audit_term AFTER INSERT OR UPDATE OF epoch ON leader_lease "
    "FOR EACH ROW EXECUTE FUNCTION audit_term()"
)
_POSTGRESQL: Final = (_AUDIT_ROW, _AT_EACH_ROW, _AUDIT_TERM, _AT_EACH_TERM)
_STALE: Final = (
    "SELECT r.history_id, r.epoch, r.leads FROM audit_rows r "
    "LEFT JOIN audit_terms t ON t.epoch = r.epoch + 1 "
    "WHERE r.epoch <> r.leads OR (t.at_ms IS NOT NULL AND r.at_ms > t.at_ms) ORDER BY r.history_id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """The lease as it stands, and the database's clock."""

    holder: str
    epoch: int
    expires_at_ms: int
    now_ms: int


class Ledger:
    """What a database says about who wrote into it; works while controllers run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def install(self) -> None:
        """Begin to write down; once per database, before the first controller."""
        async with self._database.write(epoch=None) as write:
            dialect = write.connection.dialect.name
            for statement in (*_TABLES, *(_SQLITE if dialect == "sqlite" else _POSTGRESQL)):
                await write.connection.execute(text(statement))

    async def rows(self) -> int:
        """Return how many writes of leaders were looked at."""
        return int((await self._all("SELECT COUNT(*) FROM audit_rows"))[0][0])

    async def stale(self) -> list[tuple[Any, ...]]:
        """Return (history id, its epoch, the epoch that led) of what an ex-leader wrote."""
        return await self._all(_STALE)

    async def taken_at_ms(self, epoch: int) -> int | None:
        """Return when an epoch began, by the database's clock."""
        found = await self._all(f"SELECT at_ms FROM audit_terms WHERE epoch = {epoch:d}")
        return None if not found else int(found[0][0])

    async def epochs(self) -> list[int]:
        """Return every epoch there was, in the order of taking it."""
        return [row[0] for row in await self._all("SELECT epoch FROM audit_terms ORDER BY at_ms")]

    async def lease(self) -> LeaseRow | None:
        """Return the lease as it stands."""
        async with self._database.read() as connection:
            now = f"SELECT holder, epoch, expires_at_ms, {_now(connection)} FROM leader_lease"
            found = (await connection.execute(text(now))).one_or_none()
        if found is None:
            return None
        holder, epoch, expires_at_ms, now_ms = found
        return LeaseRow(holder=holder, epoch=epoch, expires_at_ms=expires_at_ms, now_ms=now_ms)

    async def is_held(self) -> bool:
        """Tell whether somebody keeps everybody from writing."""
        try:
            async with self._database.write(epoch=None) as write:
                await write.connection.execute(text("DELETE FROM audit_terms WHERE epoch < 0"))
        except DatabaseUnreachable:
            return True
        return False

    async def miscounted(self) -> dict[str, tuple[int, int]]:
        """Return (changes told, version) of routes whose history has a gap or says a thing twice.

        Every accepted write of a route is one version and one row (I7).
        """
        told = await self._all(
            "SELECT subject, SUM(attempts) FROM history "
            "WHERE route_id IS NOT NULL AND to_state <> from_state GROUP BY subject"
        )
        versions = dict(await self._all("SELECT id, version FROM routes"))
        counts = Counter({subject: int(changes) for subject, changes in told})
        return {
            route: (counts[route], version)
            for route, version in versions.items()
            if counts[route] != version
        }

    async def _all(self, query: str) -> list[tuple[Any, ...]]:
        async with self._database.read() as connection:
            return [tuple(row) for row in await connection.execute(text(query))]


def _now(connection: AsyncConnection) -> str:
    return _SQLITE_NOW if connection.dialect.name == "sqlite" else _PG_NOW
