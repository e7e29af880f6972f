"""Transactions: nothing is lost, nothing stays locked, and errors say what to do."""

from pathlib import Path
from time import time

import anyio
import pytest
from sqlalchemy import bindparam, select, update

from controller.db.repository import Repository
from controller.db.session import Database, now_ms, open_database
from controller.db.tables import deployments
from controller.errors import DatabaseUnreachable, InvalidInput
from tests.fakes.database import a_deployment, rows


async def count_up(database: Database, times: int) -> None:
    """Read a number and write it back increased, as two statements of one transaction.

    The row is locked as the verbs lock theirs; SQLite has no such lock and needs none.
    """
    reading = select(deployments.c.replicas).with_for_update()
    for _ in range(times):
        async with database.write(epoch=None) as write:
            seen = (await write.connection.execute(reading)).scalar_one()
            await anyio.lowlevel.checkpoint()
            writing = update(deployments).values(replicas=bindparam("replicas"))
            await write.connection.execute(writing, {"replicas": seen + 1})


async def test_600_concurrent_read_modify_writes_lose_none(
    database: Database, database_url: str
) -> None:
    """SQLite's driver, left to itself, loses more than half of them without an error."""
    await a_deployment(database, replicas=0)
    other = open_database(database_url)
    try:
        async with anyio.create_task_group() as group:
            for who in [database, other] * 3:
                group.start_soon(count_up, who, 100)
    finally:
        await other.close()
    assert await rows(database, select(deployments.c.replicas)) == [(600,)]


async def test_clock_is_in_milliseconds_of_utc(database: Database) -> None:
    """R-36"""
    before = int(time() * 1000)
    ((now,),) = await rows(database, select(now_ms()))
    assert before - 1 <= now <= int(time() * 1000) + 1


async def test_failed_block_writes_nothing(database: Database) -> None:
    await a_deployment(database, replicas=1)

    async def fail_after_writing() -> None:
        async with database.write(epoch=None) as write:
            await write.connection.execute(update(deployments).values(replicas=9))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_after_writing()
    assert await rows(database, select(deployments.c.replicas)) == [(1,)]


async def test_cancellation_waits_for_the_end_of_a_write(database: Database) -> None:
    await a_deployment(database, replicas=1)
    reached = []
    with anyio.CancelScope() as scope:
        async with database.write(epoch=None) as write:
            scope.cancel()
            await write.connection.execute(update(deployments).values(replicas=9))
        reached.append("end of the write")
        await anyio.lowlevel.checkpoint()
        reached.append("beyond")
    assert reached == ["end of the write"]
    assert await rows(database, select(deployments.c.replicas)) == [(9,)]


@pytest.mark.parametrize("delay_s", [0.0, 0.0005, 0.001, 0.002])
async def test_writer_cancelled_inside_a_statement_leaves_no_lock(
    database: Database, delay_s: float
) -> None:
    await a_deployment(database, replicas=0)
    for _ in range(10):
        with anyio.move_on_after(delay_s):
            await count_up(database, 1_000)
    with anyio.fail_after(5):
        await count_up(database, 1)


async def test_reader_sees_one_moment_while_others_write(database: Database) -> None:
    await a_deployment(database, replicas=1)
    async with database.read() as connection:
        query = select(deployments.c.replicas)
        before = (await connection.execute(query)).scalar_one()
        async with database.write(epoch=None) as write:
            await write.connection.execute(update(deployments).values(replicas=2))
        after = (await connection.execute(query)).scalar_one()
    assert (before, after) == (1, 1)


async def test_writes_are_counted_by_table_and_reads_are_not(database: Database) -> None:
    """I10 is asserted on these counts."""
    await a_deployment(database)
    written = dict(database.sql_writes)
    assert written["deployments"] == 2  # created, activated
    assert written["revisions"] == 1
    assert written["rollouts"] == 1
    await Repository(database).observe()
    assert dict(database.sql_writes) == written


async def test_database_without_schema_says_how_to_get_one(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    database = open_database(str(path))
    with pytest.raises(DatabaseUnreachable, match="run `fleetpulse db upgrade`"):
        await Repository(database).observe()
    await database.close()


async def test_missing_file_is_an_error_and_not_a_new_database(tmp_path: Path) -> None:
    path = tmp_path / "typo.db"
    database = open_database(f"sqlite:///{path}")
    with pytest.raises(DatabaseUnreachable, match=r"typo\.db.*check the path"):
        await Repository(database).observe()
    await database.close()
    assert not path.exists()


async def test_file_that_is_no_database_is_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is no database, whatever its name says\n" * 100)
    database = open_database(str(path))
    with pytest.raises(DatabaseUnreachable, match="file is not a database"):
        await Repository(database).observe()
    await database.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://ada:secret@db/fleet", "'mysql' is not spoken by this version"),
        ("postgresql+psycopg://ada:secret@db/fleet", "'postgresql.psycopg' is not spoken"),
        ("postgresql://ada:secret@db/fleet?ssl=1", "'ssl' is not spoken .* sslmode"),
        ("postgresql://ada:secret@db:port/fleet", "'db:port' is no host with its port"),
        ("nonsense://x", "'nonsense' is not spoken"),
        ("postgresql://ada:secret@db:1,db-2:http/fleet", "'db-2:http' is no host"),
        ("postgresql://ada:secret@db:99999/fleet", "'db:99999' is no host with its port"),
        ("postgresql://ada:secret@[::1/fleet", "cannot be read: Invalid IPv6 URL"),
        ("sqlite://db:x/fleet.db", "cannot be read; write for example sqlite:///fleet.db"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("://", "'' is not spoken"),
    ],
)
def test_unusable_url_is_refused_with_a_remedy(url: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as refusal:
        open_database(url)
    assert "secret" not in str(refusal.value)


def test_repr_hides_nothing_needed_and_shows_the_url(tmp_path: Path) -> None:
    assert "fleet.db" in repr(open_database(str(tmp_path / "fleet.db")))
