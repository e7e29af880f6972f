"""Many rows at once: few statements, and a cost that does not grow with what is remembered."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, func, select, text

from controller.db.prune import Pruner
from controller.db.repository import Repository
from controller.db.session import Database, open_database
from controller.db.tables import history
from controller.model import Decision, Deployment, Health
from tests.fakes.database import change, new_routes, rows, running_routes, waiting

ROWS_BEFORE = 20_000
"""Of history: more than a planner takes for small."""


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Note what is executed."""
    seen: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    engine = database._server.engine.sync_engine
    event.listen(engine, "after_cursor_execute", note)
    yield seen
    event.remove(engine, "after_cursor_execute", note)


async def test_a_thousand_changes_take_as_many_statements_as_one(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    seen = await running_routes(repository, deployment, 1_000, epoch=epoch)
    counts = []
    for number, health in ((1, Health.UNHEALTHY), (1_000, Health.DEGRADED)):
        changes = [
            change(route, health=health) for route in (await repository.observe()).routes[:number]
        ]
        with statements(database) as executed:
            applied = await repository.apply(changes, epoch=epoch)
        assert applied.applied == number
        counts.append(len(executed))
    assert counts[0] == counts[1] <= 6
    found = await rows(database, select(func.count()).where(history.c.category == "test"))
    assert found == [(1_001,)]
    assert len(seen) == 1_000


async def test_a_thousand_creations_are_written_in_order(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    wanted = new_routes(deployment, 1_000)
    with statements(database) as executed:
        await repository.commit(Decision(deployment=deployment, create=wanted), epoch=epoch)
    assert len(executed) <= 8
    found = await rows(
        database,
        select(history.c.route_id).where(history.c.category == "create").order_by(history.c.id),
    )
    assert found == [(each.id,) for each in wanted]


async def _remember(database: Database, deployment: Deployment, *, events: int) -> None:
    """Fill history as years would."""
    filling = text(
        "INSERT INTO history (subject, deployment_id, category, phase, from_state, to_state,"
        " result, error_code, message, attempts, created_at_ms, updated_at_ms)"
        " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :events)"
        " SELECT CASE WHEN i % 2 = 0 THEN :id ELSE 'route ' || i END, :id, 'category ' || (i % 9),"
        " '', '', '', '', '', '', 1, i, i FROM n"
    )
    async with database.write(epoch=None) as write:
        await write.connection.execute(filling, {"events": events, "id": deployment.id})


async def _tick(url: str, deployment: Deployment, *, epoch: int) -> list[tuple[str, Any]]:
    """Do with the database what a busy tick does; return what was executed."""
    database = open_database(url)
    executed: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, *rest: Any) -> None:  # noqa: ANN401
        executed.append((statement, rest[0]))

    event.listen(database._server.engine.sync_engine, "after_cursor_execute", note)
    repository = Repository(database)
    for health in (Health.UNHEALTHY, Health.HEALTHY):
        seen = (await repository.observe()).routes
        changes = [change(route, health=health) for route in seen]
        await repository.apply(changes, [waiting(deployment)], epoch=epoch)
    await repository.stamp()
    await repository.history_of(deployment.id)
    pruner = Pruner(database, history_keep_days=3650, routes_keep_days=3650)
    await pruner.run(now_ms=1, epoch=epoch)
    await database.close()
    return executed


async def _scans(database: Database) -> object:
    """Return how often PostgreSQL read the whole of history."""
    query = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'history'"
    async with database.read() as connection:
        return (await connection.execute(text(query))).scalar_one()


async def test_no_tick_reads_history_from_end_to_end(
    database: Database, deployment: Deployment, epoch: int, database_url: str, dialect: str
) -> None:
    """What a tick costs does not grow with what happened before."""
    repository = Repository(database)
    await running_routes(repository, deployment, 50, epoch=epoch)
    await _remember(database, deployment, events=ROWS_BEFORE)
    if dialect == "postgresql":
        async with database.migrate() as connection:
            await connection.execute(text("ANALYZE history"))
        before = await _scans(database)
        await _tick(database_url, deployment, epoch=epoch)
        assert await _scans(database) == before
        return
    for statement, parameters in await _tick(database_url, deployment, epoch=epoch):
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            one = parameters[0] if isinstance(parameters, list) else parameters
            async with database.read() as connection:
                plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", one)
                steps = [str(row[-1]) for row in plan]
            assert not [step for step in steps if step.startswith("SCAN history")], statement


@pytest.mark.parametrize("number", [1, 500])
async def test_a_note_finds_the_newest_of_its_kind_whatever_came_before(
    database: Database, repository: Repository, deployment: Deployment, epoch: int, number: int
) -> None:
    """R-19"""
    await _remember(database, deployment, events=number)
    for _ in range(3):
        await repository.apply([], [waiting(deployment)], epoch=epoch)
    (newest, *_) = await repository.history_of(deployment.id, limit=1)
    assert (newest.category, newest.attempts) == ("deploying", 3)
