"""What the API shows, field by field: the public names, apart from the nouns they are taken from.

A noun may be changed for the sake of the rules; what stands here is changed only with a line in
the changelog. Encoded by the handlers, decoded by `controller.client` into the nouns again.
"""

from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import Response

from controller.definition.deployment_file import REPLICAS_MAX
from controller.definition.request import RevisionRequest
from controller.model import (
    Deployment,
    Health,
    HealthCheck,
    Lifecycle,
    Outcome,
    Policy,
    RevisionSpec,
    Route,
    RouteStatus,
    Stage,
    SubStep,
    Traffic,
)
from controller.model_definition import ModelDefinition, Port
from controller.service import FORCE_MAX_S, DeploymentApplied

NUMBER_MAX = 2**31 - 1
"""Of what the database numbers in 32 bits."""

_View = TypeVar("_View", bound=msgspec.Struct)


class RevisionView(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable version of a deployment."""

    id: str
    deployment_id: str
    number: int
    spec: RevisionSpec
    definition: ModelDefinition | None


class RolloutView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to make a revision current."""

    id: str
    deployment_id: str
    revision_id: str
    from_revision_id: str | None
    policy: Policy
    started_at_ms: int
    deadline_at_ms: int
    actor: str
    outcome: Outcome | None
    ended_at_ms: int | None
    paused_at_ms: int | None
    promote_asked: bool
    message: str


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """A named service: how many replicas of which revision."""

    id: str
    name: str
    lifecycle: Lifecycle
    sub_step: SubStep | None
    replicas: int
    desired_replicas: int | None
    target_count: int
    policy: Policy
    cleanup_target_statuses: frozenset[Health]
    current: RevisionView | None
    deploying: RevisionView | None
    rollout: RolloutView | None
    version: int
    phase_entered_at_ms: int
    kept: RevisionView | None
    kept_until_ms: int | None
    forced_until_ms: int | None


class RouteView(msgspec.Struct, frozen=True, kw_only=True):
    """One replica of one revision."""

    id: str
    deployment_id: str
    revision_id: str
    status: RouteStatus
    stage: Stage | None
    health: Health
    ready: bool
    active: bool
    traffic: Traffic
    traffic_ratio: float
    health_check: HealthCheck | None
    session_id: str | None
    host: str | None
    port: int | None
    created_at_ms: int
    entered_at_ms: int
    ready_since_ms: int | None
    version: int
    reason: str


class HistoryView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a deployment or to one of its routes."""

    deployment_id: str
    route_id: str | None
    rollout_id: str | None
    category: str
    phase: str
    from_state: str
    to_state: str
    result: str
    error_code: str
    rule: str | None
    message: str
    attempts: int
    epoch: int | None
    created_at_ms: int
    updated_at_ms: int


class AuditView(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked for what."""

    id: int
    at_ms: int
    actor: str
    verb: str
    deployment_id: str | None
    route_id: str | None
    reason: str
    detail: dict[str, Any]


class AppliedView(msgspec.Struct, frozen=True, kw_only=True):
    """What applying a deployment came to."""

    deployment: DeploymentView
    changes: tuple[str, ...]
    """In words; empty when everything was as wanted already."""


class Deployments(msgspec.Struct, frozen=True, kw_only=True):
    """A page of deployments, oldest first."""

    items: tuple[DeploymentView, ...]
    next: str | None
    """Give it as `after` for the next page; null on the last one."""


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """A page of routes that have not ended, oldest first."""

    items: tuple[RouteView, ...]
    next: str | None
    """Give it as `after` for the next page; null on the last one."""


class Revisions(msgspec.Struct, frozen=True, kw_only=True):
    """The revisions of a deployment, newest first."""

    items: tuple[RevisionView, ...]


class Rollouts(msgspec.Struct, frozen=True, kw_only=True):
    """The newest rollouts of a deployment, newest first."""

    items: tuple[RolloutView, ...]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The newest entries, newest first."""

    items: tuple[HistoryView, ...]


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """The newest entries of the audit log, newest first."""

    items: tuple[AuditView, ...]


class ScaleWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another count of replicas."""

    replicas: Annotated[int, msgspec.Meta(ge=0, le=REPLICAS_MAX)]


class ActivateWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another revision."""

    number: Annotated[int, msgspec.Meta(ge=1, le=NUMBER_MAX)]


class ForceWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Evictions that pass HOLD for a while."""

    for_s: Annotated[float, msgspec.Meta(ge=0, le=FORCE_MAX_S)]


class RegisterWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A replica that somebody else runs."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    port: Port


class RevisionWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A revision to add."""

    revision: RevisionRequest
    auto_activate: bool = False


def shown(noun: object, kind: type[_View]) -> _View:
    """Return a noun as the API shows it."""
    return msgspec.convert(noun, kind, from_attributes=True)


def all_shown(nouns: Iterable[object], kind: type[_View]) -> tuple[_View, ...]:
    """Return nouns as the API shows them."""
    return tuple(shown(noun, kind) for noun in nouns)


def deployment_shown(deployment: Deployment) -> Response[DeploymentView]:
    """Return a deployment as the API shows it, with its version as the ETag."""
    return Response(shown(deployment, DeploymentView), headers=_etag(deployment))


def route_shown(route: Route) -> Response[RouteView]:
    """Return a route as the API shows it, with its version as the ETag."""
    return Response(shown(route, RouteView), headers=_etag(route))


def applied_shown(applied: DeploymentApplied) -> Response[AppliedView]:
    """Return what was done to a deployment, with its version as the ETag."""
    return Response(shown(applied, AppliedView), headers=_etag(applied.deployment))


def _etag(noun: Deployment | Route) -> dict[str, str]:
    return {"etag": f'"{noun.version}"'}
