"""What becomes of a route or a deployment by what was decided: the rules, whoever decided it.

Used by the database for every write, by what imagines a fleet, and by tests that let one live.
Pure.
"""

from dataclasses import replace

from controller.model import (
    Deployment,
    DeploymentChange,
    Health,
    Lifecycle,
    NewRoute,
    Outcome,
    Route,
    RouteChange,
    RouteStatus,
    Stage,
)


def changes_anything(change: RouteChange) -> bool:
    """Tell whether the route would differ afterwards; its reason alone is no difference."""
    return applied(change, now_ms=0) is not change.route


def applied(change: RouteChange, *, now_ms: int) -> Route:
    """Return the route as it is after `change`; the same object when nothing differs.

    A change of status without a stage clears the stage (R-42).
    """
    route = change.route
    status = route.status if change.status is None else change.status
    stage = change.stage
    if stage is None and status is route.status:
        stage = route.stage
    after = replace(
        route,
        status=status,
        stage=stage,
        health=route.health if change.health is None else change.health,
        traffic=route.traffic if change.traffic is None else change.traffic,
        traffic_ratio=route.traffic_ratio if change.traffic_ratio is None else change.traffic_ratio,
        session_id=route.session_id if change.session_id is None else change.session_id,
        host=route.host if change.host is None else change.host,
        port=route.port if change.port is None else change.port,
    )
    if after == route:
        return route
    moved = (status, stage) != (route.status, route.stage)
    return replace(
        after,
        entered_at_ms=now_ms if moved else route.entered_at_ms,
        ready_since_ms=_ready_since_ms(after, now_ms=now_ms),
        version=route.version + 1,
        reason=change.message,
    )


def _ready_since_ms(after: Route, *, now_ms: int) -> int | None:
    if not after.ready:
        return None
    return now_ms if after.ready_since_ms is None else after.ready_since_ms


def created(wanted: NewRoute, *, now_ms: int) -> Route:
    """Return the route that `wanted` becomes at `now_ms`."""
    return Route(
        id=wanted.id,
        deployment_id=wanted.deployment_id,
        revision_id=wanted.revision_id,
        status=RouteStatus.PROVISIONING,
        stage=Stage.PENDING,
        health=Health.NOT_CHECKED,
        traffic=wanted.traffic,
        traffic_ratio=wanted.traffic_ratio,
        health_check=wanted.health_check,
        session_id=None,
        host=None,
        port=None,
        created_at_ms=now_ms,
        entered_at_ms=now_ms,
        ready_since_ms=None,
        version=1,
        reason=wanted.message,
    )


def moved(seen: Deployment, change: DeploymentChange, *, now_ms: int) -> Deployment:
    """Return the deployment as it is after `change`, which was decided on what is seen."""
    leaves = change.lifecycle is not Lifecycle.DEPLOYING or change.end_rollout is not None
    after = replace(
        seen,
        lifecycle=change.lifecycle,
        sub_step=change.sub_step,
        deploying=None if leaves else seen.deploying,
        rollout=None if leaves else seen.rollout,
        version=seen.version + 1,
        phase_entered_at_ms=now_ms if enters_phase(seen, change) else seen.phase_entered_at_ms,
    )
    if change.end_rollout is not Outcome.PROMOTED:
        return after
    kept_until_ms = now_ms + int(change.keep_for_s * 1000) if change.keep_for_s else None
    return replace(
        after,
        current=seen.deploying,
        kept=seen.current if change.keep_for_s else None,
        kept_until_ms=kept_until_ms,
    )


def enters_phase(seen: Deployment, change: DeploymentChange) -> bool:
    """Tell whether the clock of the phase begins anew."""
    there = (change.lifecycle, change.sub_step)
    return change.restarts_clock or there != (seen.lifecycle, seen.sub_step)
