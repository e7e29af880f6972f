"""`/v1/deployments` and everything below a deployment's name."""

from typing import Annotated, Final

from litestar import HttpMethod, Response
from litestar.params import JSONBody, Parameter

from controller.api.bodies import JsonBody
from controller.api.paging import After, Limit, page_of
from controller.api.routing import Asked, Explained, GivenBy, Name, RolloutIdText, changes, looks
from controller.api.views import (
    NUMBER_MAX,
    ActivateWish,
    AppliedView,
    Deployments,
    DeploymentView,
    ForceWish,
    History,
    HistoryView,
    RegisterWish,
    Revisions,
    RevisionView,
    RevisionWish,
    Rollouts,
    RolloutView,
    RouteView,
    ScaleWish,
    all_shown,
    shown,
)
from controller.db.applying import DeploymentApplied
from controller.db.asker import RolloutVerb
from controller.db.planning import STARTS_IN_MAX_S
from controller.definition.deployment_file import DeploymentFile
from controller.explanation import Explanation
from controller.model import Deployment, RolloutId
from controller.rollout.planned import RolloutPlan
from controller.rollout.progress import Progress

ENTRIES_MAX: Final = 1000
Entries = Annotated[int, Parameter(ge=1, le=ENTRIES_MAX, description="How many at most.")]

Number = Annotated[int, Parameter(ge=1, le=NUMBER_MAX, description="Of the revision.")]

StartsIn = Annotated[
    float | None,
    Parameter(
        ge=0,
        le=STARTS_IN_MAX_S,
        description="Seconds until a new replica is ready; by default the grace of its check.",
    ),
]


def _etag(deployment: Deployment) -> dict[str, str]:
    return {"etag": f'"{deployment.version}"'}


def _one(deployment: Deployment) -> Response[DeploymentView]:
    return Response(shown(deployment, DeploymentView), headers=_etag(deployment))


def _applied(applied: DeploymentApplied) -> Response[AppliedView]:
    return Response(shown(applied, AppliedView), headers=_etag(applied.deployment))


@looks("/v1/deployments")
async def list_deployments(verbs: Asked, limit: Limit = 1000, after: After = None) -> Deployments:
    """List the deployments, oldest first."""
    items, following = page_of(await verbs.list_deployments(), limit=limit, after=after)
    return Deployments(items=all_shown(items, DeploymentView), next=following)


@looks("/v1/deployments/{name:str}", 404)
async def get_deployment(verbs: Asked, name: Name) -> Response[DeploymentView]:
    """Show a deployment; its ETag is its version."""
    return _one(await verbs.get_deployment(name))


@changes(
    "/v1/deployments/{name:str}",
    HttpMethod.PUT,
    dto=JsonBody[DeploymentFile],
)
async def apply_deployment(
    verbs: Asked, name: Name, data: JSONBody[DeploymentFile], by: GivenBy
) -> Response[AppliedView]:
    """Make a deployment what the body says; repeating it changes nothing."""
    applied = await verbs.apply_deployment(
        name,
        replicas=data.replicas,
        policy=data.policy,
        cleanup_target_statuses=data.cleanup_target_statuses,
        revision=data.revision,
        auto_activate=data.auto_activate,
        **by,
    )
    return _applied(applied)


@changes(
    "/v1/deployments/{name:str}",
    HttpMethod.PATCH,
    dto=JsonBody[ScaleWish],
)
async def scale_deployment(
    verbs: Asked, name: Name, data: JSONBody[ScaleWish], by: GivenBy
) -> Response[DeploymentView]:
    """Want another count of replicas, until another count is applied."""
    return _one(await verbs.scale(name, data.replicas, **by))


@changes("/v1/deployments/{name:str}/force", HttpMethod.POST, dto=JsonBody[ForceWish])
async def force_deployment(
    verbs: Asked, name: Name, data: JSONBody[ForceWish], by: GivenBy
) -> Response[DeploymentView]:
    """Let evictions here pass HOLD, breakers and second witnesses for a while; say why."""
    return _one(await verbs.force(name, for_s=data.for_s, **by))


@looks("/v1/deployments/{name:str}/explain", 404)
async def explain_deployment(explained: Explained, name: Name) -> Explanation:
    """Tell why a deployment is where it is, and what happens next."""
    return await explained(name)


@changes("/v1/deployments/{name:str}", HttpMethod.DELETE)
async def delete_deployment(verbs: Asked, name: Name, by: GivenBy) -> Response[DeploymentView]:
    """Drain every replica, then forget the deployment."""
    return _one(await verbs.delete(name, **by))


@looks("/v1/deployments/{name:str}/revisions", 404)
async def list_revisions(verbs: Asked, name: Name) -> Revisions:
    """List the revisions of a deployment, newest first."""
    return Revisions(items=all_shown(await verbs.list_revisions(name), RevisionView))


@looks("/v1/deployments/{name:str}/revisions/{number:int}", 404)
async def get_revision(verbs: Asked, name: Name, number: Number) -> RevisionView:
    """Show a revision."""
    return shown(await verbs.get_revision(name, number), RevisionView)


@changes(
    "/v1/deployments/{name:str}/revisions",
    HttpMethod.POST,
    dto=JsonBody[RevisionWish],
    status_code=201,
)
async def add_revision(
    verbs: Asked, name: Name, data: JSONBody[RevisionWish], by: GivenBy
) -> RevisionView:
    """Add a revision under the next number; with auto_activate begin its rollout."""
    added = await verbs.add_revision(name, data.revision, auto_activate=data.auto_activate, **by)
    return shown(added, RevisionView)


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
    return _applied(await verbs.steer(name, RolloutVerb.PAUSE, **by))


@changes("/v1/deployments/{name:str}/rollout/resume", HttpMethod.POST)
async def resume_rollout(verbs: Asked, name: Name, by: GivenBy) -> Response[AppliedView]:
    """Let a paused rollout go on; the time it stood does not count."""
    return _applied(await verbs.steer(name, RolloutVerb.RESUME, **by))


@changes("/v1/deployments/{name:str}/rollout/promote", HttpMethod.POST)
async def promote_rollout(verbs: Asked, name: Name, by: GivenBy) -> Response[AppliedView]:
    """Let the new revision have all traffic now, once all of it is ready."""
    return _applied(await verbs.steer(name, RolloutVerb.PROMOTE, **by))


@changes("/v1/deployments/{name:str}/rollout/retry", HttpMethod.POST)
async def retry_rollout(verbs: Asked, name: Name, by: GivenBy) -> Response[AppliedView]:
    """Begin a new rollout to the revision that the newest one gave up."""
    return _applied(await verbs.steer(name, RolloutVerb.RETRY, **by))


@changes("/v1/deployments/{name:str}/rollout/rollback", HttpMethod.POST)
async def roll_back(verbs: Asked, name: Name, by: GivenBy) -> Response[AppliedView]:
    """Abort the rollout in flight, or return to the revision that served before."""
    return _applied(await verbs.steer(name, RolloutVerb.ROLLBACK, **by))


@changes("/v1/deployments/{name:str}/rollout/abort", HttpMethod.POST)
async def abort_rollout(verbs: Asked, name: Name, by: GivenBy) -> Response[DeploymentView]:
    """Turn the rollout in flight back; repeating it changes nothing."""
    return _one(await verbs.abort(name, **by))


@looks("/v1/deployments/{name:str}/history", 404)
async def deployment_history(verbs: Asked, name: Name, limit: Entries = 50) -> History:
    """List what happened to a deployment, newest first."""
    return History(items=all_shown(await verbs.history(name, limit=limit), HistoryView))


@changes(
    "/v1/deployments/{name:str}/routes",
    HttpMethod.POST,
    dto=JsonBody[RegisterWish],
    status_code=201,
)
async def register_route(
    verbs: Asked, name: Name, data: JSONBody[RegisterWish], by: GivenBy
) -> RouteView:
    """Add a replica that somebody else runs."""
    return shown(await verbs.register_route(name, host=data.host, port=data.port, **by), RouteView)


HANDLERS: Final = (
    list_deployments,
    get_deployment,
    apply_deployment,
    scale_deployment,
    delete_deployment,
    force_deployment,
    explain_deployment,
    list_revisions,
    get_revision,
    add_revision,
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
    deployment_history,
    register_route,
)
