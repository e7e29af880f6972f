"""A controller killed again and again leaves what one that was never interrupted leaves."""

import random
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis

from controller.embedded import EmbeddedValkey
from controller.model import Outcome, Policy, Route, RouteId
from controller.provision.port import SessionState
from controller.service import Service
from probe.wire import Keys, ReplicaId
from tests.fakes.controller import ControllerProcess
from tests.fakes.prober import until
from tests.fakes.surroundings import Surroundings, simulated
from tests.fakes.verbs import apply_demo

REPLICAS = 6
KILLS = 3
"""Per phase; a life is about 4 s: the start of a process, and the wait for the lease."""
ROWS_MAX = 12
"""A life ends within so many rows of history, so that every one ends at work."""
SEED = 1
JITTER_S = 0.05
WORK_WITHIN_S = 8.0
LIFE = {
    "lease_s": 1,
    "max_period_s": 0.2,
    "first_sync_s": 0,
    "termination_grace_s": 0.2,
}


class Witness:
    """Looks at the database from outside, as often as it likes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.fewest_ready = REPLICAS

    def rows(self) -> int:
        """Return the length of history; notes how many replicas are ready on the way."""
        ready = self._one("SELECT COUNT(*) FROM routes WHERE ready_since_ms IS NOT NULL")
        self.fewest_ready = min(self.fewest_ready, ready)
        return self._one("SELECT COUNT(*) FROM history")

    def all_routes(self) -> dict[RouteId, int]:
        """Return every route there ever was, and its version."""
        return dict(self._connection.execute("SELECT id, version FROM routes"))

    def changes(self) -> Counter[RouteId]:
        """Return how many changes history tells of each route."""
        told = self._connection.execute(
            "SELECT subject, SUM(attempts) FROM history"
            " WHERE route_id IS NOT NULL AND to_state <> from_state GROUP BY subject"
        )
        return Counter(dict(told))

    def _one(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])


@pytest.fixture
def witness(database_url: str) -> Iterator[Witness]:
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection:
        yield Witness(connection)


@pytest.fixture
async def surroundings(bus: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Surroundings]:
    async with Surroundings.running(bus, tmp_path / "prober.log") as running:
        yield running


@pytest.fixture
def settings(database_url: str, bus: EmbeddedValkey, surroundings: Surroundings) -> dict[str, Any]:
    return {"database_url": database_url, "redis_url": bus.url, **LIFE, **surroundings.settings}


async def die_at_work(
    settings: dict[str, Any], log: Path, witness: Witness, chance: random.Random
) -> None:
    """Live one life: lead, do a little, and be killed in the midst of it."""
    async with ControllerProcess.running(log, **settings) as controller:
        await until(controller.leads)
        enough = witness.rows() + chance.randint(0, ROWS_MAX)
        with anyio.move_on_after(WORK_WITHIN_S):
            while witness.rows() < enough:  # noqa: ASYNC110 - another process has no event
                await anyio.sleep(0.002)
        await anyio.sleep(chance.uniform(0, JITTER_S))
        assert await controller.end(signal.SIGKILL) == -signal.SIGKILL


async def settle(
    settings: dict[str, Any], log: Path, witness: Witness, service: Service, *, revision: int
) -> tuple[Route, ...]:
    """Live one life to its end, in which everything is brought to its end."""
    async with ControllerProcess.running(log, **settings) as controller:

        async def settled() -> bool:
            witness.rows()
            (deployment,) = await service.list_deployments()
            current = deployment.current
            routes = await service.list_routes()
            return (
                current is not None
                and current.number == revision
                and deployment.rollout is None
                and len(routes) == REPLICAS
                and all(r.ready and r.revision_id == current.id for r in routes)
            )

        await until(settled, within_s=30)
        assert await controller.metric("invariant_violations_total") == 0
        assert await controller.metric("reconcile_failures_total") == 0
        assert await controller.end() == 0
    return await service.list_routes()


@pytest.mark.slow
async def test_a_start_and_a_rolling_update_end_well_however_often_their_controller_is_killed(  # noqa: PLR0917 - fixtures
    settings: dict[str, Any],
    surroundings: Surroundings,
    service: Service,
    witness: Witness,
    bus: EmbeddedValkey,
    tmp_path: Path,
) -> None:
    """R-13, R-17, I1, I7, I9, I12"""
    chance = random.Random(SEED)  # noqa: S311 - when to kill, not a secret
    log = tmp_path / "controller.log"
    policy = Policy(surge=2, unavailable=1)
    for version in (1, 2):
        await apply_demo(
            service, replicas=REPLICAS, policy=policy, revision=simulated(version, load_s=0.3)
        )
        for _ in range(KILLS):
            await die_at_work(settings, log, witness, chance)
        routes = await settle(settings, log, witness, service, revision=version)
        assert {(str(r.status), str(r.health), str(r.traffic)) for r in routes} == {
            ("running", "healthy", "active")
        }
        witness.fewest_ready = REPLICAS
    assert witness.fewest_ready >= REPLICAS - 1
    outcomes = [rollout.outcome for rollout in await service.list_rollouts("demo")]
    assert outcomes == [Outcome.PROMOTED, Outcome.PROMOTED]
    assert witness.changes() == witness.all_routes()
    alive = await surroundings.fleet.inspect(witness.all_routes())
    assert set(alive) == {route.id for route in routes}
    assert {report.state for report in alive.values()} == {SessionState.RUNNING}
    async with aclosing(Redis(unix_socket_path=str(bus.socket_path))) as client:
        targets = {key.decode() async for key in client.scan_iter(match="route_probe:*")}
    assert targets == {Keys().target(ReplicaId(route.id)) for route in routes}
