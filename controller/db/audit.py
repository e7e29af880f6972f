"""Who asked for what, and why: one row for every verb that changed something.

Written by the verbs inside their transaction, so that no change is without its row and no row
without its change. Kept apart from the history, which tells what became of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.db.asker import Asker
from controller.db.session import Write
from controller.db.tables import audit
from controller.model import DeploymentId, RouteId


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One row, as it is read."""

    id: int
    at_ms: int
    actor: str
    verb: str
    deployment_id: DeploymentId | None
    route_id: RouteId | None
    reason: str
    detail: dict[str, object]


async def note_verb(
    write: Write,
    verb: str,
    by: Asker,
    *,
    deployment_id: DeploymentId,
    route_id: RouteId | None = None,
    detail: Mapping[str, object] | None = None,
) -> None:
    """Write who asked for a change, in the transaction that makes it."""
    row = {
        "at_ms": write.now_ms,
        "actor": by.actor,
        "verb": verb,
        "deployment_id": deployment_id,
        "route_id": route_id,
        "reason": by.reason,
        "detail": msgspec.json.encode(detail or {}).decode(),
    }
    await write.connection.execute(insert(audit), [row])


async def audit_of(connection: AsyncConnection, *, limit: int) -> tuple[AuditEntry, ...]:
    """Return the newest entries, newest first."""
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    rows = (await connection.execute(query)).mappings()
    return tuple(
        AuditEntry(**dict(row) | {"detail": msgspec.json.decode(row["detail"])}) for row in rows
    )
