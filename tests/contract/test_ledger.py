"""The audit of the books: quiet over everything lawful, and it finds what was planted."""

import pytest
from sqlalchemy import delete, insert, select, update

from controller.db.ledger import Ledger
from controller.db.repository import Repository
from controller.db.session import Database
from controller.db.tables import history, routes
from controller.model import Deployment, Health, Note, Route
from tests.fakes.database import change, running_routes, to_draining


@pytest.fixture
async def lived(repository: Repository, deployment: Deployment, epoch: int) -> tuple[Route, ...]:
    """Three routes with a life behind them: changes, a flap, repeated notes, one that leaves."""
    made = await running_routes(repository, deployment, 3, epoch=epoch)
    for health in (Health.UNHEALTHY, Health.HEALTHY):
        seen = (await repository.observe()).routes
        await repository.apply([change(seen[0], health=health)], epoch=epoch)
    note = Note(
        deployment_id=deployment.id,
        route_id=made[1].id,
        category="terminate",
        message="cannot be stopped",
        result="failure",
    )
    for _ in range(3):
        await repository.apply([], [note], epoch=epoch)
    seen = (await repository.observe()).routes
    await repository.apply([to_draining(seen[2])], epoch=epoch)
    return (await repository.observe()).routes


async def test_a_life_in_order_is_quiet(database: Database, lived: tuple[Route, ...]) -> None:
    """I7"""
    assert await Ledger(database).miscounted([route.id for route in lived]) == ()


@pytest.mark.parametrize("duplicate", [True, False])
async def test_a_row_too_many_or_too_few_is_found(
    database: Database, lived: tuple[Route, ...], *, duplicate: bool
) -> None:
    """I7, R-17"""
    async with database.write(epoch=None) as write:
        found = select(history).where(history.c.subject == lived[0].id).order_by(history.c.id)
        *_, newest = (await write.connection.execute(found)).mappings()
        if duplicate:
            row = {name: value for name, value in newest.items() if name != "id"}
            await write.connection.execute(insert(history).values(**row))
        else:
            await write.connection.execute(delete(history).where(history.c.id == newest["id"]))
    assert await Ledger(database).miscounted([route.id for route in lived]) == (lived[0].id,)


async def test_a_change_without_a_row_is_found(
    database: Database, lived: tuple[Route, ...]
) -> None:
    """I7"""
    async with database.write(epoch=None) as write:
        unseen = update(routes).where(routes.c.id == lived[1].id)
        await write.connection.execute(unseen.values(version=routes.c.version + 1))
    assert await Ledger(database).miscounted([route.id for route in lived]) == (lived[1].id,)


async def test_a_route_whose_beginning_was_pruned_is_not_judged(
    database: Database, lived: tuple[Route, ...]
) -> None:
    async with database.write(epoch=None) as write:
        old = delete(history).where(history.c.subject == lived[0].id, history.c.from_state == "")
        await write.connection.execute(old)
    assert await Ledger(database).miscounted([lived[0].id]) == ()


async def test_an_epoch_that_is_over_is_found_in_the_history(
    database: Database, repository: Repository, lived: tuple[Route, ...], epoch: int
) -> None:
    """I8"""
    ledger = Ledger(database)
    known = await ledger.epochs(None)
    assert (known.highest, known.went_back) == (epoch, 0)
    seen = (await repository.observe()).routes
    await repository.apply([change(seen[0], health=Health.DEGRADED)], epoch=epoch)
    await repository.apply([change(seen[1], health=Health.DEGRADED)], epoch=epoch)
    async with database.write(epoch=None) as write:
        newer = update(history).where(history.c.subject == lived[0].id)
        await write.connection.execute(newer.values(epoch=epoch + 1))
    after = await ledger.epochs(known)
    assert (after.highest, after.went_back) == (epoch + 1, 1)
    assert (await ledger.epochs(after)).went_back == 0
