"""What a person does to a rollout: pause, resume, promote, abort, retry, and going back.

Used by `rollout_verbs`, inside its transaction. Each returns what it did, in words; empty where it
was so already, and nothing is written. What may not be is refused with the remedy.
"""

from functools import partial
from typing import Final

from controller.cycles import still_ms
from controller.db import activation, holds
from controller.db.asker import Asker, RolloutVerb
from controller.db.deployments import move_deployment, revisions_of
from controller.db.rollouts import (
    change_rollout,
    newest_promoted,
    rollouts_of,
    was_begun_by,
)
from controller.db.rows import Values, route_of, select_routes
from controller.db.session import Write
from controller.db.tables import LIVE, deployments, routes
from controller.errors import Conflict
from controller.model import Deployment, Lifecycle, Outcome, Revision, Rollout, SubStep
from controller.rollout.counting import tally
from controller.rollout.resume import resumed
from controller.rollout.strategies import strategy_of

_FAILED: Final = (Outcome.FAILED, Outcome.ABORTED, Outcome.EXPIRED, Outcome.ROLLED_BACK)


async def pause(write: Write, seen: Deployment, by: Asker) -> str:
    """Stop a rollout where it is, and its clocks with it.

    Raises:
        Conflict: if there is none to pause, or it is going back.
    """
    rollout, revision = _in_flight(seen, "pause")
    if seen.sub_step is SubStep.ROLLING_BACK:
        raise Conflict(
            f"deployment {seen.name!r} is rolling back, which has to end; wait for it with "
            f"`fleetpulse rollout watch {seen.name}`"
        )
    if rollout.paused_at_ms is not None:
        return ""
    did = f"paused the rollout to revision {revision.number}"
    await _change(write, seen, rollout, {"paused_at_ms": write.now_ms})
    await activation.record(write, seen, category="pause", message=by.says(did))
    return did


async def resume(write: Write, seen: Deployment, by: Asker) -> str:
    """Let a paused rollout go on, with the time for it and for its phase that it had.

    Raises:
        Conflict: if there is none.
    """
    rollout, revision = _in_flight(seen, "resume")
    if rollout.paused_at_ms is None:
        return ""
    stood_ms = max(0, write.now_ms - rollout.paused_at_ms)
    did = f"resumed the rollout to revision {revision.number} after {stood_ms / 1000:.0f} s"
    spans = await holds.spans(write.connection, since_ms=rollout.started_at_ms)
    clocks = resumed(seen, rollout, write.now_ms, still=partial(still_ms, spans, seen.id))
    await _change(
        write,
        seen,
        rollout,
        {"paused_at_ms": None, "deadline_at_ms": clocks.deadline_at_ms},
        {"phase_entered_at_ms": clocks.phase_entered_at_ms},
    )
    await activation.record(write, seen, category="resume", message=by.says(did))
    return did


async def promote(write: Write, seen: Deployment, by: Asker) -> str:
    """Say that a rollout may be promoted; its rules do it once more only when all is ready.

    Raises:
        Conflict: if there is nothing to promote, or not all of it is ready.
    """
    if seen.rollout is None and await _was_promoted_by_hand(write, seen):
        return ""
    rollout, revision = _in_flight(seen, "promote")
    if rollout.promote_asked and seen.sub_step is not SubStep.ROLLING_BACK:
        return ""
    await _refuse_promotion(write, seen, rollout, revision)
    did = f"promoted revision {revision.number}"
    await _change(write, seen, rollout, {"promote_asked_at_ms": write.now_ms})
    await activation.record(write, seen, category="promote", message=by.says(did))
    return did


async def _was_promoted_by_hand(write: Write, seen: Deployment) -> bool:
    newest = next(iter(await rollouts_of(write.connection, seen.id, limit=1)), None)
    return newest is not None and newest.outcome is Outcome.PROMOTED and newest.promote_asked


async def _refuse_promotion(
    write: Write, seen: Deployment, rollout: Rollout, revision: Revision
) -> None:
    watch = f"`fleetpulse rollout watch {seen.name}`"
    if seen.sub_step is SubStep.ROLLING_BACK:
        raise Conflict(
            f"deployment {seen.name!r} is rolling back: there is nothing to promote; begin anew "
            f"with `fleetpulse rollout retry {seen.name}`"
        )
    if SubStep.AWAITING_PROMOTION not in strategy_of(rollout.policy).phases:
        raise Conflict(
            f"a {rollout.policy.strategy} update has nothing to promote: its replicas serve as "
            f"they become ready; follow it with {watch}"
        )
    if rollout.paused_at_ms is not None:
        raise Conflict(
            f"the rollout of deployment {seen.name!r} is paused; let it go on first, with "
            f"`fleetpulse rollout resume {seen.name}`"
        )
    query = select_routes(routes.c.deployment_id == seen.id, routes.c.status.in_(LIVE))
    counted = tally(
        tuple(map(route_of, await write.connection.execute(query))),
        revision.id,
        now_ms=write.now_ms,
        min_ready_s=rollout.policy.min_ready_s,
    )
    if counted.ready_wanted < seen.target_count:
        raise Conflict(
            f"{counted.ready_wanted} of {seen.target_count} replicas of revision "
            f"{revision.number} are ready; promote it when all are, see {watch}"
        )


async def abort(write: Write, seen: Deployment, by: Asker) -> str:
    """Turn a rollout back.

    Raises:
        Conflict: if there is none, and the newest was not aborted.
    """
    if seen.rollout is None:
        newest = await rollouts_of(write.connection, seen.id, limit=1)
        if not newest or newest[0].outcome is not Outcome.ABORTED:
            raise Conflict(f"deployment {seen.name!r} has no rollout in flight to abort")
        return ""
    if seen.sub_step is SubStep.ROLLING_BACK:
        return ""
    await activation.abort(write, seen, seen.rollout, message=by.says("aborted it"))
    return "aborted it"


async def retry(write: Write, seen: Deployment, by: Asker) -> str:
    """Begin anew what the newest rollout did not bring about.

    Raises:
        Conflict: if the newest is in flight, was promoted, or never was.
    """
    newest = seen.rollout or next(iter(await rollouts_of(write.connection, seen.id, limit=1)), None)
    if newest is None:
        raise Conflict(
            f"deployment {seen.name!r} has had no rollout to retry; begin one with "
            f"`fleetpulse rollout start {seen.name} NUMBER`"
        )
    revision = await _revision(write, seen, newest.revision_id)
    turned_back = seen.sub_step is SubStep.ROLLING_BACK
    if not turned_back and newest.outcome not in _FAILED:
        if await was_begun_by(write, newest, category=RolloutVerb.RETRY):
            return ""
        what = "was promoted" if newest.outcome is Outcome.PROMOTED else "is in flight"
        raise Conflict(
            f"the rollout of deployment {seen.name!r} to revision {revision.number} {what}; "
            "only one that failed, expired or was aborted can be retried"
        )
    did = f"retried revision {revision.number}"
    await activation.activate(
        write, seen, revision, actor=by.actor, category=RolloutVerb.RETRY, did=by.says(did)
    )
    return did


async def roll_back(write: Write, seen: Deployment, by: Asker) -> str:
    """Go back: abort the rollout in flight; at rest begin one to the revision that served before.

    Raises:
        Conflict: if no revision served before.
    """
    if seen.rollout is not None:
        going_back = seen.sub_step is SubStep.ROLLING_BACK
        if going_back or await was_begun_by(write, seen.rollout, category=RolloutVerb.ROLLBACK):
            return ""
        did = "rolled back the rollout in flight"
        await activation.abort(
            write, seen, seen.rollout, category=RolloutVerb.ROLLBACK, message=by.says(did)
        )
        return did
    last = await newest_promoted(write.connection, seen.id)
    if last is not None and await was_begun_by(write, last, category=RolloutVerb.ROLLBACK):
        return ""
    before = seen.kept.id if seen.kept else last.from_revision_id if last else None
    if before is None or seen.lifecycle is not Lifecycle.READY:
        raise Conflict(
            f"deployment {seen.name!r} has no revision that served before to go back to; choose "
            f"one of `fleetpulse revision list {seen.name}` and start its rollout"
        )
    revision = await _revision(write, seen, before)
    did = f"rolled back to revision {revision.number}"
    await activation.activate(
        write,
        seen,
        revision,
        actor=by.actor,
        category=RolloutVerb.ROLLBACK,
        did=by.says(did),
        promotes=True,
    )
    return did


def _in_flight(seen: Deployment, verb: str) -> tuple[Rollout, Revision]:
    if seen.rollout is None or seen.deploying is None:
        raise Conflict(
            f"deployment {seen.name!r} has no rollout in flight to {verb}; begin one with "
            f"`fleetpulse rollout start {seen.name} NUMBER`"
        )
    return seen.rollout, seen.deploying


async def _revision(write: Write, seen: Deployment, wanted: str) -> Revision:
    known = await revisions_of(write.connection, seen.id)
    return next(revision for revision in known if revision.id == wanted)


async def _change(
    write: Write, seen: Deployment, rollout: Rollout, values: Values, moved: Values | None = None
) -> None:
    """Write to the rollout's row; the deployment's version moves with it."""
    await change_rollout(write, rollout.id, values)
    await move_deployment(
        write,
        seen,
        moved or {},
        conditions=(
            deployments.c.lifecycle == Lifecycle.DEPLOYING.value,
            deployments.c.rollout_id == rollout.id,
        ),
    )
