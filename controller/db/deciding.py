"""One decision on a deployment, written: its phase, its routes, its history, whole or not at all.

Used by `repository`, inside its transaction. Knows what a deployment must still be to take a
decision; what is decided is not its affair.
"""

from sqlalchemy import or_
from sqlalchemy.sql import ColumnElement

from controller.change import changes_anything, created, enters_phase
from controller.db import history
from controller.db.bulk import insert_rows
from controller.db.deployments import move_deployment
from controller.db.events import deployment_changed, route_created
from controller.db.moving import write_changes
from controller.db.rollouts import end_rollout
from controller.db.rows import Values, route_values
from controller.db.session import Write
from controller.db.tables import GONE, deployments, routes
from controller.errors import Conflict
from controller.model import Decision, Deployment, DeploymentChange, Lifecycle, Outcome


async def write_decision(write: Write, decision: Decision) -> None:
    """Write all of a decision.

    Raises:
        Conflict: if the deployment or a route is not as it was seen, or may not go there.
    """
    seen = decision.deployment
    if decision.create or decision.routes or decision.change:
        await _write_deployment(write, decision)
    lost = await write_changes(
        write, [change for change in decision.routes if changes_anything(change)]
    )
    if lost:
        raise Conflict(
            f"deployment {seen.name!r}: {len(lost)} of {len(decision.routes)} routes "
            f"changed meanwhile, among them {lost[0]}; decide again from a new snapshot"
        )
    await _write_creations(write, decision)
    if decision.change is not None:
        await _write_end(write, seen, decision.change)
    await history.write_notes(write, decision.notes)


async def _write_creations(write: Write, decision: Decision) -> None:
    if not decision.create:
        return
    made = [(created(wanted, now_ms=write.now_ms), wanted.rollout_id) for wanted in decision.create]
    rows = [route_values(route, rollout_id=rollout_id) for route, rollout_id in made]
    await insert_rows(write.connection, routes, rows)
    await history.write_events(
        write,
        [route_created(route, rollout_id, category="create") for route, rollout_id in made],
    )


async def _write_deployment(write: Write, decision: Decision) -> None:
    """Move the deployment, or only its version, when it is as seen and may go there."""
    seen, change = decision.deployment, decision.change
    if change is None:
        await move_deployment(write, seen, {}, conditions=_may(decision))
        return
    values: Values = {"lifecycle": change.lifecycle.value, "sub_step": change.sub_step}
    if change.lifecycle is not Lifecycle.DEPLOYING or change.end_rollout is not None:
        values |= {"deploying_revision_id": None, "rollout_id": None}
    if change.end_rollout is Outcome.PROMOTED:
        values["current_revision_id"] = deployments.c.deploying_revision_id
        values |= _kept(write, change)
    await move_deployment(
        write,
        seen,
        values,
        conditions=_may(decision),
        enters_phase=enters_phase(seen, change),
    )


def _kept(write: Write, change: DeploymentChange) -> Values:
    """Return the columns that say what is kept to switch back to, and until when."""
    if not change.keep_for_s:
        return {"kept_revision_id": None, "kept_until_ms": None}
    return {
        "kept_revision_id": deployments.c.current_revision_id,
        "kept_until_ms": write.now_ms + int(change.keep_for_s * 1000),
    }


def _may(decision: Decision) -> tuple[ColumnElement[bool], ...]:
    """Return what must hold for a deployment to take a decision, beyond being as seen."""
    seen, change = decision.deployment, decision.change
    of = deployments.c
    comes_back = change is not None and change.lifecycle.value not in GONE
    alive = (of.lifecycle.not_in(GONE),) if decision.create or comes_back else ()
    if change is None:
        return alive
    if change.end_rollout is not None:
        mine = None if seen.rollout is None else seen.rollout.id
        return (
            *alive,
            of.lifecycle == Lifecycle.DEPLOYING.value,
            of.deploying_revision_id.is_not(None),
            of.rollout_id == mine,
        )
    if change.lifecycle is Lifecycle.DEPLOYING:
        return (*alive, of.rollout_id.is_not(None))
    # Nobody leaves a rollout without ending it, save the repair of half a one.
    return (*alive, or_(of.rollout_id.is_(None), of.deploying_revision_id.is_(None)))


async def _write_end(write: Write, seen: Deployment, change: DeploymentChange) -> None:
    leaves = change.lifecycle is not Lifecycle.DEPLOYING or change.end_rollout is not None
    if leaves and seen.rollout is not None:
        outcome = change.end_rollout or Outcome.FAILED
        await end_rollout(write, seen.rollout.id, outcome=outcome, message=change.message)
    await history.write_events(write, [deployment_changed(seen, change)])
