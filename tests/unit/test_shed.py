"""Who fails gets no traffic, quickly and reversibly, down to half of a deployment."""

from collections.abc import Sequence

import pytest

from controller.change import applied
from controller.model import Health, Route, RouteChange, RouteId, RouteStatus, Traffic
from controller.route.classify import classify_all
from controller.route.guard import StatusEvidence
from controller.route.shed import floor_of, is_shed, with_traffic
from tests.fakes.nouns import NOW_MS, a_route, a_view, as_said, failed, fleet, passed, warming


def decide(
    routes: Sequence[Route], statuses: dict[RouteId, StatusEvidence] | None = None
) -> dict[RouteId, RouteChange]:
    view = a_view(as_said(routes) if statuses is None else statuses)
    changes = classify_all(routes, view, hold=frozenset())
    return {c.route.id: c for c in with_traffic(changes, routes, routes, view)}


def run(
    routes: Sequence[Route], statuses: dict[RouteId, StatusEvidence] | None = None
) -> list[Route]:
    """Return the routes after one run."""
    changes = decide(routes, statuses)
    return [applied(changes[r.id], now_ms=NOW_MS) if r.id in changes else r for r in routes]


def active(routes: Sequence[Route]) -> int:
    return sum(route.traffic is Traffic.ACTIVE for route in routes)


def test_a_fleet_in_order_changes_nothing() -> None:
    """I10"""
    assert decide(fleet(9)) == {}


def test_a_route_that_becomes_unhealthy_loses_its_traffic_in_the_same_write() -> None:
    """S12"""
    routes = fleet(3)
    statuses = as_said(routes) | {routes[0].id: failed(routes[0])}
    (change,) = decide(routes, statuses).values()
    assert (change.health, change.traffic) == (Health.UNHEALTHY, Traffic.INACTIVE)
    assert (change.status, change.traffic_ratio) == (None, None)
    (after, *_) = run(routes, statuses)
    assert is_shed(after)
    assert after.status is RouteStatus.RUNNING, "nothing else is lost"


def test_and_gets_it_back_with_its_health() -> None:
    """S12: reversible."""
    routes = fleet(3)
    gone = run(routes, as_said(routes) | {routes[0].id: failed(routes[0])})
    back = run(gone, {route.id: passed(route) for route in routes})
    assert [(r.health, r.traffic, r.traffic_ratio) for r in back] == [
        (Health.HEALTHY, Traffic.ACTIVE, 1.0)
    ] * 3


def test_what_a_rollout_keeps_out_of_traffic_stays_out() -> None:
    """R-33: a green is INACTIVE with ratio 0, and this rule neither set that nor ends it."""
    green = a_route(9, traffic=Traffic.INACTIVE, traffic_ratio=0.0, health=Health.UNHEALTHY)
    assert not is_shed(green)
    routes = [*fleet(3), green]
    statuses = {route.id: passed(route) for route in routes}
    (change,) = decide(routes, statuses).values()
    assert (change.health, change.traffic) == (Health.HEALTHY, None)


@pytest.mark.parametrize(("size", "left"), [(1, 1), (2, 1), (3, 2), (4, 2), (9, 5)])
def test_half_of_a_deployment_keeps_its_traffic_whatever_is_said(size: int, left: int) -> None:
    """S12"""
    assert floor_of(size) == left
    assert active(run(fleet(size, bad=size))) == left


def test_when_others_leave_some_get_their_traffic_back() -> None:
    routes = run(fleet(4, bad=2))
    assert active(routes) == 2
    fewer = routes[:3]
    assert active(run(fewer)) == floor_of(3)


@pytest.mark.parametrize("health", [Health.DEGRADED, Health.NOT_CHECKED])
def test_ignorance_takes_nobodys_traffic(health: Health) -> None:
    """S2, R-07"""
    routes = fleet(4, health=health)
    assert active(run(routes, {})) == 4


def test_what_the_record_says_must_still_be_what_is_seen() -> None:
    routes = fleet(4, bad=1)
    assert active(run(routes, as_said(routes[1:]))) == 4


def test_a_shed_route_that_nobody_sees_any_more_stays_shed() -> None:
    """Only health brings it back: ignorance improves nothing (I3)."""
    routes = run(fleet(4, bad=1))
    assert active(run(routes, as_said(routes[1:]))) == 3


def test_only_the_routes_of_this_run_are_changed_but_all_are_counted() -> None:
    """R-15: the coordinator may ask for a half."""
    routes = fleet(4, bad=2)
    view = a_view(as_said(routes))
    (change,) = with_traffic((), routes[:1], routes, view)
    assert change.route == routes[0]


def test_deployments_are_counted_apart_and_starting_routes_not_at_all() -> None:
    other = fleet(1, first=50, bad=1, deployment_id="other")
    routes = [*fleet(3, bad=1), *other, warming(60)]
    after = {route.id: route for route in run(routes)}
    assert is_shed(after[routes[0].id])
    assert after[other[0].id].traffic is Traffic.ACTIVE
