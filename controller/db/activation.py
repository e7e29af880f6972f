"""What a person sets in motion on a deployment: activate, abort, destroy.

Used by `controller.service`, inside its transaction. Each moves the deployment in one UPDATE,
guarded, together with the rollout's row and the history.
"""

from typing import Final

from sqlalchemy import select

from controller.db.deployments import move_deployment
from controller.db.events import asked
from controller.db.history import write_events
from controller.db.moving import write_changes
from controller.db.rollouts import ask_abort, begin_rollout, end_rollout
from controller.db.rows import route_of, select_routes
from controller.db.session import Write
from controller.db.tables import GONE, deployments, rollouts, routes
from controller.errors import Conflict
from controller.model import (
    Deployment,
    Lifecycle,
    Outcome,
    Revision,
    Rollout,
    RouteStatus,
    SubStep,
)
from controller.rollout.handover import shares

_NOTHING_KEPT: Final = {"kept_revision_id": None, "kept_until_ms": None}


async def was_tried(write: Write, revision: Revision) -> bool:
    """Tell whether a rollout of `revision` was ever begun."""
    begun = select(rollouts.c.id).where(rollouts.c.revision_id == revision.id).limit(1)
    return (await write.connection.execute(begun)).first() is not None


async def activate(
    write: Write,
    seen: Deployment,
    revision: Revision,
    *,
    actor: str,
    category: str = "activate",
    did: str = "",
    promotes: bool = False,
) -> Rollout:
    """Begin a rollout of `revision`; one in flight ends as SUPERSEDED in the same moment.

    What was kept to switch back to is kept no longer: it is used, or leaves. With `promotes` no
    operator is asked again once the revision is ready.

    Raises:
        Conflict: if the revision is current or on its way already, or the deployment is going.
    """
    _refuse_pointless(seen, revision)
    message = did or f"{actor} activated revision {revision.number}"
    if seen.rollout is not None:
        await end_rollout(
            write,
            seen.rollout.id,
            outcome=Outcome.SUPERSEDED,
            message=f"superseded: {message}",
        )
    rollout = await begin_rollout(write, seen, revision, actor=actor, promotes=promotes)
    await _point_at(write, seen, rollout)
    await _hand_over(write, seen, revision)
    await record(
        write,
        seen,
        category=category,
        message=message,
        to_state=f"{Lifecycle.DEPLOYING}/{SubStep.PROVISIONING}",
        rollout=rollout,
    )
    return rollout


async def _point_at(write: Write, seen: Deployment, rollout: Rollout) -> None:
    await move_deployment(
        write,
        seen,
        {
            "lifecycle": Lifecycle.DEPLOYING.value,
            "sub_step": SubStep.PROVISIONING.value,
            "deploying_revision_id": rollout.revision_id,
            "rollout_id": rollout.id,
            **_NOTHING_KEPT,
        },
        conditions=(deployments.c.lifecycle.not_in(GONE),),
        enters_phase=True,
    )


async def _hand_over(write: Write, seen: Deployment, revision: Revision) -> None:
    """Take back what a superseded rollout had shared out."""
    if seen.rollout is None:
        return
    query = select_routes(
        routes.c.deployment_id == seen.id, routes.c.status == RouteStatus.RUNNING.value
    )
    locked = await write.connection.execute(query.with_for_update(of=routes))
    changes = tuple(shares(seen, revision, map(route_of, locked)))
    lost = await write_changes(write, changes)
    if lost:
        raise Conflict(f"route {lost[0]} changed meanwhile; ask again")


def _refuse_pointless(seen: Deployment, revision: Revision) -> None:
    if seen.current is not None and seen.current.id == revision.id:
        remedy = "nothing to do" if seen.rollout is None else "abort the rollout to return to it"
        raise Conflict(
            f"revision {revision.number} of deployment {seen.name!r} is current already; {remedy}"
        )
    on_its_way = seen.deploying is not None and seen.deploying.id == revision.id
    if on_its_way and seen.sub_step is not SubStep.ROLLING_BACK:
        raise Conflict(
            f"revision {revision.number} of deployment {seen.name!r} is being rolled out already; "
            "watch it with `fleetpulse rollout watch`"
        )


async def abort(
    write: Write, seen: Deployment, rollout: Rollout, *, message: str, category: str = "abort"
) -> None:
    """Turn a rollout back; with nothing to go back to, the deployment goes (R-39)."""
    if seen.current is None:
        await destroy(write, seen, category=category, message=message)
        return
    await ask_abort(write, rollout.id, message=message)
    await move_deployment(
        write,
        seen,
        {"sub_step": SubStep.ROLLING_BACK.value},
        conditions=(
            deployments.c.lifecycle == Lifecycle.DEPLOYING.value,
            deployments.c.rollout_id == rollout.id,
        ),
        enters_phase=True,
    )
    await record(
        write,
        seen,
        category=category,
        message=message,
        to_state=f"{Lifecycle.DEPLOYING}/{SubStep.ROLLING_BACK}",
    )


async def destroy(write: Write, seen: Deployment, *, category: str, message: str) -> None:
    """Let a deployment go; a rollout in flight ends as ABORTED in the same moment."""
    if seen.rollout is not None:
        await end_rollout(write, seen.rollout.id, outcome=Outcome.ABORTED, message=message)
    await move_deployment(
        write,
        seen,
        {
            "lifecycle": Lifecycle.DESTROYING.value,
            "sub_step": None,
            "deploying_revision_id": None,
            "rollout_id": None,
            **_NOTHING_KEPT,
        },
        conditions=(deployments.c.lifecycle.not_in(GONE),),
        enters_phase=True,
    )
    await record(
        write, seen, category=category, message=message, to_state=Lifecycle.DESTROYING.value
    )


async def record(
    write: Write,
    seen: Deployment,
    *,
    category: str,
    message: str,
    to_state: str | None = None,
    rollout: Rollout | None = None,
) -> None:
    """Write what a person did to a deployment; without `to_state` it stays where it stands."""
    event = asked(seen, category=category, message=message, to_state=to_state, rollout=rollout)
    await write_events(write, [event])
