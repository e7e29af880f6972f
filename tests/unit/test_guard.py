"""What may be believed, and when nothing irreversible may happen."""

from dataclasses import replace

import pytest

from controller.model import Health, HealthCheck, Route, RouteId
from controller.route.guard import (
    BusView,
    HoldCause,
    StatusEvidence,
    blind_to,
    coverage_percent,
    deployment_breaker,
    evidence_of,
    fleet_breaker,
    generation_of,
    hold,
    recent,
    too_fast,
)
from probe.wire import ReplicaId, partition_of
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


def held(routes: list[Route], view: BusView | None = None, newly: int = 0) -> frozenset[HoldCause]:
    view = view or a_view(as_said(routes))
    return hold(routes, view, coverage=coverage_percent(routes, view), newly_unhealthy=newly)


def test_a_fleet_in_order_holds_nothing() -> None:
    assert held(fleet(20)) == frozenset()


def test_an_empty_fleet_holds_nothing() -> None:
    assert held([]) == frozenset()


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        ({"reachable": False}, HoldCause.BUS_UNREACHABLE),
        ({"remembers_for_s": 1.0}, HoldCause.BUS_AMNESIA),
        ({"covered_for_s": {}}, HoldCause.NO_PROBER),
        ({"statuses": {}}, HoldCause.COVERAGE),
    ],
)
def test_ignorance_is_not_failure(broken: dict[str, object], cause: HoldCause) -> None:
    """R-05, S3, S4, S6, S8: four different things, each with its own name."""
    routes = fleet(20)
    view = replace(a_view(as_said(routes)), **broken)  # type: ignore[arg-type] # any field
    assert held(routes, view) == {cause}


@pytest.mark.parametrize(("unseen", "holds"), [(2, False), (3, True)])
def test_nine_in_ten_running_routes_must_have_recent_evidence(unseen: int, *, holds: bool) -> None:
    """S8."""
    routes = fleet(20)
    statuses = as_said(routes[unseen:])
    assert (HoldCause.COVERAGE in held(routes, a_view(statuses))) is holds


@pytest.mark.parametrize(("age_s", "holds"), [(30.0, False), (30.1, True)])
def test_evidence_is_recent_for_three_intervals(age_s: float, *, holds: bool) -> None:
    """S8: the routes' interval is 10 s."""
    routes = fleet(20)
    statuses = {route.id: passed(route, age_s=age_s) for route in routes}
    assert (HoldCause.COVERAGE in held(routes, a_view(statuses))) is holds


def test_evidence_of_fast_probes_may_age_a_period_of_the_controller() -> None:
    routes = fleet(20, health_check=replace_interval(0.5))
    statuses = {route.id: passed(route, age_s=4.9) for route in routes}
    assert held(routes, a_view(statuses)) == frozenset()


def replace_interval(interval_s: float) -> object:
    return type(CHECK)(path=CHECK.path, interval_s=interval_s)


def test_a_probers_own_fault_is_no_evidence() -> None:
    """S1."""
    routes = fleet(20)
    statuses = {route.id: own_fault(route) for route in routes}
    assert HoldCause.COVERAGE in held(routes, a_view(statuses))


def test_routes_that_warm_up_or_have_no_check_need_no_evidence() -> None:
    """R-03."""
    unmanaged = fleet(5, health_check=None, health=Health.NOT_CHECKED)
    assert held([*unmanaged, warming(90)], a_view()) == frozenset()


@pytest.mark.parametrize(
    ("size", "bad", "opens"),
    [
        (1, 1, False),
        (2, 1, False),
        (2, 2, True),
        (3, 1, False),
        (3, 2, True),
        (10, 2, False),
        (10, 3, True),
        (500, 149, False),
        (500, 150, True),
    ],
)
def test_a_third_of_the_fleet_gone_at_once_is_not_believed(
    size: int, bad: int, *, opens: bool
) -> None:
    """S9: and one replica alone is no pattern, or a fleet of three never lost a dead one."""
    assert fleet_breaker(fleet(size, bad=bad)) is opens
    assert (HoldCause.BREAKER in held(fleet(size, bad=bad))) is opens


@pytest.mark.parametrize(
    ("size", "bad", "opens"),
    [(3, 3, False), (4, 1, False), (4, 2, True), (5, 2, False), (5, 3, True)],
)
def test_half_of_a_deployment_of_four_is_not_believed(size: int, bad: int, *, opens: bool) -> None:
    """S9."""
    assert deployment_breaker(fleet(size, bad=bad)) is opens


@pytest.mark.parametrize(
    ("newly", "size", "holds"), [(5, 20, False), (6, 20, True), (25, 500, False), (26, 500, True)]
)
def test_replicas_do_not_die_of_themselves_that_fast(newly: int, size: int, *, holds: bool) -> None:
    """S10."""
    assert too_fast(newly, fleet=size) is holds
    assert (HoldCause.VELOCITY in held(fleet(size), newly=newly)) is holds


def test_what_became_unhealthy_is_forgotten_after_a_minute() -> None:
    """S10."""
    known = recent((), newly=3, now_ms=0)
    assert len(recent(known, newly=2, now_ms=60_000)) == 5
    assert len(recent(known, newly=2, now_ms=60_001)) == 2


@pytest.mark.parametrize("moved", [{"host": "127.0.0.2"}, {"port": 8001}, {"session_id": "other"}])
def test_a_status_of_another_address_or_session_is_not_this_routes(moved: dict[str, str]) -> None:
    """R-44: host and port are used again by others."""
    route = a_route()
    other = replace(route, **moved)  # type: ignore[arg-type] # any field
    assert generation_of(other) != generation_of(route)
    view = a_view({route.id: passed(other)})
    assert evidence_of(route, view) is None


@pytest.mark.parametrize(
    ("interval_s", "age_s", "believed"),
    [(10, 120.0, True), (10, 120.1, False), (100, 300.0, True), (100, 300.1, False)],
)
def test_a_status_whose_seq_stands_still_is_stale_whatever_its_time_to_live(
    interval_s: float, age_s: float, *, believed: bool
) -> None:
    """S5."""
    route = a_route(health_check=replace_interval(interval_s))
    view = a_view({route.id: passed(route, age_s=age_s)})
    assert (evidence_of(route, view) is not None) is believed


def test_absence_says_nothing_where_nobody_looks() -> None:
    """R-05."""
    route = a_route()
    own = partition_of(ReplicaId(route.id))
    assert not blind_to(route, a_view())
    assert blind_to(route, a_view(reachable=False))
    assert blind_to(route, a_view(remembers_for_s=1.0))
    assert blind_to(route, a_view(unreadable=frozenset({route.id})))
    assert blind_to(route, a_view(covered_for_s={p: 99.0 for p in COVERED if p != own}))
    assert blind_to(route, a_view(covered_for_s=COVERED | {own: 29.9}))
    assert not blind_to(route, a_view(covered_for_s=COVERED | {own: 30.0}))


def test_a_slow_interval_gives_a_prober_that_came_back_two_of_them() -> None:
    slow = a_route(health_check=HealthCheck(path="/health", interval_s=60.0))
    assert blind_to(slow, a_view(remembers_for_s=119.0))
    assert not blind_to(slow, a_view(remembers_for_s=120.0))


def test_a_failing_status_is_evidence_too() -> None:
    route = a_route()
    statuses: dict[RouteId, StatusEvidence] = {route.id: failed(route)}
    assert evidence_of(route, a_view(statuses)) == statuses[route.id]
