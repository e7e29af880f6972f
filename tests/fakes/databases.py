"""Both databases as one fixture: a suite that takes these runs on SQLite and on PostgreSQL.

Imported by a conftest beside the other fixtures of `tests.fakes.database`, in place of its
`database_url`; with `postgres_databases`, `postgres_url` and `empty_postgres_url`.
"""

from pathlib import Path
from typing import Final

import pytest

from tests.fakes import database

DIALECTS: Final = ("sqlite", "postgresql")


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    """The database the test runs on."""
    return str(request.param)


@pytest.fixture
def database_url(dialect: str, request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own."""
    if dialect == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    template: Path = request.getfixturevalue("database_template")
    return database.copy_of(template, request.getfixturevalue("tmp_path"))


@pytest.fixture
def empty_url(dialect: str, request: pytest.FixtureRequest) -> str:
    """A database with nothing in it, or the place for one."""
    if dialect == "postgresql":
        return str(request.getfixturevalue("empty_postgres_url"))
    folder: Path = request.getfixturevalue("tmp_path")
    return f"sqlite:///{folder / 'new.db'}"
