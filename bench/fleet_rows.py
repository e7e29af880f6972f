"""A fleet at rest, written straight into a database and onto a bus: what a large one looks like.

For `bench.reconcile` alone. Every route runs and serves, its status is on the bus and a prober
covers all partitions; the deployments have the history that years leave behind.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from sqlalchemy import Table, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.db.rows import encode, route_of, select_routes
from controller.db.session import Database
from controller.db.tables import deployments, history, revisions, routes
from controller.model import Health, HealthCheck, Policy, RevisionSpec, Route
from controller.route.guard import generation_of
from probe.wire import (
    HEARTBEAT_TTL_S,
    PARTITIONS,
    Keys,
    OutcomeKind,
    ProberHeartbeat,
    Reason,
    ReplicaHealthStatus,
    ReplicaId,
)

CHECK: Final = HealthCheck(path="/health", interval_s=10.0)
_ROWS_AT_ONCE: Final = 20_000
_STATUS_TTL_S: Final = 600
_SPEC: Final = RevisionSpec(health_check=CHECK, external=True)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSize:
    """How large."""

    deployments: int
    routes_each: int
    history_rows: int

    @property
    def routes(self) -> int:
        """Return how many routes there are in all."""
        return self.deployments * self.routes_each


def _id(kind: int, number: int) -> str:
    return str(uuid.UUID(int=(kind << 96) | (4 << 76) | (8 << 60) | number))


async def write_fleet(database: Database, size: FleetSize, *, unhealthy: int) -> None:
    """Write the rows; the first `unhealthy` routes are so in the database alone."""
    async with database.write(epoch=None) as write:
        now = write.now_ms
        for table, rows in (
            (deployments, _deployments(size, now)),
            (revisions, _revisions(size, now)),
            (routes, _routes(size, now, unhealthy=unhealthy)),
            (history, _history(size, now)),
        ):
            await _insert(write.connection, table, rows)


async def _insert(connection: AsyncConnection, table: Table, rows: Iterator[Row]) -> None:
    while chunk := list(islice(rows, _ROWS_AT_ONCE)):
        await connection.execute(insert(table), chunk)


def _deployments(size: FleetSize, now_ms: int) -> Iterator[Row]:
    for number in range(size.deployments):
        yield {
            "id": _id(1, number),
            "name": f"model-{number}",
            "lifecycle": "ready",
            "replicas": size.routes_each,
            "policy": encode(Policy()),
            "cleanup_target_statuses": encode([Health.UNHEALTHY]),
            "current_revision_id": _id(2, number),
            "version": 1,
            "phase_entered_at_ms": now_ms,
            "created_at_ms": now_ms,
            "updated_at_ms": now_ms,
        }


def _revisions(size: FleetSize, now_ms: int) -> Iterator[Row]:
    for number in range(size.deployments):
        yield {
            "id": _id(2, number),
            "deployment_id": _id(1, number),
            "number": 1,
            "spec": encode(_SPEC),
            "created_at_ms": now_ms,
        }


def _routes(size: FleetSize, now_ms: int, *, unhealthy: int) -> Iterator[Row]:
    for number in range(size.routes):
        bad = number < unhealthy
        yield {
            "id": _id(3, number),
            "deployment_id": _id(1, number % size.deployments),
            "revision_id": _id(2, number % size.deployments),
            "status": "running",
            "health": (Health.UNHEALTHY if bad else Health.HEALTHY).value,
            "traffic": "active",
            "traffic_ratio": 1.0,
            "health_check": encode(CHECK),
            "session_id": f"external-{_id(3, number)}",
            "host": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            "port": 8000,
            "created_at_ms": now_ms - 3_600_000,
            "entered_at_ms": now_ms - 3_600_000,
            "ready_since_ms": None if bad else now_ms - 3_600_000,
            "version": 1,
            "reason": "as the bench wrote it",
        }


def _history(size: FleetSize, now_ms: int) -> Iterator[Row]:
    for number in range(size.history_rows):
        route = number % size.routes
        yield {
            "subject": _id(3, route),
            "deployment_id": _id(1, route % size.deployments),
            "route_id": _id(3, route),
            "category": "classify_health",
            "phase": "running",
            "from_state": "running/healthy",
            "to_state": "running/unhealthy",
            "result": "success",
            "error_code": "",
            "message": "3 probes failed in a row",
            "attempts": 1,
            "created_at_ms": now_ms - size.history_rows + number,
            "updated_at_ms": now_ms - size.history_rows + number,
        }


async def routes_of(database: Database) -> tuple[Route, ...]:
    """Return every route."""
    async with database.read() as connection:
        return tuple(map(route_of, await connection.execute(select_routes())))


class BusFigure:
    """A prober that is not there: says of every route that it passes, and looks alive."""

    def __init__(self, redis: Redis, replicas: Sequence[Route]) -> None:
        self._redis = redis
        self._keys = Keys()
        self._replicas = replicas
        self._seq = 0

    async def speak(self) -> None:
        """Write a new status for every route, and the heartbeat."""
        self._seq += 1
        beat = _heartbeat()
        await self._redis.set(
            self._keys.heartbeat(beat.instance), msgspec.json.encode(beat), ex=HEARTBEAT_TTL_S * 40
        )
        await self._redis.zadd(self._keys.probers, {beat.instance: 0})
        statuses = iter(self._replicas)
        while chunk := list(islice(statuses, 1000)):
            await self._write(chunk)

    async def _write(self, chunk: Iterable[Route]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for route in chunk:
            status = ReplicaHealthStatus(
                replica_id=ReplicaId(route.id),
                healthy=True,
                outcome=OutcomeKind.PASSED,
                reason=Reason.OK,
                http_status=200,
                consecutive_successes=self._seq + 10,
                prober="bench",
                generation=generation_of(route),
                seq=self._seq,
            )
            name = self._keys.status(status.replica_id)
            pipeline.set(name, msgspec.json.encode(status), ex=_STATUS_TTL_S)
        await pipeline.execute()


def _heartbeat() -> ProberHeartbeat:
    return ProberHeartbeat(
        instance="bench",
        partitions=tuple(range(PARTITIONS)),
        targets=0,
        probes_per_second=0.0,
        loop_lag_ms=0.0,
        version="bench",
        started_at=0.0,
        at=0.0,
    )
