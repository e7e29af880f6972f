"""Deployments, routes and what the bus says of them, with everything a test does not care about."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from math import inf
from typing import Any

from controller.model import (
    Deployment,
    DeploymentId,
    Health,
    HealthCheck,
    Lifecycle,
    Policy,
    Revision,
    RevisionId,
    RevisionSpec,
    Rollout,
    RolloutId,
    Route,
    RouteId,
    RouteStatus,
    Snapshot,
    Stage,
    SubStep,
    Traffic,
)
from controller.route.guard import BusView, Case, StatusEvidence, generation_of
from probe.wire import PARTITIONS, OutcomeKind, Reason, ReplicaHealthStatus, ReplicaId

NOW_MS = 1_000_000_000
DEMO = DeploymentId("demo-id")
ROLLOUT = RolloutId("rollout-id")
CHECK = HealthCheck(path="/health", interval_s=10, max_retries=3, initial_delay_s=60)
COVERED = dict.fromkeys(range(PARTITIONS), inf)


def route_id(number: int) -> RouteId:
    return RouteId(f"00000000-0000-4000-8000-{number:012x}")


def fresh_ids(first: int = 1_000) -> Iterator[RouteId]:
    return (route_id(number) for number in count(first))


def a_revision(
    number: int, *, health_check: HealthCheck | None = CHECK, external: bool = False
) -> Revision:
    return Revision(
        id=RevisionId(f"revision-{number}"),
        deployment_id=DEMO,
        number=number,
        spec=RevisionSpec(health_check=health_check, external=external),
        definition=None,
    )


OLD, NEW = a_revision(1), a_revision(2)


def a_rollout(policy: Policy, **given: Any) -> Rollout:  # noqa: ANN401 - any field of a rollout
    rollout = Rollout(
        id=ROLLOUT,
        deployment_id=DEMO,
        revision_id=NEW.id,
        from_revision_id=OLD.id,
        policy=policy,
        started_at_ms=NOW_MS,
        deadline_at_ms=NOW_MS + int(policy.rollout_timeout_s * 1000),
        actor="ada",
    )
    return replace(rollout, **given)


def a_deployment(**given: Any) -> Deployment:  # noqa: ANN401 - any field of a deployment
    deployment = Deployment(
        id=DEMO,
        name="demo",
        lifecycle=Lifecycle.READY,
        sub_step=None,
        replicas=3,
        desired_replicas=None,
        policy=Policy(),
        cleanup_target_statuses=frozenset({Health.UNHEALTHY}),
        current=OLD,
        deploying=None,
        rollout=None,
        version=1,
        phase_entered_at_ms=NOW_MS,
    )
    return replace(deployment, **given)


def deploying(
    target: int = 3,
    *,
    policy: Policy | None = None,
    sub_step: SubStep | None = SubStep.PROVISIONING,
    **given: Any,  # noqa: ANN401 - any field of a deployment
) -> Deployment:
    policy = Policy(surge=1, unavailable=0) if policy is None else policy
    return a_deployment(
        **{
            "replicas": target,
            "policy": policy,
            "lifecycle": Lifecycle.DEPLOYING,
            "sub_step": sub_step,
            "deploying": NEW,
            "rollout": a_rollout(policy),
        }
        | given
    )


def a_route(number: int = 1, **given: Any) -> Route:  # noqa: ANN401 - any field of a route
    """Build a route that serves: RUNNING, HEALTHY, ACTIVE, of the old revision."""
    route = Route(
        id=route_id(number),
        deployment_id=DEMO,
        revision_id=OLD.id,
        status=RouteStatus.RUNNING,
        stage=None,
        health=Health.HEALTHY,
        traffic=Traffic.ACTIVE,
        traffic_ratio=1.0,
        health_check=CHECK,
        session_id=f"session-{number}",
        host="127.0.0.1",
        port=8000,
        created_at_ms=NOW_MS - 3_600_000 + number,
        entered_at_ms=NOW_MS - 3_000_000,
        ready_since_ms=NOW_MS - 3_000_000,
        version=7,
    )
    return replace(route, **given)


def warming(number: int = 1, **given: Any) -> Route:  # noqa: ANN401 - any field of a route
    starting: dict[str, Any] = {
        "status": RouteStatus.PROVISIONING,
        "stage": Stage.WARMING_UP,
        "health": Health.NOT_CHECKED,
        "traffic": Traffic.INACTIVE,
        "traffic_ratio": 0.0,
        "entered_at_ms": NOW_MS - 30_000,
        "ready_since_ms": None,
    }
    return a_route(number, **(starting | given))


def fleet(size: int, *, bad: int = 0, first: int = 1, **given: Any) -> list[Route]:  # noqa: ANN401
    """Build `size` serving routes, the first `bad` of which are UNHEALTHY."""
    return [
        a_route(number, **({"health": Health.UNHEALTHY} if number < first + bad else {}) | given)
        for number in range(first, first + size)
    ]


def snapshot_of(
    routes: Iterable[Route], *deployments: Deployment, now_ms: int = NOW_MS
) -> Snapshot:
    known = deployments or (a_deployment(),)
    return Snapshot(
        now_ms=now_ms,
        deployments={deployment.id: deployment for deployment in known},
        routes=tuple(routes),
        failed_counts={},
    )


def passed(route: Route, *, age_s: float = 1.0, **given: Any) -> StatusEvidence:  # noqa: ANN401
    return _evidence(
        route,
        age_s,
        {
            "healthy": True,
            "outcome": OutcomeKind.PASSED,
            "reason": Reason.OK,
            "http_status": 200,
            "consecutive_successes": 5,
        }
        | given,
    )


def failed(
    route: Route,
    *,
    times: int = 3,
    age_s: float = 1.0,
    **given: Any,  # noqa: ANN401
) -> StatusEvidence:
    return _evidence(
        route,
        age_s,
        {
            "healthy": False,
            "outcome": OutcomeKind.FAILED,
            "reason": Reason.CONNECT_REFUSED,
            "consecutive_failures": times,
        }
        | given,
    )


def own_fault(route: Route, **given: Any) -> StatusEvidence:  # noqa: ANN401
    return failed(route, outcome=OutcomeKind.PROBE_ERROR, reason=Reason.LOCAL_FDS, **given)


def _evidence(route: Route, age_s: float, fields: Mapping[str, Any]) -> StatusEvidence:
    known: dict[str, Any] = {
        "replica_id": ReplicaId(route.id),
        "generation": generation_of(route),
        "seq": 9,
    }
    return StatusEvidence(status=ReplicaHealthStatus(**(known | dict(fields))), age_s=age_s)


def a_view(
    statuses: Mapping[RouteId, StatusEvidence] | None = None,
    **given: Any,  # noqa: ANN401 - any field of a view
) -> BusView:
    """Build a look at the bus with everything in order: who fails has a second witness."""
    view = BusView(
        reachable=True,
        remembers_for_s=inf,
        covered_for_s=COVERED,
        statuses=statuses or {},
        unreadable=frozenset(),
        clear_for_s=600.0,
        cases=seconded(statuses or {}),
    )
    return replace(view, **given)


def seconded(statuses: Mapping[RouteId, StatusEvidence]) -> dict[RouteId, Case]:
    """Let another prober confirm every failing status."""
    return {
        key: Case(generation=each.status.generation, since_s=0.0, first="p-1", second="p-2 agrees")
        for key, each in statuses.items()
        if each.status.outcome is OutcomeKind.FAILED
    }


def as_said(routes: Iterable[Route]) -> dict[RouteId, StatusEvidence]:
    """Return statuses that agree with the health each route has."""
    return {
        route.id: failed(route) if route.health is Health.UNHEALTHY else passed(route)
        for route in routes
    }
