"""kill -9 after every commit of a rollout, with all the real daemons, under a stream of requests.

Reduced by default to a point of each strategy; with FLEETPULSE_FULL=1 every commit there is from
the new revision on to the end of the last old replica, both strategies on both databases.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import select

from controller.db import tables
from controller.db.session import Database, open_database
from controller.model import HealthCheck, Policy, RevisionSpec
from controller.provision.port import SessionState
from controller.service import Service
from tests.fakes.database import database_template  # noqa: F401 - a fixture
from tests.fakes.databases import DIALECTS
from tests.fakes.deaths import (
    ENDLESS,
    Scene,
    fresh_url,  # noqa: F401 - the same
    left_outside,
    scene,  # noqa: F401 - the same
    supervise,
)
from tests.fakes.ledger import Ledger
from tests.fakes.postgres import postgres_databases  # noqa: F401 - the same
from tests.fakes.prober import ProberProcess, until
from tests.fakes.stream import Stream, streaming
from tests.fakes.verbs import apply_demo

FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
REPLICAS: Final = 2
POLICIES: Final = {
    "rolling": Policy(surge=1, unavailable=0),
    "blue-green": Policy(strategy="blue-green"),
}
POINTS: Final = {"rolling": 9, "blue-green": 6}
"""Which commit is the last one, where not all are tried."""
CASES: Final = (
    [(one, strategy) for one in DIALECTS for strategy in POLICIES]
    if FULL
    else [("sqlite", "rolling"), ("postgresql", "blue-green")]
)
LEAST: Final = {"rolling": 20, "blue-green": 10}
"""Commits of a short rollout: fewer would mean that they are not counted."""
SPARED: Final = 3
"""Lives in a row that ended before their point: a rollout that waits a look longer has one more."""
LIFE: Final = {"lease_s": 1, "max_period_s": 0.05, "first_sync_s": 0, "termination_grace_s": 1}
RATE_PER_S: Final = 20.0
PATIENCE_S: Final = 60.0
LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a rollout leaves behind, without ids and times."""

    deployment: tuple[Any, ...]
    routes: tuple[tuple[Any, ...], ...]
    """Of each route: the number of its revision, where it ended, and every change on the way."""
    outcomes: tuple[Any, ...]


def revision(version: int) -> RevisionSpec:
    return RevisionSpec(
        image=f"demo:{version}",
        environment={"SIM_LOAD_S": "0", "SIM_ANSWER_S": "0.03"},
        health_check=HealthCheck(path="/health", interval_s=1.0, max_wait_time_s=1.0),
    )


async def serves(service: Service, version: int) -> bool:
    """Tell whether one revision serves, and there is nothing else."""
    (deployment,) = await service.list_deployments()
    current, routes = deployment.current, await service.list_routes()
    return (
        current is not None
        and current.number == version
        and deployment.rollout is None
        and len(routes) == REPLICAS
        and all(route.ready and route.revision_id == current.id for route in routes)
    )


async def watch(scene: Scene, stream: Stream, lowest: list[int]) -> None:  # noqa: F811 - an argument
    """Count what proxies may send to and the fleet really runs, again and again."""
    while True:
        reports = await scene.fleet.inspect(stream.serving)
        running = sum(report.state is SessionState.RUNNING for report in reports.values())
        lowest[0] = min(lowest[0], running)
        await anyio.sleep(LOOK_S)


@asynccontextmanager
async def probing(scene: Scene, prefix: str, log: Path) -> AsyncIterator[None]:  # noqa: F811 - an argument
    """Run a prober for the life that has this prefix."""
    settings = log.with_suffix(".toml")
    await anyio.Path(settings).write_text(f'[probe]\nkey_prefix = "{prefix}"\n')
    async with ProberProcess.running(scene.bus.url, log, "--config", str(settings)):
        yield


async def look_back(database: Database) -> Left:
    """Return what is left in the database, once every route's history is a chain without a gap."""
    r, h, v, d = (tables.routes.c, tables.history.c, tables.revisions.c, tables.deployments.c)
    async with database.read() as connection:
        numbers = {row.id: row.number for row in await connection.execute(select(v.id, v.number))}
        moves: dict[str, list[tuple[str, str, str]]] = {}
        for subject, *move in await connection.execute(
            select(h.subject, h.category, h.from_state, h.to_state)
            .where(h.from_state != h.to_state)
            .order_by(h.id)
        ):
            moves.setdefault(subject, []).append((move[0], move[1], move[2]))
        routes = await connection.execute(
            select(r.id, r.revision_id, r.status, r.stage, r.health, r.traffic, r.traffic_ratio)
        )
        told = [(numbers[number], *end, tuple(moves[one])) for one, number, *end in routes]
        (row,) = await connection.execute(
            select(d.lifecycle, d.sub_step, d.current_revision_id, d.deploying_revision_id)
        )
        ended = await connection.execute(
            select(tables.rollouts.c.outcome).order_by(tables.rollouts.c.started_at_ms)
        )
        return Left(
            deployment=(row[0], row[1], numbers[row[2]], row[3]),
            routes=tuple(sorted(told, key=repr)),
            outcomes=tuple(ended.scalars()),
        )


async def lived(scene: Scene, strategy: str, point: int) -> tuple[Left, bool]:  # noqa: F811 - an argument
    """Roll out once, with a death after one commit of it; return what is left, and whether."""
    # On another thread: it runs a loop of its own.
    url = await anyio.to_thread.run_sync(scene.fresh_url)
    name = f"{strategy}-{point}"
    prefix, armed = f"{name}:", scene.folder / f"{name}.armed"
    settings = LIFE | {
        "database_url": url,
        "redis_url": scene.bus.url,
        "key_prefix": prefix,
        "provisioner": "simulated",
        "fleet_socket": scene.socket,
    }
    database, deaths = open_database(url), list[int]()
    fate: dict[str, object] = {"die_at": point, "when": "after", "since": str(armed)}
    try:
        async with (
            anyio.create_task_group() as group,
            probing(scene, prefix, scene.folder / f"{name}.probe.log"),
        ):
            group.start_soon(supervise, scene.folder / f"{name}.log", settings, fate, deaths)
            await roll(scene, Service(database), strategy, prefix=prefix, armed=armed)
            assert await Ledger(database).miscounted() == {}
            assert (await left_outside(scene, database, prefix)) == (REPLICAS, REPLICAS)
            left = await look_back(database)
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await database.close()
    return left, bool(deaths)


async def roll(
    scene: Scene,  # noqa: F811 - an argument
    service: Service,
    strategy: str,
    *,
    prefix: str,
    armed: Path,
) -> None:
    """Serve with one revision, then with the next; the floor holds and no request fails."""
    policy, lowest = POLICIES[strategy], [REPLICAS]

    async def applied(version: int) -> None:
        await apply_demo(service, replicas=REPLICAS, policy=policy, revision=revision(version))
        await until(lambda: serves(service, version), within_s=PATIENCE_S)

    await applied(1)
    async with streaming(scene.bus.url, rate_per_s=RATE_PER_S, prefix=prefix) as stream:

        async def whole() -> bool:
            return len(stream.serving) == REPLICAS

        await until(whole, within_s=PATIENCE_S)
        stream.begin()
        async with anyio.create_task_group() as watching:
            watching.start_soon(watch, scene, stream, lowest)
            await anyio.Path(armed).touch()
            await applied(2)
            watching.cancel_scope.cancel()
    assert stream.failures == {}, stream.told
    assert min(lowest[0], stream.fewest) >= REPLICAS


def ended_well(left: Left) -> None:
    """Hold what is left against what was wanted."""
    assert left.outcomes == ("promoted", "promoted")
    assert left.deployment == ("ready", None, 2, None)
    ends = sorted((number, status, *rest[1:4]) for number, status, *rest in left.routes)
    assert ends == [
        *[(1, "terminated", "not_checked", "inactive", 0.0)] * REPLICAS,
        *[(2, "running", "healthy", "active", 1.0)] * REPLICAS,
    ]


@pytest.mark.timeout(3600 if FULL else 90)
@pytest.mark.parametrize(("dialect", "strategy"), CASES)
async def test_a_rollout_that_loses_its_leader_after_any_commit_ends_as_one_that_does_not(
    scene: Scene,  # noqa: F811 - the fixture
    dialect: str,
    strategy: str,
) -> None:
    """R-13, R-32, R-48, I1, I7, I12: its floor holds, and no request fails meanwhile."""
    if not FULL:
        left, died = await lived(scene, strategy, POINTS[strategy])
        assert died
        ended_well(left)
        return
    whole, died = await lived(scene, strategy, ENDLESS)
    assert not died
    ended_well(whole)
    deaths, spared = 0, 0
    for point in range(1, ENDLESS):
        left, died = await lived(scene, strategy, point)
        assert left == whole, f"killed after commit {point}"
        deaths, spared = deaths + died, 0 if died else spared + 1
        if spared == SPARED:
            break
    print(f"{deaths} deaths in a {strategy} rollout on {dialect}")  # noqa: T201 - figures
    assert deaths >= LEAST[strategy]
