"""What happened, as rows: one for every accepted change, and notes where nothing changed.

Written only inside the transaction that makes the change (R-17), by `repository` and the verbs.
A change is always a row of its own, so that a health flap stays visible (R-41); a note that
repeats the newest one of its subject and category only counts up (R-19).
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Table, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ColumnElement

from controller.db.bulk import chunks, insert_rows
from controller.db.events import SAME, Event, HistoryEntry, noted, state_of
from controller.db.session import Write
from controller.db.tables import deployments, history, routes
from controller.model import DeploymentId, Note, RolloutId, RouteId


async def write_events(write: Write, events: Sequence[Event]) -> None:
    """Write one row for each event."""
    if not events:
        return
    stamps = {
        "attempts": 1,
        "epoch": write.epoch,
        "created_at_ms": write.now_ms,
        "updated_at_ms": write.now_ms,
    }
    columns = [field.name for field in fields(Event)]
    rows = [
        {name: getattr(event, name) for name in columns} | {"subject": event.subject} | stamps
        for event in events
    ]
    await insert_rows(write.connection, history, rows)


async def write_notes(write: Write, notes: Sequence[Note]) -> None:
    """Write notes; one that repeats the newest of its subject and category only counts up.

    "Repeats" includes where the subject stands and the rollout in flight, so that an older
    rollout's attempts never leak into a newer one's (R-18).
    """
    if not notes:
        return
    standing = await _standing(write.connection, notes)
    events = []
    for note in notes:
        state, rollout_id = standing.get(note.route_id or note.deployment_id, ("", None))
        events.append(noted(note, state=state, rollout_id=rollout_id))
    newest = await _newest(write.connection, events)
    fresh: dict[Event, Event] = {}
    repeats: dict[int, dict[str, Any]] = {}
    for event in events:
        known = newest.get((event.subject, event.category))
        if known is not None and known[1] == event.sameness:
            repeats[known[0]] = {"row": known[0], "message": event.message}
        else:
            fresh[event] = event
    await write_events(write, tuple(fresh))
    if repeats:
        counting = (
            update(history)
            .where(history.c.id == bindparam("row"))
            .values(attempts=history.c.attempts + 1, updated_at_ms=write.now_ms, epoch=write.epoch)
        )
        await write.connection.execute(counting, list(repeats.values()))


async def attempts_of(connection: AsyncConnection, note: Note) -> int:
    """Return how often the newest row of a note's subject and category was made in a row."""
    newest = (
        select(history.c.attempts)
        .where(
            history.c.subject == (note.route_id or note.deployment_id),
            history.c.category == note.category,
        )
        .order_by(history.c.id.desc())
        .limit(1)
    )
    return int((await connection.execute(newest)).scalar_one())


async def history_of(
    connection: AsyncConnection, subject: DeploymentId | RouteId, *, limit: int
) -> tuple[HistoryEntry, ...]:
    """Return the newest entries of one deployment (without its routes) or route, newest first."""
    return await _entries(connection, history.c.subject == subject, limit=limit)


async def rollout_history(
    connection: AsyncConnection, deployment_id: DeploymentId, rollout_id: RolloutId, *, limit: int
) -> tuple[HistoryEntry, ...]:
    """Return what was decided in one rollout, without its routes, newest first."""
    decided = (history.c.subject == deployment_id, history.c.rollout_id == rollout_id)
    return await _entries(connection, *decided, limit=limit)


async def _entries(
    connection: AsyncConnection, *conditions: ColumnElement[bool], limit: int
) -> tuple[HistoryEntry, ...]:
    columns = [history.c[field.name] for field in fields(HistoryEntry)]
    newest = select(*columns).where(*conditions).order_by(history.c.id.desc()).limit(limit)
    return tuple(HistoryEntry(**row) for row in (await connection.execute(newest)).mappings())


async def _standing(
    connection: AsyncConnection, notes: Iterable[Note]
) -> dict[str, tuple[str, RolloutId | None]]:
    """Return where each note's subject stands, and the rollout in flight around it."""
    standing: dict[str, tuple[str, RolloutId | None]] = {}
    of = deployments.c
    for ids in chunks({note.deployment_id for note in notes if note.route_id is None}):
        query = select(of.id, of.lifecycle, of.sub_step, of.rollout_id).where(of.id.in_(ids))
        for subject, lifecycle, sub_step, rollout_id in await connection.execute(query):
            standing[subject] = state_of(lifecycle, sub_step), rollout_id
    for ids in chunks({note.route_id for note in notes if note.route_id is not None}):
        query = (
            select(routes.c.id, routes.c.status, routes.c.stage, of.rollout_id)
            .join(deployments, of.id == routes.c.deployment_id)
            .where(routes.c.id.in_(ids))
        )
        for subject, status, stage, rollout_id in await connection.execute(query):
            standing[subject] = state_of(status, stage), rollout_id
    return standing


async def _newest(
    connection: AsyncConnection, events: Iterable[Event]
) -> dict[tuple[str, str], tuple[int, tuple[Any, ...]]]:
    """Return the newest row of every (subject, category), as its id and what makes it the same.

    One look into the index for each, so that nobody's long history is read from end to end.
    """
    wanted: dict[tuple[str, Table], set[str]] = {}
    for event in events:
        of = deployments if event.route_id is None else routes
        wanted.setdefault((event.category, of), set()).add(event.subject)
    found: dict[tuple[str, str], tuple[int, tuple[Any, ...]]] = {}
    for (category, table), subjects in wanted.items():
        latest = (
            select(func.max(history.c.id))
            .where(history.c.subject == table.c.id, history.c.category == category)
            .scalar_subquery()
        )
        for ids in chunks(subjects):
            query = select(
                history.c.id, history.c.subject, *(history.c[name] for name in SAME)
            ).where(history.c.id.in_(select(latest).where(table.c.id.in_(ids))))
            for row, subject, *same in await connection.execute(query):
                found[subject, category] = row, tuple(same)
    return found
