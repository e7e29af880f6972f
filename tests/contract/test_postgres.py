"""What only PostgreSQL can show: limits, poolers, restarts, and errors that say what to do."""

import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import anyio
import asyncpg
import pytest
from sqlalchemy import func, select, text, update

from controller.db import migrate, postgres
from controller.db.cut import clears_the_way
from controller.db.repository import Repository
from controller.db.session import Database, open_database
from controller.db.tables import deployments, history
from controller.errors import DatabaseUnreachable, InvalidInput
from controller.lease import Lease
from controller.model import Health
from controller.service import Service
from tests.fakes.database import a_deployment, change, rows, running_routes, to_draining
from tests.fakes.pgbouncer import a_pgbouncer
from tests.fakes.postgres import PASSWORD, PostgresServer, a_postgres
from tests.fakes.prober import until


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    opened = open_database(postgres_url)
    yield opened
    await opened.close()


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that may be stopped."""
    with a_postgres() as running:
        yield running


async def ask(database: Database, sql: str) -> object:
    async with database.read() as connection:
        return (await connection.execute(text(sql))).scalar_one()


async def refusal(url: str) -> str:
    """Return what is said when `url` is used."""
    database = open_database(url)
    try:
        with pytest.raises((DatabaseUnreachable, InvalidInput)) as refused:
            await Repository(database).observe()
    finally:
        await database.close()
    assert PASSWORD not in str(refused.value)
    return str(refused.value)


class TestLimits:
    async def test_every_transaction_is_bounded_and_leaves_its_connection_as_it_was(
        self, database: Database
    ) -> None:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        asking = [f"SHOW {name}" for name in names]
        assert [await ask(database, sql) for sql in asking] == ["5s", "4s", "3s"]
        async with database._server.engine.connect() as bare:
            assert [(await bare.execute(text(sql))).scalar_one() for sql in asking] == ["0"] * 3

    async def test_no_commit_is_lost_where_the_server_may_lose_the_newest(
        self, database: Database
    ) -> None:
        async with database._server.engine.connect() as bare:
            offered = (await bare.execute(text("SHOW synchronous_commit"))).scalar_one()
        async with database.write(epoch=None) as write:
            shown = await write.connection.execute(text("SHOW synchronous_commit"))
        ours = shown.scalar_one()
        assert ours == ("on" if offered == "off" else offered)

    async def test_what_a_takeover_raises_comes_out_as_itself(self, database: Database) -> None:
        """A standby that another one cut off tries again, and does not end."""

        async def take_over() -> None:
            ours = select(func.pg_backend_pid())
            async with database.write(epoch=None) as write:
                pid = (await write.connection.execute(ours)).scalar_one()
                async with clears_the_way(database, write.connection, after_s=60):
                    async with database.read() as connection:
                        await connection.execute(select(func.pg_terminate_backend(pid)))
                    await write.connection.execute(ours)

        with pytest.raises(DatabaseUnreachable):
            await take_over()

    async def test_reader_sees_one_moment_and_cannot_write(self, database: Database) -> None:
        assert await ask(database, "SHOW transaction_isolation") == "repeatable read"
        with pytest.raises(DatabaseUnreachable, match=r"only lets read .*; name the primary"):
            async with database.read() as connection:
                await connection.execute(update(deployments).values(replicas=1))

    async def test_slow_statement_is_cut_off(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres, "STATEMENT_TIMEOUT_MS", 50)
        with pytest.raises(
            DatabaseUnreachable, match=r"took longer than it may .*; see in pg_stat"
        ):
            await ask(database, "SELECT 1 FROM pg_sleep(5)")
        monkeypatch.undo()
        assert await ask(database, "SELECT 1") == 1

    async def test_writer_held_up_by_another_gives_up(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert postgres.LOCK_TIMEOUT_MS < postgres.STATEMENT_TIMEOUT_MS  # else this one is told
        monkeypatch.setattr(postgres, "LOCK_TIMEOUT_MS", 50)
        await a_deployment(database)
        async with database.write(epoch=None) as write:
            await write.connection.execute(update(deployments).values(replicas=1))
            with pytest.raises(DatabaseUnreachable, match=r"stayed busy .*; see in pg_stat_act"):
                await Service(database).scale("demo", 5)
        await Service(database).scale("demo", 5)

    async def test_writer_that_stands_still_is_cut_off_and_its_lock_is_free(
        self, database: Database, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """I8: a stopped leader does not keep its successor waiting for longer than a lease."""
        assert postgres.IDLE_TIMEOUT_MS < 15_000 / 3
        monkeypatch.setattr(postgres, "IDLE_TIMEOUT_MS", 100)
        await a_deployment(database, replicas=1)
        other = open_database(postgres_url)

        async def stand_still() -> None:
            async with database.write(epoch=None) as write:
                await write.connection.execute(update(deployments).values(replicas=2))
                await Service(other).scale("demo", 7)  # waits for the lock, and gets it
                await write.connection.execute(update(deployments).values(replicas=3))

        with pytest.raises(DatabaseUnreachable):
            await stand_still()
        await other.close()
        assert await rows(database, select(deployments.c.desired_replicas)) == [(7,)]


class TestErrors:
    async def test_absent_server_is_told_with_the_url_and_no_password(self, tmp_path: Path) -> None:
        told = await refusal(f"postgresql://ada:{PASSWORD}@/fleet?host={tmp_path}")
        assert "postgresql://ada:***@/fleet" in told
        assert "cannot be reached" in told

    async def test_absent_database_says_how_to_make_one(self, postgres_url: str) -> None:
        absent = urlunsplit(urlsplit(postgres_url)._replace(path="/nowhere"))
        assert "is not there" in (told := await refusal(absent))
        assert "createdb" in told

    async def test_database_without_schema_says_how_to_get_one(
        self, empty_postgres_url: str
    ) -> None:
        assert "run `fleetpulse db upgrade`" in await refusal(empty_postgres_url)

    async def test_tls_that_cannot_be_is_told(self, postgres_url: str) -> None:
        told = await refusal(f"{postgres_url}&sslmode=sometimes")
        assert "`sslmode` parameter must be one of" in told

    async def test_value_that_does_not_fit_is_input_and_no_outage(self, database: Database) -> None:
        await a_deployment(database)
        with pytest.raises(InvalidInput, match="cannot take a value"):
            async with database.write(epoch=None) as write:
                await write.connection.execute(update(deployments).values(replicas=2**40))
        with pytest.raises(InvalidInput, match="cannot take a value"):
            async with database.write(epoch=None) as write:
                await write.connection.execute(update(deployments).values(name="x" * 129))

    async def test_repr_shows_no_password(self, postgres_url: str) -> None:
        assert PASSWORD in postgres_url
        assert PASSWORD not in repr(open_database(postgres_url))

    @pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
    async def test_every_usual_scheme_is_spoken(self, postgres_url: str, scheme: str) -> None:
        database = open_database(postgres_url.replace("postgresql", scheme, 1))
        assert await ask(database, "SELECT 1") == 1
        await database.close()


async def test_restart_between_two_transactions_is_not_even_noticed(
    server: PostgresServer,
) -> None:
    await migrate.upgrade(server.url)
    database = open_database(server.url)
    await a_deployment(database)
    for sign in (signal.SIGINT, signal.SIGQUIT):
        server.stop(sign)
        with pytest.raises(DatabaseUnreachable):
            await Repository(database).observe()
        server.start()
        for _ in range(3):
            assert len((await Repository(database).observe()).deployments) == 1
        server.stop(sign)
        server.start()  # nobody asked meanwhile: every pooled connection is a dead one
        assert len((await Repository(database).observe()).deployments) == 1
    await database.close()


async def test_upgrades_at_once_take_turns(empty_postgres_url: str) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(migrate.upgrade, empty_postgres_url)
    assert await migrate.current(empty_postgres_url) == migrate.head()


async def test_upgrade_waits_for_another_one_longer_than_a_statement_may_take(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-40: nor is a migration that rewrites a million rows cut off by its own client."""
    monkeypatch.setattr(postgres, "COMMAND_TIMEOUT_S", 0.1)
    other = await asyncpg.connect(empty_postgres_url)

    async def it_waits_for_long() -> bool:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND "
        long = "clock_timestamp() - query_start > interval '0.5 s'"
        return bool(await other.fetchval(waiting + long))

    try:
        await other.execute(f"SELECT pg_advisory_lock({postgres.MIGRATION_LOCK})")
        async with anyio.create_task_group() as group:
            group.start_soon(migrate.upgrade, empty_postgres_url)
            await until(it_waits_for_long)
            await other.execute("SELECT pg_advisory_unlock_all()")
    finally:
        await other.close()
    monkeypatch.undo()
    assert await migrate.current(empty_postgres_url) == migrate.head()


async def test_repository_works_through_a_pooler_that_pools_transactions(postgres_url: str) -> None:
    """Two server connections for many clients: nothing may rest on what a session remembers."""
    with (
        tempfile.TemporaryDirectory(prefix="fp-pgb-") as directory,
        a_pgbouncer(postgres_url, Path(directory), pool_size=2) as url,
    ):
        await _use_everything(url)


async def _use_everything(url: str) -> None:
    databases = [open_database(url) for _ in range(3)]
    first = databases[0]
    epoch = await Lease(first, holder="the-test", lease_s=3600).acquire()
    assert epoch is not None
    await a_deployment(first, "demo")
    deployment = await Service(first).get_deployment("demo")
    seen = await running_routes(Repository(first), deployment, 30, epoch=epoch)

    async def flap(database: Database, number: int) -> None:
        repository = Repository(database)
        for health in (Health.UNHEALTHY, Health.HEALTHY) * 5:
            mine = (await repository.observe()).routes[number::3]
            applied = await repository.apply([change(r, health=health) for r in mine], epoch=epoch)
            assert applied.applied == 10

    async with anyio.create_task_group() as group:
        for number, database in enumerate(databases):
            group.start_soon(flap, database, number)
    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    assert await ask(first, ours) == 2
    newest = (await Repository(first).observe()).routes
    assert [route.version for route in newest] == [route.version + 10 for route in seen]
    flaps = select(func.count()).where(history.c.category == "test")
    assert await rows(first, flaps) == [(300,)]
    await Repository(first).apply([to_draining(newest[0])], epoch=epoch)
    await Service(first).scale("demo", 5)
    await migrate.upgrade(url)
    for database in databases:
        await database.close()
