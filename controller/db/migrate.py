"""Bringing a database to a schema version, from code: the CLI and the daemons call it.

The migrations themselves are in `migrations/versions`, one file each, never edited once released.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from controller.db.session import open_database

_SCRIPTS: Final = Path(__file__).parent / "migrations"


async def upgrade(url: str, *, revision: str = "head") -> None:
    """Apply every migration up to `revision`, all or none; nothing to do is fine.

    Raises:
        InvalidInput: if `url` cannot be used.
        DatabaseUnreachable: if the database does not answer.
    """
    await _inside(url, lambda connection: command.upgrade(_config(connection), revision))


async def downgrade(url: str, *, revision: str) -> None:
    """Undo migrations down to `revision` (`base`: all of them), all or none.

    Raises:
        InvalidInput: if `url` cannot be used.
        DatabaseUnreachable: if the database does not answer.
    """
    await _inside(url, lambda connection: command.downgrade(_config(connection), revision))


async def current(url: str) -> str | None:
    """Return the schema version of the database at `url`; None before the first migration.

    Raises:
        InvalidInput: if `url` cannot be used.
        DatabaseUnreachable: if the database does not answer.
    """
    database = open_database(url, create=True)
    try:
        async with database.read() as connection:
            return await connection.run_sync(
                lambda sync: MigrationContext.configure(sync).get_current_revision()
            )
    finally:
        await database.close()


def head() -> str:
    """Return the newest schema version this program knows."""
    newest = ScriptDirectory(str(_SCRIPTS)).get_current_head()
    assert newest is not None, "the first migration is part of the package"  # noqa: S101
    return newest


def knows(revision: str) -> bool:
    """Tell whether a schema version is one of ours, and not one of a newer program."""
    scripts = ScriptDirectory(str(_SCRIPTS)).walk_revisions()
    return any(script.revision == revision for script in scripts)


async def _inside(url: str, work: Callable[[Connection], None]) -> None:
    database = open_database(url, create=True, migrates=True)
    try:
        # One transaction for everything: Alembic leaves commits to whoever opened it, and a
        # second upgrade started meanwhile waits here and then finds nothing to do.
        async with database.migrate() as connection:
            await connection.run_sync(work)
    finally:
        await database.close()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
