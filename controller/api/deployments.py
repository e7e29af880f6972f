"""`/v1/deployments` and what stands below a name, save its rollouts."""

from typing import Final

from litestar import HttpMethod, Response
from litestar.params import JSONBody

from controller.api.bodies import JsonBody
from controller.api.paging import After, Entries, Limit, page_of
from controller.api.routing import Asked, Explained, GivenBy, Name, Number, changes, looks
from controller.api.views import (
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
    RouteView,
    ScaleWish,
    all_shown,
    applied_shown,
    deployment_shown,
    route_shown,
    shown,
)
from controller.definition.deployment_file import DeploymentFile
from controller.explanation import Explanation


@looks("/v1/deployments")
async def list_deployments(verbs: Asked, limit: Limit = 1000, after: After = None) -> Deployments:
    """List the deployments, oldest first."""
    items, following = page_of(await verbs.list_deployments(), limit=limit, after=after)
    return Deployments(items=all_shown(items, DeploymentView), next=following)


@looks("/v1/deployments/{name:str}", 404)
async def get_deployment(verbs: Asked, name: Name) -> Response[DeploymentView]:
    """Show a deployment; its ETag is its version."""
    return deployment_shown(await verbs.get_deployment(name))


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
    return applied_shown(applied)


@changes(
    "/v1/deployments/{name:str}",
    HttpMethod.PATCH,
    dto=JsonBody[ScaleWish],
)
async def scale_deployment(
    verbs: Asked, name: Name, data: JSONBody[ScaleWish], by: GivenBy
) -> Response[DeploymentView]:
    """Want another count of replicas, until another count is applied."""
    return deployment_shown(await verbs.scale(name, data.replicas, **by))


@changes("/v1/deployments/{name:str}/force", HttpMethod.POST, dto=JsonBody[ForceWish])
async def force_deployment(
    verbs: Asked, name: Name, data: JSONBody[ForceWish], by: GivenBy
) -> Response[DeploymentView]:
    """Let evictions here pass HOLD, breakers and second witnesses for a while; say why."""
    return deployment_shown(await verbs.force(name, for_s=data.for_s, **by))


@looks("/v1/deployments/{name:str}/explain", 404)
async def explain_deployment(explained: Explained, name: Name) -> Explanation:
    """Tell why a deployment is where it is, and what happens next."""
    return await explained(name)


@changes("/v1/deployments/{name:str}", HttpMethod.DELETE)
async def delete_deployment(verbs: Asked, name: Name, by: GivenBy) -> Response[DeploymentView]:
    """Drain every replica, then forget the deployment."""
    return deployment_shown(await verbs.delete(name, **by))


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
) -> Response[RouteView]:
    """Add a replica that somebody else runs."""
    return route_shown(await verbs.register_route(name, host=data.host, port=data.port, **by))


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
    deployment_history,
    register_route,
)
