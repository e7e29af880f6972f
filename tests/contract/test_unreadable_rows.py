"""A row that cannot be read hides its own deployment, and no other."""

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Table, update
from structlog.testing import capture_logs

from controller.db.repository import Repository
from controller.db.session import Database
from controller.db.tables import deployments, revisions, rollouts, routes
from controller.model import Deployment, Snapshot
from tests.fakes.database import a_deployment, running_routes

BROKEN: Mapping[str, tuple[Table, Mapping[str, Any]]] = {
    "strategy of a newer version": (deployments, {"policy": '{"strategy": "recreate"}'}),
    "lifecycle of a newer version": (deployments, {"lifecycle": "archiving"}),
    "sub-step of a newer version": (deployments, {"sub_step": "baking"}),
    "policy cut off": (deployments, {"policy": '{"strategy": "rol'}),
    "statuses of no kind": (deployments, {"cleanup_target_statuses": '["sad"]'}),
    "spec with a new field": (revisions, {"spec": '{"command": ["a"], "gpu": 4}'}),
    "rollout's policy": (rollouts, {"policy": "null"}),
    "status of a newer version": (routes, {"status": "running", "health": "sleepy"}),
    "stage of a newer version": (routes, {"stage": "thawing"}),
    "health check cut off": (routes, {"health_check": '{"path"'}),
}


async def corrupt(
    database: Database, deployment: Deployment, table: Table, values: Mapping[str, Any]
) -> None:
    key = table.c.id if table is deployments else table.c.deployment_id
    async with database.write(epoch=None) as write:
        await write.connection.execute(update(table).where(key == deployment.id).values(**values))


def names(snapshot: Snapshot) -> list[str]:
    return sorted(each.name for each in snapshot.deployments.values())


@pytest.mark.parametrize("what", BROKEN)
async def test_one_deployment_is_left_alone_with_its_routes(
    database: Database, repository: Repository, deployment: Deployment, epoch: int, what: str
) -> None:
    """R-15: whatever is wrong with it, the others are seen as ever."""
    mine = await running_routes(repository, deployment, 2, epoch=epoch)
    other = await a_deployment(database, "other")
    await corrupt(database, deployment, *BROKEN[what])

    snapshot = await repository.observe()

    assert names(snapshot) == ["other"]
    assert snapshot.routes == ()
    assert list(snapshot.unreadable) == [deployment.id]
    assert snapshot.left_alone == {route.id for route in mine}
    assert other.id in snapshot.deployments


async def test_it_is_told_once_and_again_when_it_is_over(
    database: Database, repository: Repository, deployment: Deployment
) -> None:
    before = deployments.c.policy
    await corrupt(database, deployment, deployments, {"policy": before + "x"})
    with capture_logs() as logs:
        for _ in range(3):
            await repository.observe()
    assert [entry["event"] for entry in logs] == ["deployment_unreadable"]
    assert "'demo'" in logs[0]["why"]
    await corrupt(database, deployment, deployments, {"policy": '{"surge": 1}'})
    with capture_logs() as logs:
        snapshot = await repository.observe()
    assert [entry["event"] for entry in logs] == ["deployment_readable"]
    assert (names(snapshot), snapshot.unreadable) == (["demo"], {})
