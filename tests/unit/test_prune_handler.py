"""Forgetting as a step of the tick: under the epoch, by the database's clock, and no more."""

import pytest
from sqlalchemy import update

from controller.db.prune import Pruner
from controller.db.repository import Repository
from controller.db.session import Database
from controller.db.tables import history
from controller.errors import LeaseLost
from controller.model import Deployment
from controller.reconcile.prune import Prune
from tests.fakes.database import expire_lease, waiting
from tests.fakes.reconcile import ALWAYS, Ticks

DAY_MS = 86_400_000


async def test_run_forgets_what_is_old_and_another_finds_nothing(
    database: Database, repository: Repository, deployment: Deployment, epoch: int, ticks: Ticks
) -> None:
    """R-23, R-36: the age is by the clock of the database, not of this machine."""
    runner = ticks.of(Prune(Pruner(database, history_keep_days=30, routes_keep_days=7), ALWAYS))
    await repository.apply([], [waiting(deployment)], epoch=epoch)
    assert await runner.runner.tick(epoch=epoch) == 0

    async with database.write(epoch=None) as write:
        aged = {"created_at_ms": write.now_ms - 31 * DAY_MS, "updated_at_ms": 0, "rollout_id": None}
        await write.connection.execute(update(history).values(aged))
    ticks.now_s += 100_000
    assert await runner.runner.tick(epoch=epoch) > 0
    assert await repository.history_of(deployment.id) == ()
    ticks.now_s += 100_000
    assert await runner.runner.tick(epoch=epoch) == 0
    assert ticks.failures("prune") == 0


async def test_lost_lease_ends_the_tick_and_forgets_nothing(
    database: Database, repository: Repository, deployment: Deployment, epoch: int, ticks: Ticks
) -> None:
    """I8"""
    runner = ticks.of(Prune(Pruner(database, history_keep_days=30, routes_keep_days=7), ALWAYS))
    async with database.write(epoch=None) as write:
        aged = {"created_at_ms": 0, "updated_at_ms": 0, "rollout_id": None}
        await write.connection.execute(update(history).values(aged))
    before = await repository.history_of(deployment.id)
    await expire_lease(database)
    with pytest.raises(LeaseLost):
        await runner.runner.tick(epoch=epoch)
    assert await repository.history_of(deployment.id) == before
