"""When HOLD stopped the clocks that rest on evidence: one row each time, kept over leaders (S15).

Written by the handler `record_hold` through `repository`; read with each snapshot that has a
clock to stop. Nothing is written while nothing changes.
"""

from collections.abc import Mapping

from sqlalchemy import insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.db.session import Write
from controller.db.tables import holds
from controller.model import DeploymentId, HoldSpan

Held = Mapping[DeploymentId | None, str]
"""Who is held, None for the fleet, and why."""


async def open_holds(connection: AsyncConnection) -> frozenset[DeploymentId | None]:
    """Return who was held when it was last written."""
    query = select(holds.c.deployment_id).where(holds.c.to_ms.is_(None))
    return frozenset((await connection.execute(query)).scalars())


async def spans(connection: AsyncConnection, *, since_ms: int) -> tuple[HoldSpan, ...]:
    """Return every HOLD that lasts, or ended after `since_ms`."""
    of = holds.c
    query = select(of.deployment_id, of.from_ms, of.to_ms).where(
        or_(of.to_ms.is_(None), of.to_ms > since_ms)
    )
    return tuple(
        HoldSpan(deployment_id=deployment_id, from_ms=from_ms, to_ms=to_ms)
        for deployment_id, from_ms, to_ms in await connection.execute(query)
    )


async def write_holds(write: Write, held: Held) -> int:
    """Begin and end what differs from `held`; return how many rows that took."""
    known = await open_holds(write.connection)
    over, new = known - held.keys(), held.keys() - known
    for subject in over:
        ended = update(holds).where(
            holds.c.to_ms.is_(None), holds.c.deployment_id.is_not_distinct_from(subject)
        )
        await write.connection.execute(ended.values(to_ms=write.now_ms))
    rows = [
        {
            "deployment_id": subject,
            "causes": held[subject],
            "from_ms": write.now_ms,
            "epoch": write.epoch or 0,
        }
        for subject in new
    ]
    if rows:
        await write.connection.execute(insert(holds), rows)
    return len(over) + len(rows)
