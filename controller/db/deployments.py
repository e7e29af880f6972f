"""The rows of deployments and their revisions: found, created, and moved by compare-and-set.

Used by `repository` and by the operator's verbs, inside their transaction.
"""

import uuid
from collections.abc import Sequence
from typing import Final

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ColumnElement

from controller.db.rows import (
    Values,
    deployment_of,
    encode,
    revision_of,
    select_deployments,
)
from controller.db.session import Write
from controller.db.tables import deployments, revisions
from controller.errors import Conflict, NotFound
from controller.model import (
    Deployment,
    DeploymentId,
    Lifecycle,
    Revision,
    RevisionId,
    RevisionSpec,
)
from controller.model_definition import ModelDefinition

ALIVE: Final = deployments.c.lifecycle != Lifecycle.DESTROYED.value


async def find_deployments(
    connection: AsyncConnection, *conditions: ColumnElement[bool]
) -> tuple[Deployment, ...]:
    """Return the deployments that are not destroyed, oldest first."""
    rows = (await connection.execute(select_deployments(ALIVE, *conditions))).mappings()
    return tuple(deployment_of(row) for row in rows)


async def find_to_change(write: Write, name: str) -> Deployment | None:
    """Return the living deployment called `name`, and keep others from changing it meanwhile."""
    # Locked before it is read: a row that was waited for comes as the one before left it, but what
    # is joined to it comes as it was before the wait, and a rollout just begun would be none.
    # Its key stays free: history that a leader writes names it while that one holds a route.
    known = select(deployments.c.id).where(ALIVE, deployments.c.name == name)
    locking = known.with_for_update(key_share=True)
    locked = (await write.connection.execute(locking)).scalar_one_or_none()
    if locked is None:
        return None
    (found,) = await find_deployments(write.connection, deployments.c.id == locked)
    return found


async def insert_deployment(write: Write, *, name: str, settings: Values) -> None:
    """Write a new deployment, PENDING, with what a person set on it."""
    row: Values = settings | {
        "id": str(uuid.uuid4()),
        "name": name,
        "lifecycle": Lifecycle.PENDING.value,
        "version": 1,
        "phase_entered_at_ms": write.now_ms,
        "created_at_ms": write.now_ms,
        "updated_at_ms": write.now_ms,
    }
    await write.connection.execute(insert(deployments), [row])


async def move_deployment(
    write: Write,
    seen: Deployment,
    values: Values,
    *,
    conditions: tuple[ColumnElement[bool], ...] = (),
    enters_phase: bool = False,
) -> None:
    """Write `values` when the deployment is still as seen and `conditions` hold.

    The version moves with every write, so that nothing is decided twice from one snapshot.

    Raises:
        Conflict: if it is not, or they do not.
    """
    moved = values | {"version": seen.version + 1, "updated_at_ms": write.now_ms}
    if enters_phase:
        moved["phase_entered_at_ms"] = write.now_ms
    statement = (
        update(deployments)
        .where(
            deployments.c.id == seen.id,
            deployments.c.version == seen.version,
            ALIVE,
            *conditions,
        )
        .values(moved)
    )
    if (await write.connection.execute(statement)).rowcount != 1:
        raise Conflict(
            f"deployment {seen.name!r} is not any more as it was seen at version {seen.version}, "
            "or may not go there; look again and decide anew"
        )


async def insert_revision(
    write: Write,
    deployment_id: DeploymentId,
    *,
    number: int,
    spec: RevisionSpec,
    definition: ModelDefinition | None,
) -> Revision:
    """Write an immutable revision under its number, with the definition it was made of."""
    revision = Revision(
        id=RevisionId(str(uuid.uuid4())),
        deployment_id=deployment_id,
        number=number,
        spec=spec,
        definition=definition,
    )
    row = {
        "id": revision.id,
        "deployment_id": deployment_id,
        "number": number,
        "spec": encode(spec),
        "definition": None if definition is None else encode(definition),
        "created_at_ms": write.now_ms,
    }
    await write.connection.execute(insert(revisions), [row])
    return revision


def numbered(revisions: Sequence[Revision], *, name: str, number: int) -> Revision:
    """Return the one of a deployment's revisions that has that number.

    Raises:
        NotFound: if none has.
    """
    found = next((one for one in revisions if one.number == number), None)
    if found is None:
        known = ", ".join(str(one.number) for one in reversed(revisions))
        raise NotFound(f"deployment {name!r} has no revision {number}; it has {known or 'none'}")
    return found


async def revisions_of(
    connection: AsyncConnection, deployment_id: DeploymentId
) -> tuple[Revision, ...]:
    """Return every revision of a deployment, newest first."""
    query = (
        select(revisions)
        .where(revisions.c.deployment_id == deployment_id)
        .order_by(revisions.c.number.desc())
    )
    rows = (await connection.execute(query)).mappings()
    return tuple(revision for row in rows if (revision := revision_of(row)) is not None)
