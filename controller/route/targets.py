"""Which replicas the prober shall check, and how; for sync_probe_targets.

The whole set is computed anew each time: a flushed bus, or a start-up longer than a target's time
to live, heals at the next sync (R-51).
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from controller.model import (
    Deployment,
    DeploymentId,
    HealthCheck,
    Route,
    RouteId,
    RouteStatus,
    Stage,
)
from controller.route.guard import generation_of
from probe.wire import ReplicaId, ReplicaProbeTarget

CONNECT_TIMEOUT_MAX_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A route that is not probed, and why."""

    route_id: RouteId
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What the bus shall hold (R-10)."""

    write: tuple[ReplicaProbeTarget, ...]
    skipped: tuple[Skipped, ...]
    """Routes that are to be probed by their state, but cannot be."""
    remove: tuple[ReplicaId, ...]


def diff(
    routes: Iterable[Route],
    deployments: Mapping[DeploymentId, Deployment],
    *,
    written: AbstractSet[ReplicaId],
) -> Targets:
    """Return all targets there shall be, and which of those written before are to go.

    `written` are the ids this controller wrote: a target loaded by hand is nobody's to remove.
    """
    write: list[ReplicaProbeTarget] = []
    skipped: list[Skipped] = []
    for route in routes:
        if not probed(route):
            continue
        deployment = deployments.get(route.deployment_id)
        target = "its deployment is gone" if deployment is None else target_of(route, deployment)
        if isinstance(target, str):
            skipped.append(Skipped(route_id=route.id, why=target))
        else:
            write.append(target)
    wanted = {target.replica_id for target in write}
    return Targets(
        write=tuple(write), skipped=tuple(skipped), remove=tuple(sorted(written - wanted))
    )


def probed(route: Route) -> bool:
    """Tell whether a route's state asks for probes: warming up, or running (R-01)."""
    return route.status is RouteStatus.RUNNING or route.stage is Stage.WARMING_UP


def target_of(route: Route, deployment: Deployment) -> ReplicaProbeTarget | str:
    """Return the target of one route, or why there is none."""
    check = route.health_check
    if check is None:
        return "it has no health check: unmanaged"
    if route.host is None or route.port is None:
        return "it has no address"
    return _target(route, check, host=route.host, port=route.port, name=deployment.name)


def _target(
    route: Route, check: HealthCheck, *, host: str, port: int, name: str
) -> ReplicaProbeTarget:
    return ReplicaProbeTarget(
        replica_id=ReplicaId(route.id),
        replica_host=host,
        inference_port=port,
        health_path=check.path,
        interval_s=check.interval_s,
        timeout_s=check.max_wait_time_s,
        connect_timeout_s=min(CONNECT_TIMEOUT_MAX_S, check.max_wait_time_s),
        expected_status=check.expected_status_code,
        max_retries=check.max_retries,
        healthy_threshold=check.healthy_threshold,
        deployment=name,
        generation=generation_of(route),
    )
