"""What happened, as rows: one for every accepted change, and notes where nothing changed.

Written only inside the transaction that makes the change (R-17), by `repository` and the verbs.
A change is always a row of its own, so that a health flap stays visible (R-41); a note that
repeats the newest one of its subject and category only counts up (R-19).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import Table, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ColumnElement

from controller.db.bulk import chunks, insert_rows
from controller.db.session import Write
from controller.db.tables import deployments, history, routes
from controller.model import (
    Deployment,
    DeploymentChange,
    DeploymentId,
    Note,
    RolloutId,
    Route,
    RouteChange,
    RouteId,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a deployment, or to one of its routes."""

    deployment_id: DeploymentId
    route_id: RouteId | None = None
    rollout_id: RolloutId | None = None
    category: str
    """Who did it: a handler's name, or a verb."""
    phase: str = ""
    """Where the subject stood when it happened; nowhere when it was created."""
    from_state: str = ""
    to_state: str = ""
    result: str = "success"
    error_code: str = ""
    rule: str | None = None
    """The rule of a rollout that decided it; None: none did."""
    message: str

    @property
    def subject(self) -> str:
        """Return the id of what it happened to."""
        return self.route_id or self.deployment_id


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry(Event):
    """One row of history, as it is read."""

    attempts: int
    """How often it happened in a row."""
    epoch: int | None
    """Of the controller that wrote it; None for what a person did."""
    created_at_ms: int
    updated_at_ms: int


def route_state(route: Route) -> str:
    """Return where a route stands, for people: `running`, `provisioning/pending`."""
    return _state(route.status, route.stage)


def deployment_state(deployment: Deployment | DeploymentChange) -> str:
    """Return where a deployment stands, for people: `ready`, `deploying/progressing`."""
    return _state(deployment.lifecycle, deployment.sub_step)


def _state(outer: str, inner: str | None) -> str:
    """Join the two halves of a state.

    >>> _state("running", None), _state("provisioning", "pending")
    ('running', 'provisioning/pending')
    """
    return str(outer) if inner is None else f"{outer}/{inner}"


def route_created(route: Route, rollout_id: RolloutId | None, *, category: str) -> Event:
    """Return the event of a route's creation."""
    return Event(
        deployment_id=route.deployment_id,
        route_id=route.id,
        rollout_id=rollout_id,
        category=category,
        to_state=route_state(route),
        message=route.reason,
    )


def route_changed(change: RouteChange, after: Route, *, rollout_id: RolloutId | None) -> Event:
    """Return the event of a change: the real states on both sides of every axis that moved."""
    before = change.route
    axes = [
        (route_state(before), route_state(after)),
        (f"health:{before.health}", f"health:{after.health}"),
        (f"traffic:{before.traffic}", f"traffic:{after.traffic}"),
    ]
    moved = [axis for axis in axes if axis[0] != axis[1]] or axes[:1]
    return Event(
        deployment_id=before.deployment_id,
        route_id=before.id,
        rollout_id=rollout_id,
        category=change.category,
        phase=route_state(before),
        from_state=" ".join(axis[0] for axis in moved),
        to_state=" ".join(axis[1] for axis in moved),
        error_code=change.error_code,
        message=change.message,
    )


def deployment_changed(seen: Deployment, change: DeploymentChange) -> Event:
    """Return the event of a transition; its result is the outcome of a rollout it ends (R-16)."""
    return Event(
        deployment_id=seen.id,
        rollout_id=None if seen.rollout is None else seen.rollout.id,
        category=change.category,
        phase=deployment_state(seen),
        from_state=deployment_state(seen),
        to_state=deployment_state(change),
        result="success" if change.end_rollout is None else change.end_rollout.value,
        error_code=change.error_code,
        rule=change.rule or None,
        message=change.message,
    )


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
    events = [_note_event(note, standing) for note in notes]
    newest = await _newest(write.connection, events)
    fresh: dict[Event, Event] = {}
    repeats: dict[int, dict[str, Any]] = {}
    for event in events:
        known = newest.get((event.subject, event.category))
        if known is not None and known[1] == _sameness(event):
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


def _note_event(note: Note, standing: Mapping[str, tuple[str, RolloutId | None]]) -> Event:
    state, rollout_id = standing.get(note.route_id or note.deployment_id, ("", None))
    return Event(
        deployment_id=note.deployment_id,
        route_id=note.route_id,
        rollout_id=rollout_id,
        category=note.category,
        phase=state,
        from_state=state,
        to_state=state,
        result=note.result,
        error_code=note.error_code,
        rule=note.rule or None,
        message=note.message,
    )


async def _standing(
    connection: AsyncConnection, notes: Iterable[Note]
) -> dict[str, tuple[str, RolloutId | None]]:
    """Return where each note's subject stands, and the rollout in flight around it."""
    standing: dict[str, tuple[str, RolloutId | None]] = {}
    of = deployments.c
    for ids in chunks({note.deployment_id for note in notes if note.route_id is None}):
        query = select(of.id, of.lifecycle, of.sub_step, of.rollout_id).where(of.id.in_(ids))
        for subject, lifecycle, sub_step, rollout_id in await connection.execute(query):
            standing[subject] = _state(lifecycle, sub_step), rollout_id
    for ids in chunks({note.route_id for note in notes if note.route_id is not None}):
        query = (
            select(routes.c.id, routes.c.status, routes.c.stage, of.rollout_id)
            .join(deployments, of.id == routes.c.deployment_id)
            .where(routes.c.id.in_(ids))
        )
        for subject, status, stage, rollout_id in await connection.execute(query):
            standing[subject] = _state(status, stage), rollout_id
    return standing


_SAME: Final = ("rollout_id", "phase", "from_state", "to_state", "result", "error_code", "rule")


def _sameness(event: Event) -> tuple[Any, ...]:
    return tuple(getattr(event, name) for name in _SAME)


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
                history.c.id, history.c.subject, *(history.c[name] for name in _SAME)
            ).where(history.c.id.in_(select(latest).where(table.c.id.in_(ids))))
            for row, subject, *same in await connection.execute(query):
                found[subject, category] = row, tuple(same)
    return found
