"""Between rows and nouns: the only place that knows how a noun is stored.

Used by every query of this room. Pure; typed values (policy, spec, health check) are JSON text,
and because a fleet has few different ones, each text is decoded once.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from sqlalchemy import FromClause, RowMapping, Select, and_, select
from sqlalchemy.sql import ColumnElement

from controller.db import session
from controller.db.tables import deployments, revisions, rollouts, routes
from controller.model import (
    Deployment,
    DeploymentId,
    Health,
    HealthCheck,
    Lifecycle,
    Outcome,
    Policy,
    Revision,
    RevisionId,
    RevisionSpec,
    Rollout,
    RolloutId,
    Route,
    RouteStatus,
    Stage,
    SubStep,
    Traffic,
)
from controller.model_definition import ModelDefinition
from controller.rollout.strategies import STRATEGIES

Values = dict[str, Any]
"""Columns and what is written into them."""

_serving: Final = revisions.alias("serving")
_coming: Final = revisions.alias("coming")
_before: Final = revisions.alias("before")
_CACHED: Final = 4096
_STATUS: Final[Mapping[str, RouteStatus]] = {word.value: word for word in RouteStatus}
_STAGE: Final[Mapping[str | None, Stage | None]] = {None: None} | {s.value: s for s in Stage}
_HEALTH: Final[Mapping[str, Health]] = {word.value: word for word in Health}
_TRAFFIC: Final[Mapping[str, Traffic]] = {word.value: word for word in Traffic}


def encode(value: object) -> str:
    """Return `value` as JSON text, the same text for equal values."""
    return msgspec.json.encode(value, order="deterministic").decode()


@lru_cache(maxsize=_CACHED)
def _policy(text: str) -> Policy:
    policy = msgspec.json.decode(text, type=Policy)
    if policy.strategy not in STRATEGIES:
        raise ValueError(f"there is no strategy {policy.strategy!r}")
    return policy


@lru_cache(maxsize=_CACHED)
def _spec(text: str) -> RevisionSpec:
    return msgspec.json.decode(text, type=RevisionSpec)


@lru_cache(maxsize=_CACHED)
def _definition(text: str) -> ModelDefinition | None:
    """Decode what is kept for people; what another system wrote in its own shape stops nothing."""
    try:
        return msgspec.json.decode(text, type=ModelDefinition)
    except msgspec.DecodeError:
        return None


@lru_cache(maxsize=_CACHED)
def _health_check(text: str) -> HealthCheck:
    return msgspec.json.decode(text, type=HealthCheck)


@lru_cache(maxsize=_CACHED)
def _healths(text: str) -> frozenset[Health]:
    return msgspec.json.decode(text, type=frozenset[Health])


def select_deployments(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Select deployments, oldest first, with their two revisions and the rollout in flight."""
    return (
        select(deployments, _serving, _coming, _before, rollouts)
        .join(_serving, _serving.c.id == deployments.c.current_revision_id, isouter=True)
        .join(_coming, _coming.c.id == deployments.c.deploying_revision_id, isouter=True)
        .join(
            _before,
            and_(
                _before.c.id == deployments.c.kept_revision_id,
                deployments.c.kept_until_ms > session.now_ms(),
            ),
            isouter=True,
        )
        .join(rollouts, rollouts.c.id == deployments.c.rollout_id, isouter=True)
        .where(*conditions)
        .order_by(deployments.c.created_at_ms, deployments.c.id)
    )


def deployment_of(values: RowMapping) -> Deployment:
    """Return the deployment in one row of `select_deployments`."""
    of = deployments.c
    in_flight = values[rollouts.c.id] is not None
    sub_step = values[of.sub_step]
    return Deployment(
        id=DeploymentId(values[of.id]),
        name=values[of.name],
        lifecycle=Lifecycle(values[of.lifecycle]),
        sub_step=None if sub_step is None else SubStep(sub_step),
        replicas=values[of.replicas],
        desired_replicas=values[of.desired_replicas],
        policy=_policy(values[of.policy]),
        cleanup_target_statuses=_healths(values[of.cleanup_target_statuses]),
        current=revision_of(values, _serving),
        deploying=revision_of(values, _coming),
        rollout=rollout_of(values) if in_flight else None,
        version=values[of.version],
        phase_entered_at_ms=values[of.phase_entered_at_ms],
        kept=revision_of(values, _before),
        kept_until_ms=values[of.kept_until_ms],
        forced_until_ms=values[of.forced_until_ms],
    )


def settings_values(
    replicas: int, policy: Policy, cleanup_target_statuses: Collection[Health]
) -> Values:
    """Return the columns that a deployment file sets."""
    return {
        "replicas": replicas,
        "policy": encode(policy),
        "cleanup_target_statuses": encode(sorted(cleanup_target_statuses)),
    }


def settings_of(deployment: Deployment) -> Values:
    """Return the same columns as they are now."""
    return settings_values(
        deployment.replicas, deployment.policy, deployment.cleanup_target_statuses
    )


def revision_of(values: RowMapping, table: FromClause = revisions) -> Revision | None:
    """Return the revision that `table` contributes to a row; None where it has none."""
    if values[table.c.id] is None:
        return None
    definition = values[table.c.definition]
    return Revision(
        id=RevisionId(values[table.c.id]),
        deployment_id=DeploymentId(values[table.c.deployment_id]),
        number=values[table.c.number],
        spec=_spec(values[table.c.spec]),
        definition=None if definition is None else _definition(definition),
    )


def rollout_of(values: RowMapping) -> Rollout:
    """Return the rollout in a row."""
    of = rollouts.c
    outcome = values[of.outcome]
    return Rollout(
        id=RolloutId(values[of.id]),
        deployment_id=DeploymentId(values[of.deployment_id]),
        revision_id=RevisionId(values[of.revision_id]),
        from_revision_id=values[of.from_revision_id],
        policy=_policy(values[of.policy]),
        started_at_ms=values[of.started_at_ms],
        deadline_at_ms=values[of.deadline_at_ms],
        actor=values[of.actor],
        outcome=None if outcome is None else Outcome(outcome),
        ended_at_ms=values[of.ended_at_ms],
        paused_at_ms=values[of.paused_at_ms],
        promote_asked=values[of.promote_asked_at_ms] is not None,
        message=values[of.message],
    )


def select_routes(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Select routes in order of creation."""
    return (
        select(*(column for column in routes.c if column.key != "rollout_id"))
        .where(*conditions)
        .order_by(routes.c.created_at_ms, routes.c.id)
    )


def route_of(row: Sequence[Any]) -> Route:
    """Return the route in one row of `select_routes`.

    Unpacks by position: 10,000 rows twice a second make attribute look-ups felt.
    """
    (
        route_id, deployment_id, revision_id, status, stage, health, traffic, traffic_ratio,
        health_check, session_id, host, port, created_at_ms, entered_at_ms, ready_since_ms,
        version, reason,
    ) = row  # fmt: skip
    return Route(
        id=route_id,
        deployment_id=deployment_id,
        revision_id=revision_id,
        status=_STATUS[status],
        stage=_STAGE[stage],
        health=_HEALTH[health],
        traffic=_TRAFFIC[traffic],
        traffic_ratio=traffic_ratio,
        health_check=None if health_check is None else _health_check(health_check),
        session_id=session_id,
        host=host,
        port=port,
        created_at_ms=created_at_ms,
        entered_at_ms=entered_at_ms,
        ready_since_ms=ready_since_ms,
        version=version,
        reason=reason,
    )


def route_values(route: Route, *, rollout_id: RolloutId | None) -> Values:
    """Return every column of a route that is inserted."""
    check = route.health_check
    return moving_values(route) | {
        "id": route.id,
        "deployment_id": route.deployment_id,
        "revision_id": route.revision_id,
        "rollout_id": rollout_id,
        "health_check": None if check is None else encode(check),
        "created_at_ms": route.created_at_ms,
    }


def moving_values(route: Route) -> Values:
    """Return the columns of a route that change in its life."""
    return {
        "status": route.status.value,
        "stage": None if route.stage is None else route.stage.value,
        "health": route.health.value,
        "traffic": route.traffic.value,
        "traffic_ratio": route.traffic_ratio,
        "session_id": route.session_id,
        "host": route.host,
        "port": route.port,
        "entered_at_ms": route.entered_at_ms,
        "ready_since_ms": route.ready_since_ms,
        "version": route.version,
        "reason": route.reason,
    }
