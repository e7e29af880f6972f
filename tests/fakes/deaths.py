"""Lives of a controller that is killed at one of its commits, and another that takes over.

For tests that look at what is left when a life is cut short anywhere: each life has a database of
its own, and shares the bus and the fleet with those before it.
"""

import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis
from sqlalchemy import select

from controller.db import tables
from controller.db.session import Database
from controller.embedded import EmbeddedValkey
from controller.model import RouteId
from controller.provision.fleet.client import FleetClient
from controller.provision.fleet.process import running_fleet
from controller.provision.port import SessionState
from tests.fakes.controller import ControllerProcess
from tests.fakes.database import copy_of
from tests.fakes.postgres import Databases

ENDLESS: Final = 200
"""More commits than a life has."""


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
    dialect: str,
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


async def left_outside(scene: Scene, database: Database, prefix: str) -> tuple[int, int]:
    """Return how many sessions run that nobody wants, and how many targets are still probed."""
    async with database.read() as connection:
        ids = (await connection.execute(select(tables.routes.c.id))).scalars().all()
    sessions = await scene.fleet.inspect([RouteId(one) for one in ids])
    running = [one for one in sessions.values() if one.state is SessionState.RUNNING]
    async with aclosing(Redis(unix_socket_path=str(scene.bus.socket_path))) as client:
        targets = [key async for key in client.scan_iter(match=f"{prefix}route_probe:*")]
    return len(running), len(targets)


def every_point() -> Iterator[tuple[int, str]]:
    """Yield both sides of every commit, until a life has no more of them."""
    for point in range(1, ENDLESS):
        yield from ((point, "before"), (point, "after"))
