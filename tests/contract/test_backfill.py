"""The health check of routes from before the column: filled in, or left alone and said (R-40)."""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest
from sqlalchemy import Select, column, insert, select, table, text

from controller.db import migrate
from controller.db.session import Database, open_database
from controller.db.tables import history
from controller.model import HealthCheck
from tests.fakes.database import rows

BEFORE = "0002"
FULL: Mapping[str, Any] = {
    "interval": 7.0,
    "path": "/v1/health/ready",
    "max_retries": 4,
    "max_wait_time": 3.5,
    "expected_status_code": 204,
    "initial_delay": 1800.0,
}
FULL_CHECK = HealthCheck(
    path="/v1/health/ready",
    interval_s=7,
    max_retries=4,
    max_wait_time_s=3.5,
    expected_status_code="204",
    initial_delay_s=1800,
)


def model(check: object, **others: object) -> dict[str, object]:
    """Build one model as it is found stored, with everything that is not asked for here."""
    service = {
        "pre_start_actions": [{"action": "write_file", "args": {"filename": "/tmp/a"}}],  # noqa: S108 - never written
        "start_command": ["vllm", "serve", "/models"],
        "shell": "/bin/bash",
        "port": 8000,
        "health_check": check,
    }
    metadata = {"author": None, "title": "a model", "created": None, "min_resource": {"cpu": "4"}}
    return {"name": "m", "model_path": "/models", "service": service, "metadata": metadata} | others


def one(**check: object) -> str:
    return json.dumps({"models": [model(check)]})


SHAPES: Mapping[str, tuple[str | None, str | None, HealthCheck | None]] = {
    # name: (definition, spec, what its routes get)
    "whole": (one(**FULL), None, FULL_CHECK),
    "defaults": (one(path="/health"), None, HealthCheck(path="/health")),
    "nulls are defaults": (
        one(path="/health", interval=None, max_retries=None, expected_status_code=None),
        None,
        HealthCheck(path="/health"),
    ),
    "path without slash": (one(path="health"), None, HealthCheck(path="/health")),
    "numbers as strings": (
        one(path="/h", interval="5", max_retries="3", expected_status_code="201"),
        None,
        HealthCheck(path="/h", interval_s=5, max_retries=3, expected_status_code="201"),
    ),
    "ranges of codes": (
        one(path="/h", expected_status_code=[200, "300-302"]),
        None,
        HealthCheck(path="/h", expected_status_code="200,300-302"),
    ),
    "unknown keys": (
        one(path="/h", grace="long", headers={"a": "b"}),
        None,
        HealthCheck(path="/h"),
    ),
    "second of several models": (
        json.dumps({"models": [model(None), model(FULL), model({"path": "/third"})]}),
        None,
        FULL_CHECK,
    ),
    "model without service": (
        json.dumps({"models": [{"name": "m", "model_path": "/", "service": None}, model(FULL)]}),
        None,
        FULL_CHECK,
    ),
    "nested in the spec": (
        None,
        json.dumps({"image": "vllm:1", "model_definition": {"models": [model(FULL)]}}),
        FULL_CHECK,
    ),
    "nested in the spec as text": (
        None,
        json.dumps({"image": "vllm:1", "definition": one(**FULL)}),
        FULL_CHECK,
    ),
    "encoded twice": (json.dumps(one(**FULL)), None, FULL_CHECK),
    "no path": (one(interval=5), None, None),
    "empty path": (one(path=""), None, None),
    "null check": (json.dumps({"models": [model(None)]}), None, None),
    "no models": (json.dumps({"models": None}), None, None),
    "no definition": (None, None, None),
}
UNREADABLE: Mapping[str, str] = {
    "malformed": '{"models": [{"service": {"health_check": ',
    "models is an object": json.dumps({"models": {"0": model(FULL)}}),
    "check is text": json.dumps({"models": [model("GET /health")]}),
    "interval is a word": one(path="/h", interval="soon"),
    "interval is true": one(path="/h", interval=True),
    "interval is out of bounds": one(path="/h", interval=86_400),
    "half a retry": one(path="/h", max_retries=2.5),
    "code is a word": one(path="/h", expected_status_code="OK"),
    "path with a line break": one(path="/h\r\nHost: elsewhere"),
    "path is a number": one(path=5),
}


@pytest.fixture
async def older(empty_url: str) -> AsyncIterator[Database]:
    """A database as it was before the backfill."""
    await migrate.upgrade(empty_url, revision=BEFORE)
    database = open_database(empty_url)
    yield database
    await database.close()


async def store(
    database: Database,
    name: str,
    *,
    definition: str | None,
    spec: str | None = None,
    check: str | None = None,
) -> None:
    """Write a deployment with one revision and two routes, all called `name`."""
    stamps = {"version": 1, "created_at_ms": 1}
    deployment = {
        "id": name,
        "name": name,
        "lifecycle": "ready",
        "replicas": 2,
        "policy": "{}",
        "cleanup_target_statuses": "[]",
        "phase_entered_at_ms": 1,
        "updated_at_ms": 1,
    }
    revision = {
        "id": name,
        "deployment_id": name,
        "number": 1,
        "created_at_ms": 1,
        "spec": spec or "{}",
        "definition": definition,
    }
    route = {
        "deployment_id": name,
        "revision_id": name,
        "status": "running",
        "health": "healthy",
        "traffic": "active",
        "traffic_ratio": 1.0,
        "entered_at_ms": 1,
        "reason": "",
        "health_check": check,
    }
    async with database.write(epoch=None) as write:
        await put(write.connection, "deployments", deployment | stamps)
        await put(write.connection, "revisions", revision)
        for number in (1, 2):
            await put(write.connection, "routes", route | stamps | {"id": f"{name} {number}"})


async def put(connection: Any, name: str, row: Mapping[str, object]) -> None:  # noqa: ANN401
    await connection.execute(insert(table(name, *map(column, row))).values(**row))


async def checks(database: Database, name: str) -> list[HealthCheck | None]:
    query: Select[Any] = select(column("health_check")).select_from(table("routes"))
    found = await rows(database, query.where(column("revision_id") == name))
    return [None if t is None else msgspec.json.decode(t, type=HealthCheck) for (t,) in found]


async def test_every_shape_gets_what_its_definition_says(older: Database, empty_url: str) -> None:
    """R-40: rows as they are found in production."""
    for name, (definition, spec, _) in SHAPES.items():
        await store(older, name, definition=definition, spec=spec)
    await migrate.upgrade(empty_url)
    found = {name: await checks(older, name) for name in SHAPES}
    assert found == {name: [check, check] for name, (_, _, check) in SHAPES.items()}


async def test_unreadable_definition_is_left_alone_and_said_once(
    older: Database, empty_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R-40"""
    for name, definition in UNREADABLE.items():
        await store(older, name, definition=definition)
    await store(older, "readable", definition=one(**FULL))
    with caplog.at_level(logging.WARNING, "fleetpulse.migration"):
        await migrate.upgrade(empty_url)
    for name in UNREADABLE:
        assert await checks(older, name) == [None, None]
    assert await checks(older, "readable") == [FULL_CHECK] * 2
    said = [each.getMessage() for each in caplog.records if each.name == "fleetpulse.migration"]
    assert sorted(line.split(":")[0] for line in said) == sorted(
        f"revision {n}" for n in UNREADABLE
    )


async def test_check_that_is_there_is_kept(older: Database, empty_url: str) -> None:
    """R-40"""
    there = msgspec.json.encode(HealthCheck(path="/mine")).decode()
    await store(older, "kept", definition=one(**FULL), check=there)
    await migrate.upgrade(empty_url)
    assert await checks(older, "kept") == [HealthCheck(path="/mine")] * 2


async def test_database_without_the_column_gets_it(older: Database, empty_url: str) -> None:
    """R-40: the column came later in the life of the schema."""
    await store(older, "whole", definition=one(**FULL))
    async with older.write(epoch=None) as write:
        await write.connection.execute(text("ALTER TABLE routes DROP COLUMN health_check"))
    await migrate.upgrade(empty_url)
    assert await checks(older, "whole") == [FULL_CHECK] * 2


async def test_backfill_may_be_repeated_and_undone(older: Database, empty_url: str) -> None:
    """R-40"""
    await store(older, "whole", definition=one(**FULL))
    await store(older, "malformed", definition="{")
    for _ in range(2):
        await migrate.upgrade(empty_url)
        assert await checks(older, "whole") == [FULL_CHECK] * 2
        assert await checks(older, "malformed") == [None, None]
        await migrate.downgrade(empty_url, revision=BEFORE)


async def test_more_routes_than_one_batch_are_all_filled(older: Database, empty_url: str) -> None:
    """R-40: batches of 500, by key."""
    await store(older, "many", definition=one(**FULL))
    await store(older, "none", definition=None)
    copied = (
        "INSERT INTO routes (id, deployment_id, revision_id, status, health, traffic,"
        " traffic_ratio, created_at_ms, entered_at_ms, version, reason)"
        " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)"
        " SELECT 'copy ' || i, CASE WHEN i % 3 = 0 THEN 'none' ELSE 'many' END,"
        " CASE WHEN i % 3 = 0 THEN 'none' ELSE 'many' END, 'running', 'healthy', 'active', 1, 1,"
        " 1, 1, '' FROM n"
    )
    async with older.write(epoch=None) as write:
        await write.connection.execute(text(copied))
    await migrate.upgrade(empty_url)
    assert await checks(older, "many") == [FULL_CHECK] * 802
    assert await checks(older, "none") == [None] * 402


async def test_history_and_evictions_survive_up_and_down_without_their_route(
    older: Database, empty_url: str
) -> None:
    await store(older, "d", definition=None)
    happened = {
        "subject": "d 1",
        "deployment_id": "d",
        "route_id": "d 1",
        "category": "test",
        "phase": "",
        "from_state": "",
        "to_state": "",
        "result": "",
        "error_code": "",
        "message": "",
        "attempts": 1,
        "created_at_ms": 1,
        "updated_at_ms": 1,
    }
    async with older.write(epoch=None) as write:
        await put(write.connection, "history", happened)
    await migrate.upgrade(empty_url)
    async with older.write(epoch=None) as write:
        await write.connection.execute(text("DELETE FROM routes WHERE id = 'd 1'"))
    query = select(history.c.subject, history.c.route_id)
    assert await rows(older, query) == [("d 1", "d 1")]
    await migrate.downgrade(empty_url, revision=BEFORE)
    assert await rows(older, query) == [("d 1", None)]
