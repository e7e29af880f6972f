"""A real database for every test: the migrated schema, copied from one template per process.

Migrating takes 40 ms, copying the file under 1 ms. The fixtures are taken up by the conftest of
the folders that need them: with this `database_url` they run on SQLite, with that of
`tests.fakes.databases` on PostgreSQL, too.
"""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from sqlalchemy import Select, update

from controller.db import migrate
from controller.db.repository import Repository
from controller.db.session import Database, open_database
from controller.db.tables import leader_lease
from controller.lease import Lease
from controller.model import (
    Decision,
    Deployment,
    DeploymentId,
    Health,
    HealthCheck,
    NewRoute,
    Note,
    Policy,
    RevisionSpec,
    Route,
    RouteChange,
    RouteId,
    RouteStatus,
    Stage,
    Traffic,
)
from controller.service import Service

CHECK: Final = HealthCheck(path="/health")
SPEC: Final = RevisionSpec(command=("serve", "a-model"), health_check=CHECK)


@pytest.fixture(scope="session")
def database_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "template.db"
    anyio.run(migrate.upgrade, str(path))
    return path


@pytest.fixture
def database_url(database_template: Path, tmp_path: Path) -> str:
    return copy_of(database_template, tmp_path)


def copy_of(template: Path, folder: Path) -> str:
    """Return the URL of a copy of a file."""
    path = folder / "fleet.db"
    shutil.copyfile(template, path)
    return f"sqlite:///{path}"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = open_database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def repository(database: Database) -> Repository:
    return Repository(database)


@pytest.fixture
def service(database: Database) -> Service:
    return Service(database)


@pytest.fixture
async def deployment(database: Database) -> Deployment:
    """A deployment called demo whose revision 1 is on its way."""
    return await a_deployment(database)


@pytest.fixture
async def epoch(database: Database) -> int:
    """The epoch of a lease that outlives the test."""
    taken = await Lease(database, holder="the-test", lease_s=3600).acquire()
    assert taken is not None
    return taken


async def rows(database: Database, query: Select[Any]) -> list[tuple[Any, ...]]:
    """Return what `query` finds."""
    async with database.read() as connection:
        return [tuple(row) for row in await connection.execute(query)]


async def expire_lease(database: Database) -> None:
    """Let the lease's time be over, without waiting for it."""
    async with database.write(epoch=None) as write:
        await write.connection.execute(update(leader_lease).values(expires_at_ms=0))


async def a_deployment(
    database: Database, name: str = "demo", *, spec: RevisionSpec = SPEC, replicas: int = 3
) -> Deployment:
    """Apply a deployment: revision 1 is on its way."""
    applied = await Service(database).apply_deployment(
        name,
        replicas=replicas,
        policy=Policy(),
        cleanup_target_statuses={Health.UNHEALTHY},
        revision=spec,
    )
    return applied.deployment


def new_routes(deployment: Deployment, count: int, *, first: int = 1) -> tuple[NewRoute, ...]:
    """Want `count` replicas of what the deployment is deploying, or else of its current."""
    revision = deployment.deploying or deployment.current
    assert revision is not None
    return tuple(
        NewRoute(
            id=RouteId(f"00000000-0000-4000-8000-{number:012x}"),
            deployment_id=DeploymentId(deployment.id),
            revision_id=revision.id,
            traffic=Traffic.INACTIVE,
            traffic_ratio=0.0,
            health_check=CHECK,
            rollout_id=None if deployment.rollout is None else deployment.rollout.id,
            message="wanted by a test",
        )
        for number in range(first, first + count)
    )


def change(route: Route, **given: Any) -> RouteChange:  # noqa: ANN401 - any field of a change
    """Build a change of `route`, with a category and a message nobody cares about."""
    return RouteChange(
        route=route, **({"category": "test", "message": "as the test wants"} | given)
    )


def to_running(route: Route) -> RouteChange:
    """Build the change that a passed warm-up makes."""
    return change(
        route,
        category="check_warming_up",
        status=RouteStatus.RUNNING,
        health=Health.HEALTHY,
        traffic=Traffic.ACTIVE,
        traffic_ratio=1.0,
    )


def to_draining(route: Route) -> RouteChange:
    """Build the change that lets a route go."""
    return change(
        route,
        category="evict",
        status=RouteStatus.TERMINATING,
        stage=Stage.DRAINING,
        health=Health.NOT_CHECKED,
        traffic=Traffic.INACTIVE,
        traffic_ratio=0.0,
    )


async def only(repository: Repository) -> Deployment:
    (deployment,) = (await repository.observe()).deployments.values()
    return deployment


async def some_routes(
    repository: Repository, deployment: Deployment, count: int, *, epoch: int
) -> tuple[Route, ...]:
    decision = Decision(deployment=deployment, create=new_routes(deployment, count))
    await repository.commit(decision, epoch=epoch)
    return (await repository.observe()).routes


async def running_routes(
    repository: Repository, deployment: Deployment, count: int, *, epoch: int
) -> tuple[Route, ...]:
    created = await some_routes(repository, deployment, count, epoch=epoch)
    await repository.apply([to_running(route) for route in created], epoch=epoch)
    return (await repository.observe()).routes


def waiting(deployment: Deployment, **given: str) -> Note:
    known = {"category": "deploying", "message": "waiting for replicas", "result": "skipped"}
    return Note(deployment_id=deployment.id, route_id=None, **(known | given))
