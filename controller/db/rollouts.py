"""The rows of one attempt to make a revision current: its beginning, what it lost, and its end.

Used by `repository` when a rollout ends by itself, and by the operator's verbs. Every function
works inside the transaction of its caller, which has guarded the deployment.
"""

import uuid
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.db.rows import Values, encode, rollout_of
from controller.db.session import Write
from controller.db.tables import TERMINAL, history, rollouts, routes
from controller.errors import Conflict
from controller.model import (
    Deployment,
    DeploymentId,
    Outcome,
    Revision,
    Rollout,
    RolloutId,
    RouteStatus,
)

_LOST: Final = [*TERMINAL, RouteStatus.TERMINATING.value]
"""Where a route that a rollout made no longer counts for it."""


async def begin_rollout(
    write: Write, deployment: Deployment, revision: Revision, *, actor: str, promotes: bool = False
) -> Rollout:
    """Write a new rollout with the policy as it is now; its deadline starts here.

    With `promotes` an operator has promoted it by beginning it.
    """
    timeout_ms = int(deployment.policy.rollout_timeout_s * 1000)
    rollout = Rollout(
        id=RolloutId(str(uuid.uuid4())),
        deployment_id=deployment.id,
        revision_id=revision.id,
        from_revision_id=None if deployment.current is None else deployment.current.id,
        policy=deployment.policy,
        started_at_ms=write.now_ms,
        deadline_at_ms=write.now_ms + timeout_ms,
        actor=actor,
        promote_asked=promotes,
    )
    row = {
        "id": rollout.id,
        "deployment_id": rollout.deployment_id,
        "revision_id": rollout.revision_id,
        "from_revision_id": rollout.from_revision_id,
        "policy": encode(rollout.policy),
        "started_at_ms": rollout.started_at_ms,
        "deadline_at_ms": rollout.deadline_at_ms,
        "actor": rollout.actor,
        "promote_asked_at_ms": write.now_ms if promotes else None,
        "message": rollout.message,
    }
    await write.connection.execute(insert(rollouts), [row])
    return rollout


async def end_rollout(
    write: Write, rollout_id: RolloutId, *, outcome: Outcome, message: str
) -> None:
    """Write how a rollout ended, once; an outcome asked for before (an abort) stays.

    Raises:
        Conflict: if it has ended already.
    """
    ending = (
        update(rollouts)
        .where(rollouts.c.id == rollout_id, rollouts.c.ended_at_ms.is_(None))
        .values(
            outcome=func.coalesce(rollouts.c.outcome, outcome.value),
            ended_at_ms=write.now_ms,
            message=func.coalesce(func.nullif(rollouts.c.message, ""), message),
        )
    )
    if (await write.connection.execute(ending)).rowcount != 1:
        raise Conflict(f"rollout {rollout_id} has ended already; look at the deployment again")


async def ask_abort(write: Write, rollout_id: RolloutId, *, message: str) -> None:
    """Write that a rollout in flight shall end as ABORTED, once it has rolled back."""
    values = {"outcome": Outcome.ABORTED.value, "message": message, "paused_at_ms": None}
    await change_rollout(write, rollout_id, values)


async def change_rollout(write: Write, rollout_id: RolloutId, values: Values) -> None:
    """Write to a rollout in flight.

    Raises:
        Conflict: if it has ended.
    """
    changing = (
        update(rollouts)
        .where(rollouts.c.id == rollout_id, rollouts.c.ended_at_ms.is_(None))
        .values(values)
    )
    if (await write.connection.execute(changing)).rowcount != 1:
        raise Conflict(f"rollout {rollout_id} has ended already; look at the deployment again")


async def newest_promoted(
    connection: AsyncConnection, deployment_id: DeploymentId
) -> Rollout | None:
    """Return the rollout that made the current revision current; None where none did."""
    query = (
        select(rollouts)
        .where(
            rollouts.c.deployment_id == deployment_id,
            rollouts.c.outcome == Outcome.PROMOTED.value,
        )
        .order_by(rollouts.c.ended_at_ms.desc(), rollouts.c.started_at_ms.desc())
        .limit(1)
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else rollout_of(row)


async def was_begun_by(write: Write, rollout: Rollout, *, category: str) -> bool:
    """Tell whether the history has a rollout begin by a verb other than `activate`."""
    rows = select(history.c.id).where(
        history.c.subject == rollout.deployment_id,
        history.c.category == category,
        history.c.rollout_id == rollout.id,
    )
    return (await write.connection.execute(rows.limit(1))).first() is not None


async def rollouts_of(
    connection: AsyncConnection, deployment_id: DeploymentId, *, limit: int
) -> tuple[Rollout, ...]:
    """Return the newest rollouts of one deployment, newest first."""
    newest = (
        select(rollouts)
        .where(rollouts.c.deployment_id == deployment_id)
        .order_by(rollouts.c.started_at_ms.desc(), rollouts.c.id)
        .limit(limit)
    )
    return tuple(rollout_of(row) for row in (await connection.execute(newest)).mappings())


async def lost_of(
    connection: AsyncConnection, wanted: Sequence[str] | Select[tuple[str]]
) -> dict[RolloutId, int]:
    """Return how many replicas each rollout has lost of those it made, where it lost any."""
    query = (
        select(routes.c.rollout_id, func.count())
        .where(routes.c.rollout_id.in_(wanted), routes.c.status.in_(_LOST))
        .group_by(routes.c.rollout_id)
    )
    return {RolloutId(key): count for key, count in await connection.execute(query)}
