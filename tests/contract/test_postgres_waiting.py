"""Writers that wait for each other's rows on PostgreSQL: what they decide on once they go on."""

from collections.abc import AsyncIterator

import anyio
import msgspec
import pytest
from sqlalchemy import select

from controller.change import applied
from controller.db import activation, outbox, tables
from controller.db.bulk import move_routes
from controller.db.deployments import revisions_of
from controller.db.events import route_changed
from controller.db.history import write_events
from controller.db.named import changeable
from controller.db.repository import Repository
from controller.db.session import Database, open_database
from controller.lease import Lease
from controller.model import Health, RouteStatus
from controller.service import Service
from tests.fakes.database import SPEC, a_deployment, change, rows, running_routes
from tests.fakes.locks import until_somebody_waits


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    opened = open_database(postgres_url)
    yield opened
    await opened.close()


async def test_verb_that_waited_decides_on_what_the_one_before_it_left(database: Database) -> None:
    """R-14: an activation that waits for another one supersedes it; no rollout is left open."""
    await a_deployment(database)
    service = Service(database)
    for number in (2, 3):
        await service.add_revision(
            "demo", msgspec.structs.replace(SPEC, command=("serve", str(number)))
        )
    async with anyio.create_task_group() as group, database.write(epoch=None) as write:
        seen = await changeable(write, "demo")
        second = (await revisions_of(write.connection, seen.id))[1]
        await activation.activate(write, seen, second, actor="ada")
        group.start_soon(service.activate, "demo", 3)
        await until_somebody_waits(database)
    open_ones = select(tables.rollouts.c.id).where(tables.rollouts.c.ended_at_ms.is_(None))
    in_flight = (await service.get_deployment("demo")).rollout
    assert in_flight is not None
    assert await rows(database, open_ones) == [(in_flight.id,)]


async def test_verb_waits_for_the_leader_and_not_in_a_ring(database: Database) -> None:
    """A leader's write names its deployment last: the verb that has it waits for the route only."""
    epoch = await Lease(database, holder="the-test", lease_s=3600).acquire()
    assert epoch is not None
    await a_deployment(database)
    service = Service(database)
    deployment = await service.get_deployment("demo")
    (route,) = await running_routes(Repository(database), deployment, 1, epoch=epoch)
    unhealthy = change(route, health=Health.UNHEALTHY)
    async with anyio.create_task_group() as group, database.write(epoch=epoch) as write:
        after = applied(unhealthy, now_ms=write.now_ms)
        await move_routes(write.connection, {route.id: (route.version, after)})
        group.start_soon(service.drain_route, route.id)
        await until_somebody_waits(database)
        await write_events(write, [route_changed(unhealthy, after, rollout_id=None)])
    left = await service.get_route(route.id)
    assert (left.status, left.version) == (RouteStatus.TERMINATING, route.version + 2)


async def test_what_is_wanted_anew_and_what_was_delivered_wait_in_one_order(
    database: Database,
) -> None:
    """A leader whose deliveries and next tables met in a ring ended, as in a lost lease."""
    epoch = await Lease(database, holder="the-test", lease_s=3600).acquire()
    assert epoch is not None

    async def put(version: int, *subjects: str) -> None:
        async with database.write(epoch=epoch) as write:
            effects = dict.fromkeys(subjects, (version, ""))
            await outbox.put_all(write, kind="proxy_table", effects=effects)

    async def forget(*effects: outbox.Effect) -> None:
        async with database.write(epoch=epoch) as write:
            await outbox.done(write, effects)

    await put(1, "a", "b", "m", "n")
    async with database.read() as connection:
        a, b, _, n = await outbox.pending(connection, limit=4)
    held = select(tables.outbox.c.id).where(tables.outbox.c.subject.in_(("m", "n")))
    async with anyio.create_task_group() as group, database.write(epoch=epoch) as write:
        await write.connection.execute(held.with_for_update())
        group.start_soon(put, 2, "b", "m", "a")
        await until_somebody_waits(database)
        group.start_soon(forget, a, n, b)
        await until_somebody_waits(database, writers=2)
    left = select(tables.outbox.c.subject, tables.outbox.c.version)
    assert set(await rows(database, left)) == {("a", 2), ("b", 2), ("m", 2)}
