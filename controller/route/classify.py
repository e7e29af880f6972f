"""What a status means for the health of a RUNNING route; called by classify_health.

A failing or missing probe never improves a verdict, and ignorance never worsens one.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from controller.model import DeploymentId, Health, HealthCheck, Route, RouteChange, RouteStatus
from controller.route.guard import BusView, HoldCause, StatusEvidence, blind_to, evidence_of
from probe.wire import REASONS, OutcomeKind, ReplicaHealthStatus, status_ttl_s

CATEGORY = "classify_health"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A new health, and why."""

    health: Health
    message: str
    error_code: str = ""


def classify_all(
    routes: Sequence[Route],
    view: BusView,
    *,
    hold: AbstractSet[HoldCause],
    forced: AbstractSet[DeploymentId] = frozenset(),
) -> tuple[RouteChange, ...]:
    """Return a change for each RUNNING route whose health is another now; at rest none.

    HOLD does not reach the deployments an operator `forced` (S21).
    """
    nothing: frozenset[HoldCause] = frozenset()
    return tuple(
        RouteChange(
            route=route,
            category=CATEGORY,
            message=verdict.message,
            error_code=verdict.error_code,
            health=verdict.health,
        )
        for route in routes
        if route.status is RouteStatus.RUNNING
        and (
            verdict := classify(
                route, view, hold=nothing if route.deployment_id in forced else hold
            )
        )
        is not None
    )


def classify(route: Route, view: BusView, *, hold: AbstractSet[HoldCause]) -> Verdict | None:
    """Return the new health of one RUNNING route; None: it stays.

    Under HOLD nothing becomes worse; a fresh passing probe still makes a route HEALTHY, for else
    a breaker, once closed, could never see the fleet recover.
    """
    check = route.health_check
    if check is None:
        return None
    evidence = evidence_of(route, view)
    verdict = _absent(route, check, view) if evidence is None else _found(route, check, evidence)
    if verdict is None or verdict.health is route.health:
        return None
    if hold and verdict.health is not Health.HEALTHY:
        return None
    return verdict


def _absent(route: Route, check: HealthCheck, view: BusView) -> Verdict | None:
    if blind_to(route, view):
        return None
    limit_s = status_ttl_s(check.interval_s)
    if route.health is Health.NOT_CHECKED:
        why = "never probed, though a prober covers its partition"
        return Verdict(health=Health.DEGRADED, message=why, error_code="NEVER_PROBED")
    why = f"no fresh status for {limit_s} s, though a prober covers its partition"
    return Verdict(health=Health.DEGRADED, message=why, error_code="STATUS_EXPIRED")


def _found(route: Route, check: HealthCheck, evidence: StatusEvidence) -> Verdict | None:
    status = evidence.status
    match status.outcome:
        case OutcomeKind.PROBE_ERROR:
            return None
        case OutcomeKind.PASSED:
            if not passes(status, check):
                return None
            return Verdict(health=Health.HEALTHY, message=_passing(route, check, status))
        case OutcomeKind.FAILED:
            if status.consecutive_failures < check.max_retries:
                return None
            return Verdict(
                health=Health.UNHEALTHY,
                message=f"{status.consecutive_failures} probes failed in a row "
                f"(limit max_retries {check.max_retries}), the last one {describe(status)}",
                error_code=status.reason,
            )


def passes(status: ReplicaHealthStatus, check: HealthCheck) -> bool:
    """Tell whether the last probe passed, and enough of them in a row to believe it."""
    return (
        status.healthy
        and status.outcome is OutcomeKind.PASSED
        and status.consecutive_successes >= check.healthy_threshold
    )


def describe(status: ReplicaHealthStatus) -> str:
    """Return the reason of the last probe as a person reads it, with its code and detail."""
    http = f" {status.http_status}" if status.http_status else ""
    detail = f" ({status.detail})" if status.detail else ""
    return f"{status.reason}{http}: {REASONS[status.reason].sentence}{detail}"


def _passing(route: Route, check: HealthCheck, status: ReplicaHealthStatus) -> str:
    return (
        f"{status.consecutive_successes} probes passed in a row (needs healthy_threshold "
        f"{check.healthy_threshold}); it was {route.health}"
    )
