"""Snapshots, and changes of routes on top of them: who wins, and what follows from a change."""

from dataclasses import replace

import pytest
from sqlalchemy import func, select, update

from controller.db.repository import Repository
from controller.db.session import Database
from controller.db.tables import history, routes
from controller.model import (
    Deployment,
    Health,
    RouteStatus,
    Stage,
    Traffic,
)
from controller.service import Service
from tests.fakes.database import (
    change,
    only,
    rows,
    running_routes,
    some_routes,
    to_draining,
    to_running,
    waiting,
)


async def test_empty_database_is_an_empty_snapshot(repository: Repository) -> None:
    snapshot = await repository.observe()
    assert (snapshot.deployments, snapshot.routes, snapshot.failed_counts) == ({}, (), {})
    assert snapshot.now_ms > 0


async def test_deployment_carries_its_revision_objects_and_its_rollout(
    repository: Repository, deployment: Deployment
) -> None:
    seen = await only(repository)
    assert seen == deployment
    assert seen.current is None
    assert seen.deploying is not None
    assert seen.rollout is not None
    assert seen.deploying.number == 1
    assert seen.rollout.revision_id == seen.deploying.id


async def test_new_route_is_pending_and_not_checked(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    (route,) = await some_routes(repository, deployment, 1, epoch=epoch)
    assert (route.status, route.stage) == (RouteStatus.PROVISIONING, Stage.PENDING)
    assert (route.health, route.traffic) == (Health.NOT_CHECKED, Traffic.INACTIVE)
    assert route.entered_at_ms == route.created_at_ms
    assert route.ready_since_ms is None


async def test_terminal_routes_are_not_seen(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    first, second = await some_routes(repository, deployment, 2, epoch=epoch)
    failed = change(first, status=RouteStatus.FAILED_TO_START)
    await repository.apply([failed], epoch=epoch)
    assert [route.id for route in (await repository.observe()).routes] == [second.id]


async def test_routes_lost_on_the_new_side_are_counted_for_their_rollout_alone(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-12, R-18"""
    first, second, _ = await some_routes(repository, deployment, 3, epoch=epoch)
    failed = [change(first, status=RouteStatus.FAILED_TO_START), to_draining(second)]
    await repository.apply(failed, epoch=epoch)
    before = await repository.observe()
    assert deployment.rollout is not None
    assert before.failed_counts == {deployment.rollout.id: 2}

    service = Service(database)
    assert deployment.deploying is not None
    await service.add_revision("demo", deployment.deploying.spec, auto_activate=True)
    assert (await repository.observe()).failed_counts == {}


async def test_nothing_to_do_does_no_io(repository: Repository) -> None:
    """R-04"""
    applied = await repository.apply([], epoch=99)  # no such epoch: nobody asked
    assert (applied.applied, applied.lost) == (0, ())


async def test_change_that_alters_nothing_is_not_written(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """I10"""
    (route,) = await running_routes(repository, deployment, 1, epoch=epoch)
    written = dict(repository.sql_writes)
    same = change(route, health=Health.HEALTHY, status=RouteStatus.RUNNING, message="again")
    assert (await repository.apply([same], epoch=epoch)).applied == 0
    assert dict(repository.sql_writes) == written


async def test_row_changed_meanwhile_is_lost_and_gets_no_history(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-17"""
    first, second = await running_routes(repository, deployment, 2, epoch=epoch)
    await repository.apply([change(first, health=Health.DEGRADED)], epoch=epoch)
    before = await rows(database, select(func.count()).select_from(history))

    late = [change(route, health=Health.UNHEALTHY) for route in (first, second)]
    applied = await repository.apply(late, epoch=epoch)

    assert (applied.applied, applied.lost) == (1, (first.id,))
    now = {route.id: route.health for route in (await repository.observe()).routes}
    assert now == {first.id: Health.DEGRADED, second.id: Health.UNHEALTHY}
    assert await rows(database, select(func.count()).select_from(history)) == [(before[0][0] + 1,)]


async def test_second_change_of_one_route_in_a_batch_loses(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-17"""
    (route,) = await running_routes(repository, deployment, 1, epoch=epoch)
    both = [change(route, health=Health.UNHEALTHY), change(route, health=Health.DEGRADED)]
    applied = await repository.apply(both, epoch=epoch)
    assert (applied.applied, applied.lost) == (1, (route.id,))
    assert (await repository.observe()).routes[0].health is Health.UNHEALTHY


@pytest.mark.parametrize("end", [RouteStatus.TERMINATED, RouteStatus.FAILED_TO_START])
async def test_terminal_route_never_changes_again(
    repository: Repository, deployment: Deployment, epoch: int, end: RouteStatus
) -> None:
    """R-34: not even for somebody who saw its last version."""
    (route,) = await some_routes(repository, deployment, 1, epoch=epoch)
    await repository.apply([change(route, status=end)], epoch=epoch)
    ended = replace(route, status=end, stage=None, version=route.version + 1)
    applied = await repository.apply([to_draining(ended)], epoch=epoch)
    assert applied.lost == (route.id,)
    assert (await repository.observe()).routes == ()


async def test_stage_is_cleared_when_its_status_is_left(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-42"""
    (route,) = await some_routes(repository, deployment, 1, epoch=epoch)
    await repository.apply([change(route, stage=Stage.WARMING_UP)], epoch=epoch)
    (warming,) = (await repository.observe()).routes
    assert warming.stage is Stage.WARMING_UP
    await repository.apply([to_running(warming)], epoch=epoch)
    (running,) = (await repository.observe()).routes
    assert (running.status, running.stage) == (RouteStatus.RUNNING, None)


async def test_entered_moves_with_status_or_stage_and_not_with_health(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-04: when a route entered its state is never unknown."""
    (route,) = await running_routes(repository, deployment, 1, epoch=epoch)
    async with database.write(epoch=None) as write:
        await write.connection.execute(update(routes).values(entered_at_ms=5))
    old = replace(route, entered_at_ms=5)
    await repository.apply([change(old, health=Health.DEGRADED)], epoch=epoch)
    (degraded,) = (await repository.observe()).routes
    assert degraded.entered_at_ms == 5
    await repository.apply([to_draining(degraded)], epoch=epoch)
    (draining,) = (await repository.observe()).routes
    assert draining.entered_at_ms > 5


async def test_ready_since_is_set_on_becoming_ready_and_cleared_on_ceasing(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    (route,) = await running_routes(repository, deployment, 1, epoch=epoch)
    since = route.ready_since_ms
    assert since is not None
    await repository.apply([change(route, traffic=Traffic.INACTIVE)], epoch=epoch)
    (still,) = (await repository.observe()).routes
    assert still.ready_since_ms == since
    await repository.apply([change(still, health=Health.UNHEALTHY)], epoch=epoch)
    (unready,) = (await repository.observe()).routes
    assert unready.ready_since_ms is None


async def test_address_is_saved_with_the_stage(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    (route,) = await some_routes(repository, deployment, 1, epoch=epoch)
    found = change(route, stage=Stage.WARMING_UP, session_id="s1", host="127.0.0.1", port=8000)
    await repository.apply([found], epoch=epoch)
    (saved,) = (await repository.observe()).routes
    assert (saved.session_id, saved.host, saved.port) == ("s1", "127.0.0.1", 8000)
    assert saved.version == route.version + 1
    assert saved.reason == found.message


async def test_stamp_differs_after_a_verb_and_stays_otherwise(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    before = await repository.stamp()
    await repository.apply([], [waiting(deployment)], epoch=epoch)
    assert await repository.stamp() == before
    await Service(database).scale("demo", 5)
    assert await repository.stamp() != before
