"""The schema: up, down, and equal to what the code believes it is."""

from pathlib import Path

import anyio
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Index, Integer, MetaData, inspect
from sqlalchemy.engine import Connection

from controller.db import migrate
from controller.db.session import open_database
from controller.db.tables import metadata


async def differences(url: str, expected: MetaData) -> list[object]:
    def compare(connection: Connection) -> list[object]:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        return list(compare_metadata(context, expected))

    database = open_database(url)
    try:
        async with database.read() as connection:
            return await connection.run_sync(compare)
    finally:
        await database.close()


async def tables(url: str) -> set[str]:
    database = open_database(url)
    try:
        async with database.read() as connection:
            return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))
    finally:
        await database.close()


async def test_upgrade_brings_an_empty_database_to_the_newest_version(empty_url: str) -> None:
    assert await migrate.current(empty_url) is None
    await migrate.upgrade(empty_url)
    assert await migrate.current(empty_url) == migrate.head()


async def test_migrated_schema_equals_the_metadata(empty_url: str) -> None:
    await migrate.upgrade(empty_url)
    assert await differences(empty_url, metadata) == []


@pytest.mark.parametrize("what", ["column", "index", "table"])
async def test_comparison_notices_a_planted_difference(empty_url: str, what: str) -> None:
    await migrate.upgrade(empty_url)
    planted = MetaData()
    for table in metadata.sorted_tables:
        table.to_metadata(planted)
    routes = planted.tables["routes"]
    if what == "column":
        routes.append_column(Column("planted", Integer))
    elif what == "index":
        Index("ix_planted", routes.c.health)
    else:
        planted.remove(planted.tables["history"])
    assert await differences(empty_url, planted)


async def test_downgrade_to_base_leaves_no_table_of_ours(empty_url: str) -> None:
    await migrate.upgrade(empty_url)
    await migrate.downgrade(empty_url, revision="base")
    assert await tables(empty_url) == {"alembic_version"}
    assert await migrate.current(empty_url) is None


async def test_up_down_up_ends_at_the_same_schema(empty_url: str) -> None:
    await migrate.upgrade(empty_url)
    await migrate.downgrade(empty_url, revision="base")
    await migrate.upgrade(empty_url)
    assert await differences(empty_url, metadata) == []


async def test_upgrades_started_at_once_do_not_disturb_each_other(empty_url: str) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(migrate.upgrade, empty_url)
    assert await migrate.current(empty_url) == migrate.head()


async def test_bare_path_with_odd_characters_is_that_path(tmp_path: Path) -> None:
    folder = tmp_path / "100 % odd #?"
    folder.mkdir()
    await migrate.upgrade(str(folder / "fleet.db"))
    assert [path.name for path in folder.iterdir()] == ["fleet.db"]
