"""`/v1/deployments/{name}/rollout` and what begins one: watched, planned and steered."""

from typing import Annotated, Final

from litestar import HttpMethod, Response
from litestar.params import JSONBody, Parameter

from controller.api.bodies import JsonBody
from controller.api.paging import Entries
from controller.api.routing import Asked, GivenBy, Name, Number, RolloutIdText, changes, looks
from controller.api.views import (
    ActivateWish,
    AppliedView,
    DeploymentView,
    History,
    HistoryView,
    Rollouts,
    RolloutView,
    all_shown,
    applied_shown,
    deployment_shown,
    shown,
)
from controller.db.asker import RolloutVerb
from controller.db.planning import STARTS_IN_MAX_S
from controller.model import RolloutId
from controller.rollout.planned import RolloutPlan
from controller.rollout.progress import Progress

StartsIn = Annotated[
    float | None,
    Parameter(
        ge=0,
        le=STARTS_IN_MAX_S,
        description="Seconds until a new replica is ready; by default the grace of its check.",
    ),
]


@changes(
    "/v1/deployments/{name:str}/activate",
    HttpMethod.POST,
    dto=JsonBody[ActivateWish],
)
async def activate_revision(
    verbs: Asked, name: Name, data: JSONBody[ActivateWish], by: GivenBy
) -> RolloutView:
    """Begin to make a revision current; a rollout in flight is superseded."""
    return shown(await verbs.activate(name, data.number, **by), RolloutView)


@looks("/v1/deployments/{name:str}/rollout", 404)
async def list_rollouts(verbs: Asked, name: Name, limit: Entries = 20) -> Rollouts:
    """List the newest rollouts, newest first; one in flight has no outcome."""
    return Rollouts(items=all_shown(await verbs.list_rollouts(name, limit=limit), RolloutView))


@looks("/v1/deployments/{name:str}/rollout/progress", 404)
async def rollout_progress(verbs: Asked, name: Name) -> Progress:
    """Tell how far the rollout in flight is, or how the last one ended."""
    return await verbs.rollout_progress(name)


@looks("/v1/deployments/{name:str}/rollout/{rollout_id:str}/decisions", 404)
async def rollout_decisions(
    verbs: Asked, name: Name, rollout_id: RolloutIdText, limit: Entries = 50
) -> History:
    """List what was decided in one rollout, newest first."""
    decided = await verbs.rollout_decisions(name, RolloutId(rollout_id), limit=limit)
    return History(items=all_shown(decided, HistoryView))


@looks("/v1/deployments/{name:str}/rollout/plan", 404, 409)
async def plan_rollout(
    verbs: Asked, name: Name, revision: Number, starts_in_s: StartsIn = None
) -> RolloutPlan:
    """Tell step by step what a rollout to a revision would do; change nothing."""
    return await verbs.plan_rollout(name, revision, starts_in_s=starts_in_s)


@changes("/v1/deployments/{name:str}/rollout/pause", HttpMethod.POST)
async def pause_rollout(verbs: Asked, name: Name, by: GivenBy) -> Response[AppliedView]:
    """Stop the rollout in flight where it is, and its clocks."""
    return applied_shown(await verbs.steer(name, RolloutVerb.PAUSE, **by))


@changes("/v1/deployments/{name:str}/rollout/resume", HttpMethod.POST)
async def resume_rollout(verbs: Asked, name: Name, by: GivenBy) -> Response[AppliedView]:
    """Let a paused rollout go on; the time it stood does not count."""
    return applied_shown(await verbs.steer(name, RolloutVerb.RESUME, **by))


@changes("/v1/deployments/{name:str}/rollout/promote", HttpMethod.POST)
async def promote_rollout(verbs: Asked, name: Name, by: GivenBy) -> Response[AppliedView]:
    """Let the new revision have all traffic now, once all of it is ready."""
    return applied_shown(await verbs.steer(name, RolloutVerb.PROMOTE, **by))


@changes("/v1/deployments/{name:str}/rollout/retry", HttpMethod.POST)
async def retry_rollout(verbs: Asked, name: Name, by: GivenBy) -> Response[AppliedView]:
    """Begin a new rollout to the revision that the newest one gave up."""
    return applied_shown(await verbs.steer(name, RolloutVerb.RETRY, **by))


@changes("/v1/deployments/{name:str}/rollout/rollback", HttpMethod.POST)
async def roll_back(verbs: Asked, name: Name, by: GivenBy) -> Response[AppliedView]:
    """Abort the rollout in flight, or return to the revision that served before."""
    return applied_shown(await verbs.steer(name, RolloutVerb.ROLLBACK, **by))


@changes("/v1/deployments/{name:str}/rollout/abort", HttpMethod.POST)
async def abort_rollout(verbs: Asked, name: Name, by: GivenBy) -> Response[DeploymentView]:
    """Turn the rollout in flight back; repeating it changes nothing."""
    return deployment_shown(await verbs.abort(name, **by))


HANDLERS: Final = (
    activate_revision,
    list_rollouts,
    rollout_progress,
    rollout_decisions,
    plan_rollout,
    pause_rollout,
    resume_rollout,
    promote_rollout,
    retry_rollout,
    roll_back,
    abort_rollout,
)
