"""Many rows in one round trip, each database in its own way.

Used by the writers of this room. PostgreSQL takes a whole table as arrays in one statement, and
tells which rows it hit; SQLite runs a prepared statement per row, and is asked before.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    Insert,
    String,
    Table,
    Text,
    Update,
    bindparam,
    column,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import TableValuedAlias
from sqlalchemy.types import TypeEngine

from controller.db.rows import Values, moving_values
from controller.db.tables import LIVE, TERMINAL, deployments, routes
from controller.model import RolloutId, Route, RouteId

CHUNK: Final = 5_000
"""Ids in one IN list: servers accept 32,766 parameters, and a fleet should need few queries."""

_SEEN: Final = (("seen_id", routes.c.id.type), ("seen_version", routes.c.version.type))


async def insert_rows(connection: AsyncConnection, table: Table, rows: Sequence[Values]) -> None:
    """Write new rows, which all have the same columns."""
    if not rows:
        return
    names = tuple(rows[0])
    if connection.dialect.name == "postgresql":
        await connection.execute(_insert_arrays(table, names), _arrays(names, rows))
    else:
        await connection.execute(insert(table), rows)


async def move_routes(
    connection: AsyncConnection, moves: Mapping[RouteId, tuple[int, Route]]
) -> dict[RouteId, RolloutId | None]:
    """Write routes that are still at the version seen and may still change (R-17, R-34).

    `moves` has for each id that version, and the route as it shall be. Returns those that were
    written, each with the rollout in flight around it.
    """
    if not moves:
        return {}
    # In one order for everybody, so that two writers seldom wait for each other in a ring.
    rows = [
        moving_values(after) | {"seen_id": route_id, "seen_version": version}
        for route_id, (version, after) in sorted(moves.items())
    ]
    if connection.dialect.name == "postgresql":
        names = tuple(rows[0])
        written = await connection.execute(_update_arrays(names), _arrays(names, rows))
        return {row.id: row.rollout_id for row in written}
    standing = await _standing(connection, moves)
    rows = [row for row in rows if row["seen_id"] in standing]
    if rows:
        await connection.execute(_UPDATE_ONE, rows)
    return standing


_UPDATE_ONE: Final = update(routes).where(
    routes.c.id == bindparam("seen_id"),
    routes.c.version == bindparam("seen_version"),
    *(routes.c.status != status for status in TERMINAL),  # a bulk write takes no IN list
)


async def _standing(
    connection: AsyncConnection, moves: Mapping[RouteId, tuple[int, Route]]
) -> dict[RouteId, RolloutId | None]:
    """Return those that will be hit: nobody else writes while this transaction does."""
    found: dict[RouteId, RolloutId | None] = {}
    for chunk in chunks(moves):
        query = (
            select(routes.c.id, routes.c.version, deployments.c.rollout_id)
            .join(deployments, deployments.c.id == routes.c.deployment_id)
            .where(routes.c.id.in_(chunk), routes.c.status.in_(LIVE))
        )
        found |= {
            row.id: row.rollout_id
            for row in await connection.execute(query)
            if row.version == moves[row.id][0]
        }
    return found


@cache
def _insert_arrays(table: Table, names: tuple[str, ...]) -> Insert:
    given = _given([(name, table.c[name].type) for name in names])
    return insert(table).from_select(list(names), select(*given.c))


@cache
def _update_arrays(names: tuple[str, ...]) -> Update:
    moving = [name for name in names if name in routes.c]
    given = _given([*((name, routes.c[name].type) for name in moving), *_SEEN])
    return (
        update(routes)
        .values({routes.c[name]: given.c[name] for name in moving})
        .where(
            routes.c.id == given.c.seen_id,
            routes.c.version == given.c.seen_version,
            routes.c.status.in_(LIVE),
            deployments.c.id == routes.c.deployment_id,
        )
        .returning(routes.c.id, deployments.c.rollout_id)
    )


def _given(columns: Sequence[tuple[str, TypeEngine[Any]]]) -> TableValuedAlias:
    """Return a table made of one array for each column."""
    types = [(name, _unbounded(type_)) for name, type_ in columns]
    arrays = [bindparam(f"all_{name}", type_=ARRAY(type_)) for name, type_ in types]
    return (
        func.unnest(*arrays)
        .table_valued(*(column(name, type_) for name, type_ in types), name="given")
        .render_derived()
    )


def _unbounded(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type without its length: a cast to `varchar(9)` cuts, an assignment refuses."""
    return Text() if type(type_) is String else type_


def _arrays(names: Iterable[str], rows: Sequence[Values]) -> dict[str, list[Any]]:
    return {f"all_{name}": [row[name] for row in rows] for name in names}


def chunks(ids: Iterable[str]) -> list[list[str]]:
    """Cut `ids` into lists that fit one query each.

    >>> chunks(["b", "a"])
    [['a', 'b']]
    """
    ordered = sorted(ids)
    return [ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK)]
