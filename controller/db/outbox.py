"""Effects outside SQL, written in the transaction that wants them and delivered after it.

`put` is called inside a write by whoever publishes; `controller.reconcile.outbox` delivers. Only
the newest effect on a subject is kept: (epoch, version) orders them, here and at the receiver.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import Table, bindparam, delete, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.db.session import Write, now_ms
from controller.db.tables import outbox

_of: Final = outbox.c
_INSERTS: Final[Mapping[str, Callable[[Table], sqlite.Insert | postgresql.Insert]]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One row: what is to be told about one subject."""

    id: int
    kind: str
    """Which sender delivers it."""
    subject: str
    epoch: int
    version: int
    payload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What is not delivered yet."""

    count: int
    oldest_age_ms: int
    """How long its longest waiting subject has been behind; 0 with nothing to deliver."""


async def put(write: Write, *, kind: str, subject: str, version: int, payload: str) -> None:
    """Want an effect; one of a newer (epoch, version) that waits already is left in its place.

    A subject that was behind before stays behind since then, whatever replaces what it waits for.

    Raises:
        ValueError: if the write is a person's, without an epoch: receivers could not order it.
    """
    await put_all(write, kind=kind, effects={subject: (version, payload)})


async def put_all(write: Write, *, kind: str, effects: Mapping[str, tuple[int, str]]) -> None:
    """Want effects of one kind, by subject, each with its version and payload; as `put` does.

    Raises:
        ValueError: if the write is a person's.
    """
    if write.epoch is None:
        raise ValueError(f"{kind} of {[*effects][:3]}: only a leader's write has effects outside")
    if not effects:
        return
    insert = _INSERTS[write.connection.dialect.name](outbox)
    new = insert.excluded
    upsert = insert.on_conflict_do_update(
        index_elements=[_of.kind, _of.subject],
        set_={"version": new.version, "epoch": new.epoch, "payload": new.payload},
        where=tuple_(_of.epoch, _of.version) < tuple_(new.epoch, new.version),
    )
    rows = [
        {
            "kind": kind,
            "subject": subject,
            "version": version,
            "epoch": write.epoch,
            "payload": payload,
            "created_at_ms": write.now_ms,
        }
        for subject, (version, payload) in sorted(effects.items())
    ]
    await write.connection.execute(upsert, rows)


async def pending(connection: AsyncConnection, *, limit: int, after: int = 0) -> tuple[Effect, ...]:
    """Return what waits, oldest subject first; `after` an id, so that a row that fails hides none.

    At most `limit` of them.
    """
    query = (
        select(*(_of[field.name] for field in fields(Effect)))
        .where(_of.id > after)
        .order_by(_of.id)
        .limit(limit)
    )
    return tuple(Effect(**row) for row in (await connection.execute(query)).mappings())


async def backlog(connection: AsyncConnection) -> Backlog:
    """Return how much waits, and since when."""
    query = select(func.count(), func.min(_of.created_at_ms), now_ms()).select_from(outbox)
    count, oldest_ms, now = (await connection.execute(query)).one()
    return Backlog(count=count, oldest_age_ms=0 if oldest_ms is None else max(0, now - oldest_ms))


async def done(write: Write, effects: Sequence[Effect]) -> None:
    """Forget what was delivered; what replaced it meanwhile stays, and is delivered next."""
    if effects:
        # In the order of `put_all`: the two run side by side, and must not wait in a ring.
        ordered = sorted(effects, key=lambda effect: (effect.kind, effect.subject))
        rows = [{"d_id": e.id, "d_epoch": e.epoch, "d_version": e.version} for e in ordered]
        await write.connection.execute(_DELIVERED, rows)


_DELIVERED: Final = delete(outbox).where(
    _of.id == bindparam("d_id"),
    _of.epoch == bindparam("d_epoch"),
    _of.version == bindparam("d_version"),
)
