"""Forgetting: what is past its time goes in bounded steps, what is still needed stays."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest
from sqlalchemy import Table, func, insert, select, update

from controller.db import prune
from controller.db.prune import BATCH, BATCHES, Pruner
from controller.db.repository import Repository
from controller.db.session import Database
from controller.db.tables import evictions, history, holds, routes
from controller.errors import LeaseLost
from controller.model import Deployment, Route, RouteStatus
from controller.service import Service
from tests.fakes.database import (
    change,
    expire_lease,
    rows,
    running_routes,
    some_routes,
    to_draining,
    waiting,
)
from tests.fakes.verbs import promote_demo

DAY_MS: Final = 86_400_000


@pytest.fixture
def pruner(database: Database) -> Pruner:
    return Pruner(database, history_keep_days=30, routes_keep_days=7)


async def age(database: Database, days: float) -> None:
    """Let everything there is have happened `days` ago."""
    by_ms = int(days * DAY_MS)
    async with database.write(epoch=None) as write:
        for statement in (
            update(history).values(
                created_at_ms=history.c.created_at_ms - by_ms,
                updated_at_ms=history.c.updated_at_ms - by_ms,
            ),
            update(routes).values(entered_at_ms=routes.c.entered_at_ms - by_ms),
            update(evictions).values(at_ms=evictions.c.at_ms - by_ms),
        ):
            await write.connection.execute(statement)


async def count(database: Database, table: Table) -> int:
    ((found,),) = await rows(database, select(func.count()).select_from(table))
    return int(found)


async def end(repository: Repository, ended: Sequence[Route], *, epoch: int) -> None:
    gone = [change(route, status=RouteStatus.TERMINATED) for route in ended]
    await repository.apply(gone, epoch=epoch)


async def clock(repository: Repository) -> int:
    return await repository.clock_ms()


async def test_nothing_old_is_nothing_written(
    database: Database, repository: Repository, deployment: Deployment, epoch: int, pruner: Pruner
) -> None:
    """I10"""
    await running_routes(repository, deployment, 3, epoch=epoch)
    written = dict(database.sql_writes)
    assert await pruner.run(now_ms=await clock(repository), epoch=epoch) == 0
    assert dict(database.sql_writes) == written


async def test_ended_routes_go_before_their_history(
    database: Database, repository: Repository, deployment: Deployment, epoch: int, pruner: Pruner
) -> None:
    """R-34: what is terminal leaves by age alone."""
    first, second, third = await running_routes(repository, deployment, 3, epoch=epoch)
    await promote_demo(database, epoch=epoch)
    await end(repository, [first], epoch=epoch)
    await age(database, 8)
    await end(repository, [second], epoch=epoch)
    events = await count(database, history)

    assert await pruner.run(now_ms=await clock(repository), epoch=epoch) == 1

    left = await rows(database, select(routes.c.id).order_by(routes.c.id))
    assert left == [(second.id,), (third.id,)]
    assert await count(database, history) == events
    assert (await repository.history_of(first.id))[0].to_state.startswith("terminated")


async def test_old_history_goes_and_the_newer_stays(
    database: Database, repository: Repository, deployment: Deployment, epoch: int, pruner: Pruner
) -> None:
    (route,) = await running_routes(repository, deployment, 1, epoch=epoch)
    await promote_demo(database, epoch=epoch)
    await age(database, 31)
    await repository.apply([to_draining(route)], epoch=epoch)
    assert await pruner.run(now_ms=await clock(repository), epoch=epoch) > 0
    told = [entry.category for entry in await repository.history_of(route.id)]
    assert told == ["evict"]
    assert await pruner.run(now_ms=await clock(repository), epoch=epoch) == 0


async def test_note_that_still_repeats_is_kept(
    database: Database, repository: Repository, deployment: Deployment, epoch: int, pruner: Pruner
) -> None:
    """R-19: its beginning is old, the wait is not over."""
    await promote_demo(database, epoch=epoch)
    seen = await Service(database).get_deployment("demo")
    await repository.apply([], [waiting(seen)], epoch=epoch)
    await age(database, 31)
    await repository.apply([], [waiting(seen)], epoch=epoch)
    await pruner.run(now_ms=await clock(repository), epoch=epoch)
    (kept,) = await repository.history_of(deployment.id)
    assert (kept.category, kept.attempts) == ("deploying", 2)


async def test_rollout_in_flight_keeps_its_history_and_its_failures(
    database: Database, repository: Repository, deployment: Deployment, epoch: int, pruner: Pruner
) -> None:
    """R-12: failures are counted from rows that must not go before the rollout does."""
    (route,) = await some_routes(repository, deployment, 1, epoch=epoch)
    failed = [change(route, status=RouteStatus.FAILED_TO_START)]
    await repository.apply(failed, epoch=epoch)
    await age(database, 400)
    assert deployment.rollout is not None
    of_rollout = select(func.count()).where(history.c.rollout_id == deployment.rollout.id)
    before = await rows(database, of_rollout)
    await pruner.run(now_ms=await clock(repository), epoch=epoch)
    assert (await repository.observe()).failed_counts == {deployment.rollout.id: 1}
    assert await rows(database, of_rollout) == before != [(0,)]

    await promote_demo(database, epoch=epoch)
    await age(database, 400)
    await pruner.run(now_ms=await clock(repository), epoch=epoch)
    assert await count(database, routes) == await count(database, history) == 0


async def test_logs_of_evictions_and_holds_are_kept_as_long_as_history(
    database: Database, repository: Repository, deployment: Deployment, epoch: int, pruner: Pruner
) -> None:
    row = {
        "deployment_id": deployment.id,
        "route_id": "gone",
        "cause": "orphan",
        "prober": "",
        "seq": 0,
        "evidence_age_ms": 0,
        "epoch": epoch,
        "at_ms": await clock(repository),
    }
    held = {"causes": "coverage", "from_ms": 1, "epoch": epoch}
    async with database.write(epoch=None) as write:
        await write.connection.execute(insert(evictions), [row])
        for to_ms in (2, row["at_ms"], None):
            await write.connection.execute(insert(holds), [held | {"to_ms": to_ms}])
    await age(database, 31)
    async with database.write(epoch=None) as write:
        await write.connection.execute(insert(evictions), [row])
    await pruner.run(now_ms=await clock(repository), epoch=epoch)
    assert await count(database, evictions) == 1
    assert await count(database, holds) == 2


async def test_backlog_goes_in_bounded_steps(
    database: Database,
    repository: Repository,
    deployment: Deployment,
    epoch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await promote_demo(database, epoch=epoch)
    for number in range(30):
        note = waiting(deployment, error_code=str(number))
        await repository.apply([], [note], epoch=epoch)
    await age(database, 31)
    monkeypatch.setattr(prune, "BATCH", 3)
    monkeypatch.setattr(prune, "BATCHES", 4)
    assert (BATCH, BATCHES) == (1_000, 5)
    pruner = Pruner(database, history_keep_days=30, routes_keep_days=7)
    now_ms, steps = await clock(repository), []
    while (removed := await pruner.run(now_ms=now_ms, epoch=epoch)) > 0:
        steps.append(removed)
    assert max(steps) <= 12
    assert sum(steps) >= 30
    assert await count(database, history) == 0


@pytest.mark.usefixtures("deployment")
async def test_ex_leader_removes_nothing(
    database: Database, repository: Repository, epoch: int, pruner: Pruner
) -> None:
    """I8"""
    await promote_demo(database, epoch=epoch)
    await age(database, 31)
    before = await count(database, history)
    await expire_lease(database)
    with pytest.raises(LeaseLost):
        await pruner.run(now_ms=await clock(repository), epoch=epoch)
    assert await count(database, history) == before


async def test_pruned_note_begins_again(
    database: Database, repository: Repository, deployment: Deployment, epoch: int, pruner: Pruner
) -> None:
    await promote_demo(database, epoch=epoch)
    seen = await Service(database).get_deployment("demo")
    await repository.apply([], [waiting(seen)], epoch=epoch)
    await age(database, 31)
    await pruner.run(now_ms=await clock(repository), epoch=epoch)
    await repository.apply([], [replace(waiting(seen), message="again")], epoch=epoch)
    (fresh,) = await repository.history_of(deployment.id)
    assert (fresh.attempts, fresh.message) == (1, "again")
