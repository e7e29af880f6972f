"""A database that goes away again and again while there is work, and comes back.

Reduced by default; with FLEETPULSE_FULL=1 every 5 to 40 s for five minutes, on each database.
"""

import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from controller.db.session import open_database
from controller.embedded import EmbeddedValkey
from controller.service import Service
from tests.fakes.busy import BARE, RESTLESS, keep_busy, settle, simulated_fleet
from tests.fakes.controller import ControllerProcess
from tests.fakes.database import copy_of, database_template  # noqa: F401 - a fixture
from tests.fakes.databases import dialect  # noqa: F401 - the same
from tests.fakes.ledger import Ledger
from tests.fakes.postgres import Databases, a_postgres
from tests.fakes.prober import until
from tests.fakes.verbs import apply_demo

FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
FOR_S: Final = 300.0 if FULL else 0.0
"""How long outages begin; at least two of them do."""
WORKS_S: Final = (5.0, 40.0) if FULL else (0.5, 1.0)
AWAY_S: Final = (0.5, 12.0) if FULL else (0.3, 2.5)
LEASE_S: Final = 5.0 if FULL else 1.5
"""Shorter than some of the outages: the lease runs out, and is taken up again."""
TICK_WITHIN_S: Final = 15.0

Away = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def outage(
    dialect: str,  # noqa: F811 - the fixture
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Iterator[tuple[str, Away]]:
    """A database of the test's own, and how it is taken away for the length of a block."""
    if dialect == "sqlite":
        template: Path = request.getfixturevalue("database_template")
        url = copy_of(template, tmp_path)
        yield url, lambda: locked(Path(url.removeprefix("sqlite:///")))
        return
    with a_postgres() as server:
        databases = Databases(server.url)
        name = databases.create(migrated=True)
        signs = iter([signal.SIGINT, signal.SIGQUIT] * 1000)  # in order, and as a crash

        @contextmanager
        def stopped() -> Iterator[None]:
            server.stop(next(signs))
            yield
            server.start()

        yield databases.at(name), stopped


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep a file locked as a process does that does not let go."""
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            held.set()
            over.wait()
            connection.execute("ROLLBACK")

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        yield
    finally:
        over.set()
        holder.join()


async def ticks_again(controller: ControllerProcess) -> float:
    """Return how long it took until a handler came to its end."""
    began = time.monotonic()
    seen = await controller.metric("reconcile_seconds_count", handler="check_replicas")

    async def ticked() -> bool:
        now = await controller.metric("reconcile_seconds_count", handler="check_replicas")
        return now > seen

    await until(ticked, within_s=TICK_WITHIN_S)
    return time.monotonic() - began


@pytest.mark.timeout(600 if FULL else 90)
async def test_a_database_that_comes_and_goes_loses_no_transition_and_tells_none_twice(
    outage: tuple[str, Away], bus: EmbeddedValkey, tmp_path: Path
) -> None:
    """I7, I8, I11: and the process is the same at the end, in the same epoch."""
    url, away = outage
    chance = random.Random(3)  # noqa: S311 - when and how long, not a secret
    database, gaps = open_database(url), list[float]()
    service, ledger = Service(database), Ledger(database)
    await ledger.install()
    await apply_demo(service, revision=BARE)
    async with simulated_fleet() as fleet:
        settings: dict[str, Any] = {
            **RESTLESS,
            **fleet,
            "database_url": url,
            "redis_url": bus.url,
            "lease_s": LEASE_S,
        }
        async with ControllerProcess.running(tmp_path / "log", **settings) as controller:
            await until(controller.leads)
            until_s = time.monotonic() + FOR_S
            async with anyio.create_task_group() as group:
                group.start_soon(keep_busy, service, chance)
                while len(gaps) < 2 or time.monotonic() < until_s:
                    await anyio.sleep(chance.uniform(*WORKS_S))
                    with away():
                        await anyio.sleep(chance.uniform(*AWAY_S))
                    gaps.append(await ticks_again(controller))
                group.cancel_scope.cancel()
            await settle(service)
            assert await controller.metric("evictions_total") == 0
            assert await controller.violations() == {}
            assert await controller.end() == 0
    print(f"{len(gaps)} outages, longest gap {max(gaps):.1f} s")  # noqa: T201 - figures
    assert await ledger.rows() > 0
    assert await ledger.miscounted() == {}
    assert await ledger.stale() == []
    assert await ledger.epochs() == [1]
    await database.close()
