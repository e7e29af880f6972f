"""kill -9 around every commit of a route's whole life, one run for each point.

Reduced by default to a few points; with FLEETPULSE_FULL=1 every commit there is, right before and
right after it, on both databases.
"""

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import pytest
from redis.asyncio import Redis
from sqlalchemy import select

from controller.db import tables
from controller.db.session import Database, open_database
from controller.embedded import EmbeddedValkey
from controller.model import HealthCheck, Policy, RevisionSpec, RouteId, RouteStatus, Stage
from controller.provision.fleet.client import FleetClient
from controller.provision.fleet.process import running_fleet
from controller.provision.port import SessionState
from controller.service import Service
from tests.fakes.controller import ControllerProcess
from tests.fakes.database import copy_of, database_template  # noqa: F401 - a fixture
from tests.fakes.databases import dialect  # noqa: F401 - the same
from tests.fakes.ledger import Ledger
from tests.fakes.postgres import Databases, postgres_databases  # noqa: F401 - the same
from tests.fakes.prober import until
from tests.fakes.verbs import apply_demo

FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
POINTS: Final = {"sqlite": ((2, "after"),), "postgresql": ((9, "before"),)}
"""What the reduced run looks at: somewhere in a start, and somewhere in a rollout."""
ENDLESS: Final = 200
"""More commits than a life has."""
LIFE: Final = {"lease_s": 1, "max_period_s": 0.05, "first_sync_s": 0, "termination_grace_s": 0}
PATIENCE_S: Final = 60.0
"""A step takes a second or two, and a busy machine may have none to spare."""
NEVER_READY: Final = HealthCheck(path="/health", initial_delay_s=3600)
"""There is no prober here, so what has a health check warms up for ever."""


def image(version: int, check: HealthCheck | None = None) -> RevisionSpec:
    return RevisionSpec(
        image=f"demo:{version}", environment={"SIM_LOAD_S": "0"}, health_check=check
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All that a life leaves behind, without ids and times."""

    routes: tuple[tuple[Any, ...], ...]
    """Of each route: the number of its revision, where it ended, and every change on the way."""
    deployment: tuple[tuple[str, ...], ...]
    outcomes: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Where lives are lived, one database each."""

    bus: EmbeddedValkey
    fleet: FleetClient
    socket: Path
    folder: Path
    fresh_url: Callable[[], str]


@pytest.fixture
def fresh_url(
    dialect: str,  # noqa: F811 - the fixture
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Iterator[Callable[[], str]]:
    """Make one migrated database after the other."""
    if dialect == "sqlite":
        template: Path = request.getfixturevalue("database_template")
        numbers = count(1)

        def copied() -> str:
            folder = tmp_path / str(next(numbers))
            folder.mkdir()
            return copy_of(template, folder)

        yield copied
        return
    databases: Databases = request.getfixturevalue("postgres_databases")
    made: list[str] = []

    def created() -> str:
        made.append(databases.create(migrated=True))
        return databases.at(made[-1])

    yield created
    for name in made:
        databases.drop(name)


@pytest.fixture
async def scene(
    bus: EmbeddedValkey, tmp_path: Path, fresh_url: Callable[[], str]
) -> AsyncIterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        socket = Path(directory, "fleet")
        async with running_fleet(socket):
            client = FleetClient(socket)
            yield Scene(bus=bus, fleet=client, socket=socket, folder=tmp_path, fresh_url=fresh_url)
            await client.close()


async def supervise(
    log: Path, settings: dict[str, Any], fate: dict[str, object], deaths: list[int]
) -> None:
    """Keep a controller running, the first one with its fate; note how it ended."""
    for own in (fate, None):
        async with ControllerProcess.running(log, fate=own, **settings) as controller:
            code = await controller.process.wait()
            assert own is not None, f"ended with {code} by itself, see {log}"
            assert code == -signal.SIGKILL, f"ended with {code}, see {log}"
            deaths.append(code)


async def live_whole(service: Service) -> None:
    """Start a replica, evict one that was left over, replace the first one, and end all."""

    async def only_serving(revision: int) -> bool:
        (deployment,) = await service.list_deployments()
        current, routes = deployment.current, await service.list_routes()
        return (
            current is not None
            and current.number == revision
            and deployment.rollout is None
            and [(route.status, route.revision_id) for route in routes]
            == [(RouteStatus.RUNNING, current.id)]
        )

    async def second_warms_up() -> bool:
        return Stage.WARMING_UP in [route.stage for route in await service.list_routes()]

    async def gone() -> bool:
        return not await service.list_deployments() and not await service.list_routes()

    policy = Policy(surge=1, unavailable=0)
    for version, check, reached in (
        (1, None, partial(only_serving, 1)),
        (2, NEVER_READY, second_warms_up),
        (3, None, partial(only_serving, 3)),
    ):
        await apply_demo(service, replicas=1, policy=policy, revision=image(version, check))
        await until(reached, within_s=PATIENCE_S)
        # Nothing is evicted where no prober is seen, unless somebody takes it upon himself.
        await service.force("demo", for_s=600, actor="a-test", reason="nobody probes here")
    await service.delete("demo", actor="a-test")
    await until(gone, within_s=PATIENCE_S)


async def tell(database: Database) -> Story:
    """Return what a life left in its database."""
    r, h, v, o = (tables.routes.c, tables.history.c, tables.revisions.c, tables.rollouts.c)
    moves = select(h.subject, h.category, h.from_state, h.to_state, h.result, h.attempts)
    async with database.read() as connection:
        revisions = await connection.execute(select(v.id, v.number))
        numbers = {row.id: row.number for row in revisions}
        told: dict[str, list[tuple[Any, ...]]] = {}
        for subject, *move in await connection.execute(
            moves.where(h.from_state != h.to_state).order_by(h.id)
        ):
            told.setdefault(subject, []).append(tuple(move))
        ended = await connection.execute(select(r.id, r.revision_id, r.status, r.stage, r.health))
        routes = [(numbers[revision], *end, tuple(told[route])) for route, revision, *end in ended]
        (deployment,) = (await connection.execute(select(tables.deployments.c.id))).scalars()
        rollouts = await connection.execute(select(o.revision_id, o.outcome))
        return Story(
            routes=tuple(sorted(routes)),
            deployment=tuple(told[deployment]),
            outcomes=tuple(sorted((numbers[revision], outcome) for revision, outcome in rollouts)),
        )


async def lived(scene: Scene, point: int, when: str) -> tuple[Story, bool]:
    """Live once, with a death at one commit; return what is left, and whether it was met."""
    # On another thread: it runs a loop of its own.
    url, prefix = await anyio.to_thread.run_sync(scene.fresh_url), f"{point}-{when}:"
    settings = LIFE | {
        "database_url": url,
        "redis_url": scene.bus.url,
        "key_prefix": prefix,
        "provisioner": "simulated",
        "fleet_socket": scene.socket,
    }
    database, deaths = open_database(url), list[int]()
    log = scene.folder / f"{point}-{when}.log"
    fate: dict[str, object] = {"die_at": point, "when": when}
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(supervise, log, settings, fate, deaths)
            await live_whole(Service(database))
            assert await Ledger(database).miscounted() == {}
            assert await left_outside(scene, database, prefix) == (0, 0)
            story = await tell(database)
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await database.close()
    return story, bool(deaths)


async def left_outside(scene: Scene, database: Database, prefix: str) -> tuple[int, int]:
    """Return how many sessions run that nobody wants, and how many targets are still probed."""
    async with database.read() as connection:
        ids = (await connection.execute(select(tables.routes.c.id))).scalars().all()
    sessions = await scene.fleet.inspect([RouteId(one) for one in ids])
    running = [one for one in sessions.values() if one.state is SessionState.RUNNING]
    async with aclosing(Redis(unix_socket_path=str(scene.bus.socket_path))) as client:
        targets = [key async for key in client.scan_iter(match=f"{prefix}route_probe:*")]
    return len(running), len(targets)


@pytest.mark.timeout(1800 if FULL else 90)
async def test_a_controller_killed_at_any_commit_leaves_what_one_that_lives_leaves(
    scene: Scene,
    dialect: str,  # noqa: F811 - the fixture
) -> None:
    """R-13, R-17, R-44, I7, I12"""
    whole, died = await lived(scene, ENDLESS, "after")
    assert not died
    assert {category for *_, moves in whole.routes for category, *_ in moves} >= {"evict"}
    points = every_point() if FULL else iter(POINTS[dialect])
    runs = 0
    for point, when in points:
        story, died = await lived(scene, point, when)
        if not died:
            break
        assert story == whole, f"killed {when} commit {point}"
        runs += 1
    print(f"{runs} deaths on {dialect}, all end as a life without one")  # noqa: T201 - figures
    assert runs >= (30 if FULL else len(POINTS[dialect]))


def every_point() -> Iterator[tuple[int, str]]:
    """Yield both sides of every commit, until a life has no more of them."""
    for point in range(1, ENDLESS):
        yield from ((point, "before"), (point, "after"))
