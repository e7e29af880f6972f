"""kill -9 around every commit of a route's whole life, one run for each point.

Reduced by default to a few points; with FLEETPULSE_FULL=1 every commit there is, right before and
right after it, on both databases.
"""

import os
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import select

from controller.db import tables
from controller.db.session import Database, open_database
from controller.model import HealthCheck, Policy, RevisionSpec, RouteStatus, Stage
from controller.service import Service
from tests.fakes.database import database_template  # noqa: F401 - a fixture
from tests.fakes.databases import dialect  # noqa: F401 - the same
from tests.fakes.deaths import (
    ENDLESS,
    Scene,
    every_point,
    fresh_url,  # noqa: F401 - the same
    left_outside,
    scene,  # noqa: F401 - the same
    supervise,
)
from tests.fakes.ledger import Ledger
from tests.fakes.postgres import postgres_databases  # noqa: F401 - the same
from tests.fakes.prober import until
from tests.fakes.verbs import apply_demo

FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
POINTS: Final = {"sqlite": ((2, "after"),), "postgresql": ((9, "before"),)}
"""What the reduced run looks at: somewhere in a start, and somewhere in a rollout."""
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


async def lived(
    scene: Scene,  # noqa: F811 - an argument
    point: int,
    when: str,
) -> tuple[Story, bool]:
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


@pytest.mark.timeout(1800 if FULL else 90)
async def test_a_controller_killed_at_any_commit_leaves_what_one_that_lives_leaves(
    scene: Scene,  # noqa: F811 - the fixture
    dialect: str,  # noqa: F811 - the same
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
