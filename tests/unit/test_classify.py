"""What a status means for the health of a running route."""

import pytest

from controller.model import Health, HealthCheck, RouteStatus, Stage
from controller.route.classify import Verdict, classify, classify_all
from controller.route.guard import BusView, HoldCause, StatusEvidence
from probe.wire import Reason, ReplicaId, partition_of
from tests.fakes.nouns import (
    CHECK,
    COVERED,
    a_route,
    a_view,
    as_said,
    failed,
    fleet,
    own_fault,
    passed,
    warming,
)

HEALTHS = list(Health)
NO_HOLD: frozenset[HoldCause] = frozenset()


def verdict(
    health: Health,
    evidence: StatusEvidence | None,
    *,
    view: BusView | None = None,
    hold: frozenset[HoldCause] = NO_HOLD,
    check: HealthCheck | None = CHECK,
) -> Verdict | None:
    route = a_route(health=health, health_check=check)
    statuses = {} if evidence is None else {route.id: evidence}
    return classify(route, view or a_view(statuses), hold=hold)


def became(health: Health, evidence: StatusEvidence | None) -> Health:
    """Return the health afterwards, changed or not."""
    found = verdict(health, evidence)
    return health if found is None else found.health


@pytest.mark.parametrize("previous", HEALTHS)
def test_a_passing_probe_makes_healthy(previous: Health) -> None:
    assert became(previous, passed(a_route())) is Health.HEALTHY


@pytest.mark.parametrize("previous", HEALTHS)
@pytest.mark.parametrize("times", [1, 2])
def test_within_the_retry_budget_the_verdict_stays(previous: Health, times: int) -> None:
    """R-02: max_retries is 3; a failing probe never improves a verdict."""
    assert verdict(previous, failed(a_route(), times=times)) is None
    # The prober still calls it healthy within its own budget: the last probe failed all the same.
    assert verdict(previous, failed(a_route(), times=times, healthy=True)) is None


@pytest.mark.parametrize("previous", HEALTHS)
@pytest.mark.parametrize("times", [3, 400])
def test_failing_beyond_the_retry_budget_is_unhealthy(previous: Health, times: int) -> None:
    """R-02."""
    assert became(previous, failed(a_route(), times=times)) is Health.UNHEALTHY


@pytest.mark.parametrize("previous", HEALTHS)
def test_the_probers_own_fault_changes_nothing(previous: Health) -> None:
    """S1: though its counters are beyond every budget."""
    assert verdict(previous, own_fault(a_route(), times=99)) is None


@pytest.mark.parametrize("previous", HEALTHS)
def test_no_status_where_a_prober_looks_is_degraded(previous: Health) -> None:
    """R-05."""
    assert became(previous, None) is Health.DEGRADED


def test_never_probed_and_no_longer_probed_are_told_apart() -> None:
    """R-05."""
    never, expired = verdict(Health.NOT_CHECKED, None), verdict(Health.HEALTHY, None)
    assert never is not None
    assert expired is not None
    assert (never.error_code, expired.error_code) == ("NEVER_PROBED", "STATUS_EXPIRED")
    assert expired.message == "no fresh status for 120 s, though a prober covers its partition"


@pytest.mark.parametrize(
    "view",
    [
        a_view(reachable=False),
        a_view(remembers_for_s=1.0),
        a_view(unreadable=frozenset({a_route().id})),
        a_view(covered_for_s={}),
        a_view(covered_for_s=COVERED | {partition_of(ReplicaId(a_route().id)): 29.9}),
    ],
    ids=["bus away", "bus lost its memory", "slot unreadable", "no prober", "not this partition"],
)
@pytest.mark.parametrize("previous", HEALTHS)
def test_no_status_where_nobody_looks_changes_nothing(previous: Health, view: BusView) -> None:
    """R-05: an outage keeps the last state."""
    assert verdict(previous, None, view=view) is None


@pytest.mark.parametrize("cause", list(HoldCause))
@pytest.mark.parametrize("evidence", [None, failed(a_route())], ids=["absent", "failing"])
@pytest.mark.parametrize("previous", [Health.HEALTHY, Health.DEGRADED, Health.NOT_CHECKED])
def test_under_hold_nothing_gets_worse(
    previous: Health, evidence: StatusEvidence | None, cause: HoldCause
) -> None:
    """R-05, R-20e."""
    assert verdict(previous, evidence, hold=frozenset({cause})) is None


def test_under_hold_a_replica_that_answers_again_is_healthy_again() -> None:
    """Else a breaker, once it holds, never saw the fleet recover."""
    found = verdict(Health.UNHEALTHY, passed(a_route()), hold=frozenset({HoldCause.BREAKER}))
    assert found is not None
    assert found.health is Health.HEALTHY


@pytest.mark.parametrize("evidence", [None, passed(a_route()), failed(a_route())])
def test_without_a_health_check_a_route_is_unmanaged_not_degraded(
    evidence: StatusEvidence | None,
) -> None:
    """R-03: and such a running route is ready."""
    assert verdict(Health.NOT_CHECKED, evidence, check=None) is None
    assert a_route(health=Health.NOT_CHECKED, health_check=None).ready


@pytest.mark.parametrize(("passes", "after"), [(1, Health.UNHEALTHY), (2, Health.HEALTHY)])
def test_healthy_again_takes_the_threshold(passes: int, after: Health) -> None:
    check = HealthCheck(path="/health", healthy_threshold=2)
    evidence = passed(a_route(), consecutive_successes=passes)
    found = verdict(Health.UNHEALTHY, evidence, check=check)
    assert (found.health if found else Health.UNHEALTHY) is after


def test_a_pass_the_prober_does_not_trust_yet_changes_nothing() -> None:
    assert verdict(Health.UNHEALTHY, passed(a_route(), healthy=False)) is None


def test_a_status_of_another_generation_is_no_status() -> None:
    """R-44."""
    assert became(Health.HEALTHY, passed(a_route(), generation=1)) is Health.DEGRADED


def test_a_status_that_stands_still_is_no_status() -> None:
    """S5: whatever its time to live says."""
    assert became(Health.HEALTHY, passed(a_route(), age_s=121)) is Health.DEGRADED


def test_a_verdict_says_which_rule_fired_with_which_numbers() -> None:
    """R-55: so that the history has the reason, too."""
    evidence = failed(
        a_route(),
        times=4,
        reason=Reason.STATUS_UNEXPECTED,
        http_status=503,
        detail="loading model",
    )
    found = verdict(Health.HEALTHY, evidence)
    assert found == Verdict(
        health=Health.UNHEALTHY,
        message="4 probes failed in a row (limit max_retries 3), the last one "
        "STATUS_UNEXPECTED 503: the status code is not among the expected ones (loading model)",
        error_code="STATUS_UNEXPECTED",
    )
    again = verdict(Health.UNHEALTHY, passed(a_route()))
    assert again is not None
    assert again.message == "5 probes passed in a row (needs healthy_threshold 1); it was unhealthy"


def test_a_fleet_at_rest_changes_nothing() -> None:
    """R-41: only changes are written."""
    routes = [*fleet(20, bad=2), *fleet(3, first=50, health_check=None)]
    assert classify_all(routes, a_view(as_said(routes)), hold=NO_HOLD) == ()


def test_only_running_routes_are_classified() -> None:
    leaving = a_route(2, status=RouteStatus.TERMINATING, stage=Stage.DRAINING)
    routes = [warming(1), leaving, a_route(3)]
    statuses = {route.id: failed(route) for route in routes}
    (change,) = classify_all(routes, a_view(statuses), hold=NO_HOLD)
    assert (change.route.id, change.health) == (a_route(3).id, Health.UNHEALTHY)
    assert (change.status, change.stage, change.traffic) == (None, None, None)
