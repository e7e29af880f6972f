"""When a replica that is warming up may serve, and when it is given up; for check_warming_up.

`initial_delay_s` is a grace period, not a delay: probing starts at once, and the first success
promotes at once. Its clock is the database's, and runs only while somebody looked (S15).
"""

from collections.abc import Set as AbstractSet

from controller.model import (
    Deployment,
    Health,
    HealthCheck,
    Route,
    RouteChange,
    RouteStatus,
    Traffic,
)
from controller.route.classify import describe, passes
from controller.route.guard import BusView, HoldCause, StatusEvidence, blind_to, evidence_of
from controller.route.leave import leave
from probe.wire import OutcomeKind

CATEGORY = "check_warming_up"


def decide(
    route: Route,
    deployment: Deployment,
    view: BusView,
    *,
    now_ms: int,
    hold: AbstractSet[HoldCause],
    still_ms: int = 0,
) -> RouteChange | None:
    """Return the promotion or the end of one route in WARMING_UP; None: it goes on.

    `now_ms` must have been read after `view` (R-04); `still_ms` is for how long HOLD has stopped
    the clock of this stay, also under an earlier leader (S15).
    """
    check = route.health_check
    if check is None:
        return _promote(route, deployment, message="running, and has no health check to wait for")
    warming_ms = now_ms - route.entered_at_ms
    evidence = evidence_of(route, view)
    # Durations only: the age is monotonic, the stay is the database's; no instants are compared.
    if evidence is not None and evidence.age_s * 1000 <= warming_ms:
        if passes(evidence.status, check):
            return _promote(
                route,
                deployment,
                message=f"first passing probe {warming_ms / 1000:.1f} s after it got its address "
                f"(grace initial_delay_s {check.initial_delay_s:g})",
            )
        if evidence.status.outcome is not OutcomeKind.FAILED:
            return None
    if hold or blind_to(route, view):
        return None
    return _expire(route, check, evidence, observed_s=observed_s(warming_ms, still_ms, view))


def observed_s(warming_ms: int, still_ms: int, view: BusView) -> float:
    """Return how much of a stay in WARMING_UP counts: a new leader, and a HOLD, begin it anew."""
    return min((warming_ms - still_ms) / 1000, view.clear_for_s)


def _promote(route: Route, deployment: Deployment, *, message: str) -> RouteChange:
    traffic = traffic_when_ready(route, deployment)
    return RouteChange(
        route=route,
        category=CATEGORY,
        message=message,
        status=RouteStatus.RUNNING,
        health=None if route.health_check is None else Health.HEALTHY,
        traffic=traffic,
        traffic_ratio=1.0 if traffic is Traffic.ACTIVE else 0.0,
    )


def traffic_when_ready(route: Route, deployment: Deployment) -> Traffic:
    """Return what a route shall get once it can serve: what its rollout's strategy wants (R-33).

    A new replica carries its share from its creation on; one that is kept out has none, also when
    its rollout is over and another revision serves.
    """
    serves = deployment.current is not None and deployment.current.id == route.revision_id
    return Traffic.ACTIVE if serves or route.traffic_ratio else Traffic.INACTIVE


def _expire(
    route: Route, check: HealthCheck, evidence: StatusEvidence | None, *, observed_s: float
) -> RouteChange | None:
    if observed_s <= check.initial_delay_s:
        return None
    if evidence is None:
        last = "it was never probed, though a prober covers its partition"
    else:
        last = f"the last one failed with {describe(evidence.status)}"
    return leave(
        route,
        category=CATEGORY,
        message=f"no passing probe in {observed_s:.0f} s of warming up "
        f"(limit initial_delay_s {check.initial_delay_s:g}); {last}",
        error_code="WARM_UP_EXPIRED",
    )
