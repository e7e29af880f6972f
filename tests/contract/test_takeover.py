"""Lease and fence on a server with many writers: who waits for whom, and for how long."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import asyncpg
import pytest
from sqlalchemy import select, text

from controller.db.cut import clears_the_way
from controller.db.session import Database, open_database
from controller.db.tables import leader_lease
from controller.errors import DatabaseUnreachable, LeaseLost
from controller.lease import PATIENCE_S, Lease
from tests.fakes.database import expire_lease, rows
from tests.fakes.locks import until_somebody_waits

SOON_S = 10.0
"""Without the rule under test it would be never."""
_TAKE = text("UPDATE leader_lease SET epoch = epoch + 1")


@pytest.fixture
async def server(postgres_url: str) -> AsyncIterator[Database]:
    opened = open_database(postgres_url)
    yield opened
    await opened.close()


@asynccontextmanager
async def writing(database: Database, epoch: int) -> AsyncIterator[anyio.Event]:
    """Be in the midst of a fenced write until the event is set."""
    inside, over = anyio.Event(), anyio.Event()

    async def write() -> None:
        async with database.write(epoch=epoch):
            inside.set()
            await over.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        await inside.wait()
        yield over
        over.set()


async def taken(database: Database, holder: str) -> int:
    epoch = await Lease(database, holder=holder).acquire()
    assert epoch is not None
    return epoch


async def test_renewals_pass_a_writer_that_shares_the_lease(server: Database) -> None:
    lease = Lease(server, holder="leader")
    epoch = await lease.acquire()
    assert epoch is not None
    with anyio.fail_after(SOON_S):
        async with writing(server, epoch):
            await lease.renew()


async def test_a_takeover_waits_for_a_writer_that_comes_to_its_end(server: Database) -> None:
    """I8"""
    epoch = await taken(server, "leader")
    order: list[str] = []

    async def take_over() -> None:
        assert await taken(server, "next") == epoch + 1
        order.append("taken over")

    async with anyio.create_task_group() as group, writing(server, epoch) as over:
        await expire_lease(server)
        group.start_soon(take_over)
        await anyio.sleep(PATIENCE_S / 3)
        order.append("written")
        over.set()
    assert order == ["written", "taken over"]
    with pytest.raises(LeaseLost):
        async with server.write(epoch=epoch):
            pytest.fail("the fence let an old epoch pass")


async def test_a_leader_stopped_between_the_halves_of_a_statement_is_cut_off(
    server: Database, postgres_url: str
) -> None:
    """I8: parsed and not executed, a statement is reached by no timeout before PostgreSQL 17."""
    epoch = await taken(server, "leader")
    stopped = await asyncpg.connect(postgres_url)
    try:
        await stopped.execute("BEGIN")
        await stopped.fetch("SELECT epoch FROM leader_lease FOR KEY SHARE")
        await stopped.prepare("SELECT 1")
        await expire_lease(server)
        with anyio.fail_after(SOON_S):
            assert await taken(server, "next") == epoch + 1
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await stopped.fetch("SELECT 1")
    finally:
        stopped.terminate()


async def test_standbys_that_queue_cut_off_the_leader_and_not_each_other(
    server: Database, postgres_url: str
) -> None:
    """I8: each would begin anew for ever, and nobody would lead."""
    epoch = await taken(server, "leader")
    stopped = await asyncpg.connect(postgres_url)
    first = open_database(postgres_url)

    async def wait_for_it() -> None:
        async with first.write(epoch=None) as write:
            await write.connection.execute(_TAKE)

    try:
        await stopped.execute("BEGIN")
        await stopped.fetch("SELECT epoch FROM leader_lease FOR KEY SHARE")
        with anyio.fail_after(SOON_S):
            async with anyio.create_task_group() as group:
                group.start_soon(wait_for_it)
                await until_somebody_waits(server)
                async with (
                    server.write(epoch=None) as write,
                    clears_the_way(server, write.connection, after_s=0.2),
                ):
                    await write.connection.execute(_TAKE)
        assert await rows(server, select(leader_lease.c.epoch)) == [(epoch + 2,)]
    finally:
        stopped.terminate()
        await first.close()


async def test_a_writer_that_was_cut_off_writes_nothing(server: Database) -> None:
    """I8, R-13"""
    epoch = await taken(server, "leader")
    with pytest.raises(DatabaseUnreachable):  # noqa: PT012 - the block's end is what raises
        async with server.write(epoch=epoch) as write:
            await expire_lease(server)
            with anyio.fail_after(SOON_S):
                assert await taken(server, "next") == epoch + 1
            await write.connection.exec_driver_sql("DELETE FROM leader_lease")
    with pytest.raises(LeaseLost, match=f"next leads, in epoch {epoch + 1}"):
        await _with_epoch(Lease(server, holder="leader"), epoch).renew()


def _with_epoch(lease: Lease, epoch: int) -> Lease:
    """Return a lease that believes in an epoch."""
    lease._epoch = epoch
    return lease
