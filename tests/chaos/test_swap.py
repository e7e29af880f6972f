"""The blue-green swap as another process sees it: one set of replicas or the other, never both.

Reduced by default to five swaps; with FLEETPULSE_FULL=1 a hundred, on both databases.
"""

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final

import anyio
import pytest
from anyio.abc import Process

from controller.db.repository import Repository
from controller.db.session import Database
from controller.errors import Conflict
from controller.model import (
    Decision,
    Deployment,
    Health,
    Policy,
    RevisionSpec,
    Route,
    RouteId,
    RouteStatus,
    Snapshot,
    Traffic,
)
from controller.rollout import machine
from controller.service import Service
from tests.fakes.database import (  # noqa: F401 - fixtures, and what they are made of
    CHECK,
    change,
    database,
    database_template,
    epoch,
    repository,
)
from tests.fakes.databases import database_url, dialect  # noqa: F401 - the same
from tests.fakes.postgres import postgres_databases, postgres_url  # noqa: F401 - the same
from tests.fakes.rollouts import rules
from tests.fakes.verbs import apply_demo

FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
SWAPS: Final = 100 if FULL else 5
REPLICAS: Final = 3
ROOT: Final = Path(__file__).parents[2]


class Fleet:
    """A deployment that rolls out blue-green, by the real rules and the real database."""

    def __init__(self, database: Database, epoch: int) -> None:  # noqa: F811 - the fixtures
        self.service = Service(database)
        self.repository = Repository(database)
        self.epoch = epoch
        self._ids = (RouteId(f"00000000-0000-4000-8000-{n:012x}") for n in count(1))
        self._versions = count(1)

    async def deploy(self, **policy: Any) -> None:  # noqa: ANN401 - any field of a policy
        """Apply a new revision; what serves goes on serving."""
        spec = RevisionSpec(image=f"demo:{next(self._versions)}", health_check=CHECK)
        given = Policy(strategy="blue-green", **policy)
        await apply_demo(self.service, replicas=REPLICAS, policy=given, revision=spec)

    async def seen(self) -> tuple[Deployment, Snapshot]:
        snapshot = await self.repository.observe()
        (deployment,) = snapshot.deployments.values()
        return deployment, snapshot

    async def decide(self, *, later_s: float = 0.0) -> Decision:
        """Return what the rules decide, in a while."""
        deployment, snapshot = await self.seen()
        decision = machine.step(
            deployment,
            snapshot.routes,
            snapshot.now_ms + int(later_s * 1000),
            failed=0,
            fresh=self._ids,
        )
        assert decision is not None
        return decision

    async def commit(self, decision: Decision) -> None:
        await self.repository.commit(decision, epoch=self.epoch)

    async def greens(self) -> list[Route]:
        deployment, snapshot = await self.seen()
        assert deployment.deploying is not None
        return [r for r in snapshot.routes if r.revision_id == deployment.deploying.id]

    async def until_ready(self) -> None:
        """Create the greens, and let each of them become ready."""
        await self.commit(await self.decide())
        await self.turn(await self.greens(), status=RouteStatus.RUNNING, health=Health.HEALTHY)

    async def turn(self, routes: list[Route], **to: Any) -> None:  # noqa: ANN401 - any field
        changes = [change(route, **to) for route in routes]
        applied = await self.repository.apply(changes, epoch=self.epoch)
        assert applied.lost == ()

    async def swap(self) -> None:
        """Roll out a new revision from its first replica to the end of the last old one."""
        await self.deploy()
        await self.until_ready()
        promotion = await self.decide()
        assert rules(promotion) == {"promote"}
        await self.commit(promotion)
        _, snapshot = await self.seen()
        gone = [r for r in snapshot.routes if r.status is RouteStatus.TERMINATING]
        await self.turn(gone, status=RouteStatus.TERMINATED)

    async def serving(self) -> set[str]:
        _, snapshot = await self.seen()
        return {r.revision_id for r in snapshot.routes if r.traffic is Traffic.ACTIVE}


@pytest.fixture
async def fleet(database: Database, epoch: int) -> Fleet:  # noqa: F811 - the fixtures
    """A deployment whose first revision serves."""
    fleet = Fleet(database, epoch)
    await fleet.swap()
    return fleet


@asynccontextmanager
async def reader(url: str, deployment: str) -> AsyncIterator[Process]:
    """Run the process that reads; it does when this begins."""
    command = [sys.executable, "-m", "tests.fakes.swap_reader", url, deployment]
    async with await anyio.open_process(command, cwd=ROOT, stdin=PIPE, stderr=None) as process:
        try:
            assert process.stdout is not None
            with anyio.fail_after(30):
                assert await process.stdout.receive() == b"reading\n"
            yield process
        finally:
            if process.returncode is None:
                process.kill()


async def told(process: Process) -> tuple[float, list[tuple[list[str], int]]]:
    """End the reader; return its reads a second, and how often it saw which set."""
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.aclose()
    with anyio.fail_after(30):
        said = b"".join([chunk async for chunk in process.stdout])
        await process.wait()
    found = json.loads(said)
    return found["rate"], found["seen"]


@pytest.mark.timeout(600 if FULL else 90)
async def test_another_process_never_sees_both_sets_of_replicas_or_none(
    fleet: Fleet,
    database_url: str,  # noqa: F811 - the fixture
    dialect: str,  # noqa: F811 - the fixture
) -> None:
    """I4, R-13."""
    deployment, _ = await fleet.seen()
    async with reader(database_url, deployment.id) as process:
        for _ in range(SWAPS):
            await fleet.swap()
        rate, seen = await told(process)
    reads = sum(times for _, times in seen)
    torn = {tuple(who): n for who, n in seen if len(who) != REPLICAS or len(set(who)) != 1}
    print(  # noqa: T201 - the figures
        f"{dialect}: {SWAPS} swaps, {reads} reads at {rate:.0f} a second, "
        f"{len(seen)} sets seen, {sum(torn.values())} mixed or empty"
    )
    assert torn == {}
    assert reads > SWAPS
    assert len(seen) > 1, "it read while it was swapped"


async def test_a_promotion_is_refused_when_a_green_relapsed_since_it_was_decided(
    fleet: Fleet,
) -> None:
    """R-35, R-17: the versions of all greens are compared inside the transaction."""
    before = await fleet.serving()
    await fleet.deploy()
    await fleet.until_ready()
    promotion = await fleet.decide()
    assert rules(promotion) == {"promote"}
    await fleet.turn((await fleet.greens())[-1:], health=Health.UNHEALTHY)
    with pytest.raises(Conflict, match="changed meanwhile"):
        await fleet.commit(promotion)
    deployment, _ = await fleet.seen()
    assert deployment.deploying is not None
    assert await fleet.serving() == before
    assert rules(await fleet.decide()) != {"promote"}


async def test_a_relapse_during_the_delay_begins_it_anew(fleet: Fleet) -> None:
    """R-35, R-36: by the database's clock, as it stands in the row of the green."""
    await fleet.deploy(promote_delay_s=60)
    await fleet.until_ready()
    await fleet.commit(await fleet.decide())
    assert rules(await fleet.decide(later_s=59)) == {"promote_delay"}
    assert rules(await fleet.decide(later_s=60)) == {"promote"}
    first = [green.ready_since_ms for green in await fleet.greens()]
    await fleet.turn((await fleet.greens())[:1], health=Health.UNHEALTHY)
    assert rules(await fleet.decide(later_s=60)) != {"promote"}
    await anyio.sleep(0.01)  # the clock is read to the millisecond
    await fleet.turn((await fleet.greens())[:1], health=Health.HEALTHY)
    newest_ms = max(green.ready_since_ms or 0 for green in await fleet.greens())
    assert newest_ms > max(since or 0 for since in first)
    _, snapshot = await fleet.seen()
    until_old_s = (max(since or 0 for since in first) + 60_000 - snapshot.now_ms) / 1000
    assert rules(await fleet.decide(later_s=until_old_s - 0.001)) == {"promote_delay"}
    assert rules(await fleet.decide(later_s=60)) == {"promote"}
