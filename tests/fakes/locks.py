"""Who waits for whom inside PostgreSQL."""

from typing import Final

from sqlalchemy import text

from controller.db.session import Database
from tests.fakes.prober import until

_WAITING: Final = text(
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def until_somebody_waits(database: Database, writers: int = 1) -> None:
    """Wait until so many transactions wait for the lock of another one."""

    async def they_wait() -> bool:
        async with database.read() as connection:
            return int((await connection.execute(_WAITING)).scalar_one()) >= writers

    await until(they_wait)
