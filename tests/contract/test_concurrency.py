"""Two writers at once: who waits for whom, who loses, and that nothing is written twice or lost."""

from collections.abc import AsyncIterator
from functools import partial

import anyio
import pytest
from sqlalchemy import func, select, update

from controller.db.repository import Repository
from controller.db.server import StoodInTheWay
from controller.db.session import Database, Write, open_database
from controller.db.tables import deployments, history, leader_lease, routes
from controller.errors import Conflict, LeaseLost
from controller.lease import Lease
from controller.model import Deployment, Health, RouteId
from controller.service import Service
from tests.fakes.database import a_deployment, change, rows, running_routes

SOON_S = 0.3
"""Long enough to be sure that somebody waits, and does not merely take long."""


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Database]:
    """The same database, as another process has it open."""
    opened = open_database(database_url)
    yield opened
    await opened.close()


async def test_each_route_of_two_overlapping_batches_is_written_once(
    database: Database,
    repository: Repository,
    deployment: Deployment,
    other: Database,
    epoch: int,
) -> None:
    """R-17: exact losses, and one history row for each accepted write (I7)."""
    seen = await running_routes(repository, deployment, 40, epoch=epoch)
    before = await rows(database, select(func.count()).select_from(history))
    results: dict[str, tuple[int, tuple[RouteId, ...]]] = {}

    async def write(who: str, database: Database, health: Health, *, backwards: bool) -> None:
        changes = [change(route, health=health) for route in seen]
        changes = changes[::-1][:30] if backwards else changes[:30]
        applied = await Repository(database).apply(changes, epoch=epoch)
        results[who] = applied.applied, applied.lost

    async with anyio.create_task_group() as group:
        group.start_soon(partial(write, backwards=False), "here", database, Health.UNHEALTHY)
        group.start_soon(partial(write, backwards=True), "there", other, Health.DEGRADED)

    assert sum(applied for applied, _ in results.values()) == 40
    lost = {route_id for _, gone in results.values() for route_id in gone}
    assert len(lost) == 20
    after = await rows(database, select(func.count()).select_from(history))
    assert after[0][0] - before[0][0] == 40
    versions = await rows(database, select(routes.c.version).distinct())
    assert versions == [(seen[0].version + 1,)]


async def test_two_decisions_over_one_version_are_one(
    database: Database, deployment: Deployment, other: Database
) -> None:
    """R-14: whoever comes second finds another version."""
    outcomes: list[str] = []

    async def scale(database: Database, count: int) -> None:
        try:
            await Service(database).scale("demo", count, expected_version=deployment.version)
        except Conflict:
            outcomes.append("conflict")
        else:
            outcomes.append("scaled")

    async with anyio.create_task_group() as group:
        for number, who in enumerate([database, other] * 3):
            group.start_soon(scale, who, 10 + number)
    assert sorted(outcomes) == ["conflict"] * 5 + ["scaled"]


async def test_takeover_waits_behind_a_writer(
    database: Database, other: Database, epoch: int
) -> None:
    """I8: what was begun under an epoch is committed before that epoch can end."""
    order: list[str] = []
    successor = Lease(other, holder="successor")
    began = anyio.Event()

    async def take_over() -> None:
        await began.wait()
        while await successor.acquire() is None:  # noqa: ASYNC110 - as a standby does
            await anyio.sleep(0.01)
        order.append("taken over")

    async with anyio.create_task_group() as group:
        group.start_soon(take_over)
        async with database.write(epoch=epoch) as write:
            # As if the lease ran out in the middle, seen by the successor alone.
            await _let_expire(other, write)
            began.set()
            await anyio.sleep(SOON_S)
            assert order == []
            order.append("committing")
    assert order == ["committing", "taken over"]


async def _let_expire(other: Database, write: Write) -> None:
    expire = update(leader_lease).values(expires_at_ms=0)
    if write.connection.dialect.name == "sqlite":  # one writer at a time: it is this one
        await write.connection.execute(expire)
        return
    async with other.write(epoch=None) as beside:  # as a renewal, it passes the writer's lock
        await beside.connection.execute(expire)


async def test_writer_behind_a_takeover_is_refused(
    database: Database, other: Database, epoch: int
) -> None:
    """I8"""
    refused: list[str] = []

    async def write_late() -> None:
        try:
            async with other.write(epoch=epoch):
                refused.append("was let in")
        except LeaseLost:
            refused.append("refused")

    async with anyio.create_task_group() as group, database.write(epoch=None) as write:
        taking = update(leader_lease).values(epoch=epoch + 1)
        await write.connection.execute(taking)
        group.start_soon(write_late)
        await anyio.sleep(SOON_S)
        assert refused == []
    assert refused == ["refused"]


async def test_renewal_does_not_wait_for_a_long_writer_where_rows_are_locked(
    database: Database, other: Database, dialect: str
) -> None:
    lease = Lease(other, holder="leader")
    epoch = await lease.acquire()
    renewed = anyio.Event()

    async def renew() -> None:
        await lease.renew()
        renewed.set()

    async with anyio.create_task_group() as group, database.write(epoch=epoch):
        group.start_soon(renew)
        with anyio.move_on_after(SOON_S if dialect == "sqlite" else 5):
            await renewed.wait()
        assert renewed.is_set() == (dialect == "postgresql")
    assert renewed.is_set()


async def test_two_that_wait_for_each_other_both_end_and_nothing_is_lost(
    database: Database, other: Database
) -> None:
    """A deadlock is found by the server; the one it undoes is run again."""
    for name in ("one", "two"):
        await a_deployment(database, name, replicas=0)
    tries = 0

    async def both(database: Database, *order: str) -> None:
        async def work(write: Write) -> None:
            nonlocal tries
            tries += 1
            for name in order:
                adding = (
                    update(deployments)
                    .where(deployments.c.name == name)
                    .values(replicas=deployments.c.replicas + 1)
                )
                await write.connection.execute(adding)
                await anyio.sleep(0.05)

        await database.transact(work, epoch=None)

    async with anyio.create_task_group() as group:
        group.start_soon(both, database, "one", "two")
        group.start_soon(both, other, "two", "one")
    assert await rows(database, select(deployments.c.replicas)) == [(2,), (2,)]
    assert tries in {2, 3}


async def test_a_transaction_always_stood_in_the_way_of_is_a_conflict(database: Database) -> None:
    tried: list[Write] = []

    async def work(write: Write) -> None:
        tried.append(write)
        raise StoodInTheWay("it was undone")

    with pytest.raises(Conflict, match="undone"):
        await database.transact(work, epoch=None)
    assert len(tried) == 3


@pytest.mark.usefixtures("deployment")
async def test_writes_of_what_was_undone_are_not_counted(database: Database) -> None:
    """I10 is asserted on what was committed."""
    written = dict(database.sql_writes)

    async def write_and_fail() -> None:
        async with database.write(epoch=None) as write:
            await write.connection.execute(update(deployments).values(replicas=9))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_fail()
    assert dict(database.sql_writes) == written
    async with database.write(epoch=None) as write:
        await write.connection.execute(update(deployments).values(replicas=9))
        assert dict(database.sql_writes) == written
    assert database.sql_writes["deployments"] == written["deployments"] + 1
