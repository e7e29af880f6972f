"""What the safety rules promise over any course of events: long outages, lies, and any fleet."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.change import applied
from controller.model import DeploymentId, Health, HoldSpan, Route, RouteChange, RouteId, Traffic
from controller.route import classify, evict, shed
from controller.route.guard import (
    Budget,
    BusView,
    Case,
    HoldCause,
    StatusEvidence,
    coverage_percent,
    evidence_of,
    hold,
)
from controller.route.guard.budget import deployment_allowance, fleet_allowance
from controller.route.guard.clocks import stood_still_ms
from controller.route.guard.second_source import follow
from tests.fakes.nouns import (
    DEMO,
    NOW_MS,
    a_deployment,
    a_route,
    a_view,
    as_said,
    failed,
    own_fault,
    passed,
    snapshot_of,
)

OTHERS = DeploymentId("others")
healths = st.sampled_from(Health)
IMPROVES = (Health.HEALTHY,)


@st.composite
def fleets(draw: st.DrawFn, most: int = 40) -> list[Route]:
    """Draw two deployments in any state of health."""
    return [
        a_route(number, health=draw(healths), deployment_id=draw(st.sampled_from([DEMO, OTHERS])))
        for number in range(1, 1 + draw(st.integers(1, most)))
    ]


@st.composite
def bad_news(draw: st.DrawFn, routes: list[Route]) -> dict[RouteId, StatusEvidence]:
    """Draw what an ill prober may say: nothing good of anybody, or nothing at all."""
    found: dict[RouteId, StatusEvidence] = {}
    for route in routes:
        said = draw(
            st.sampled_from(
                [None, failed(route, times=1), failed(route, times=9), own_fault(route)]
            )
        )
        if said is not None:
            found[route.id] = said
    return found


def outs(size: int) -> st.SearchStrategy[list[bool]]:
    """Draw who is out of traffic already."""
    return st.lists(st.booleans(), min_size=size, max_size=size)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), routes=fleets(most=15))
def test_no_bad_or_missing_news_improves_a_verdict_or_gives_traffic_back(
    data: st.DataObject, routes: list[Route]
) -> None:
    """I3, R-02: neither health nor, for whom it fails, traffic."""
    routes = [
        replace(route, traffic=Traffic.INACTIVE) if not route.ready and out else route
        for route, out in zip(routes, data.draw(outs(len(routes))), strict=True)
    ]
    view = a_view(data.draw(bad_news(routes)))
    changes = classify.classify_all(routes, view, hold=frozenset())
    found = shed.with_traffic(changes, routes, routes, view)
    assert all(change.health not in IMPROVES for change in found)
    serving = Counter(r.deployment_id for r in routes if r.traffic is Traffic.ACTIVE)
    after = [_after(route, found) for route in routes]
    left = Counter(r.deployment_id for r in after if r.traffic is Traffic.ACTIVE)
    for deployment_id in {route.deployment_id for route in routes}:
        wanted = sum(route.deployment_id == deployment_id for route in routes)
        assert left[deployment_id] >= min(serving[deployment_id], shed.floor_of(wanted))
        assert left[deployment_id] <= max(serving[deployment_id], shed.floor_of(wanted))


def _after(route: Route, changes: tuple[RouteChange, ...]) -> Route:
    change = next((each for each in changes if each.route.id == route.id), None)
    return route if change is None else applied(change, now_ms=NOW_MS)


@settings(max_examples=100)
@given(routes=fleets(), minutes=st.integers(1, 2000), asleep=st.booleans())
def test_an_outage_of_any_length_evicts_nobody(
    routes: list[Route], minutes: int, *, asleep: bool
) -> None:
    """I11, R-20e: whatever the record says by then, and whoever was a case before."""
    known = {
        route.id: Case(generation=0, since_s=0.0, first="p-1", second="p-2 agrees")
        for route in routes
    }
    view = a_view(
        {route.id: failed(route, age_s=minutes * 60.0) for route in routes} if asleep else {},
        reachable=asleep,
        covered_for_s={},
        failed_looks=0 if asleep else minutes,
        clear_for_s=1e6,
        cases=known,
    )
    held = hold(routes, view, coverage=coverage_percent(routes, view), newly_unhealthy=0)
    if asleep or minutes > 1:
        assert held
    found = _decide(routes, view, held=held, budget=Budget(), now_ms=NOW_MS)
    assert found.changes == ()


def _decide(
    routes: list[Route],
    view: BusView,
    *,
    held: frozenset[HoldCause],
    budget: Budget,
    now_ms: int,
    forced: bool = False,
) -> evict.Evictions:
    sizes = Counter(route.deployment_id for route in routes)
    until_ms = 10**15 if forced else None
    deployments = [
        a_deployment(id=key, name=str(key), replicas=sizes[key], forced_until_ms=until_ms)
        for key in (DEMO, OTHERS)
    ]
    return evict.decide(
        snapshot_of(routes, *deployments, now_ms=now_ms),
        view,
        hold=held,
        budget=budget,
        floors=dict.fromkeys((DEMO, OTHERS), 0),
        period_s=60,
    )


@settings(max_examples=30, deadline=None)
@given(routes=fleets(most=80), step_s=st.sampled_from([5, 20, 59]), forced=st.booleans())
def test_no_minute_ever_sees_more_evictions_than_its_budget(
    routes: list[Route], step_s: int, *, forced: bool
) -> None:
    """R-20e, S13, S21: over any minute, of the fleet and of each deployment, forced or not."""
    sizes = Counter(route.deployment_id for route in routes)
    budget, gone = Budget(), []
    for now_ms in range(NOW_MS, NOW_MS + 240_000, step_s * 1000):
        found = _decide(
            routes,
            a_view(as_said(routes)),
            held=frozenset({HoldCause.BREAKER}) if forced else frozenset(),
            budget=budget,
            now_ms=now_ms,
            forced=forced,
        )
        ids = {change.route.id for change in found.changes}
        owners = [change.route.deployment_id for change in found.changes]
        budget = budget.after(owners, now_ms=now_ms)
        gone += [(now_ms, owner) for owner in owners]
        routes = [route for route in routes if route.id not in ids]
    for now_ms, _ in gone:
        minute = Counter(owner for at_ms, owner in gone if now_ms <= at_ms < now_ms + 60_000)
        assert minute.total() <= fleet_allowance(sizes.total())
        for owner, count in minute.items():
            assert count <= deployment_allowance(sizes[owner])


@settings(max_examples=150)
@given(
    words=st.lists(
        st.tuples(st.sampled_from(["fails", "passes", "fault", "absent"]), st.integers(1, 30)),
        max_size=30,
    )
)
def test_one_prober_among_others_never_takes_anybody_out(words: list[tuple[str, int]]) -> None:
    """S11: whatever it says, in whichever order, for however long."""
    route = a_route(1, health=Health.UNHEALTHY)
    said = {
        "fails": failed(route, prober="p-1", times=9),
        "passes": passed(route, prober="p-1"),
        "fault": own_fault(route, prober="p-1"),
    }
    cases: dict[RouteId, Case] = {}
    now_s = 0.0
    halves = {"p-1": frozenset(range(32)), "p-2": frozenset(range(32, 64))}
    for word, after_s in words:
        now_s += after_s
        view = a_view(
            {route.id: said[word]} if word in said else {}, probers=halves, clear_for_s=1e6
        )
        cases = follow(cases, [route], view, now_s=now_s)
        view = replace(view, cases=cases)
        found = _decide([route], view, held=frozenset(), budget=Budget(), now_ms=NOW_MS)
        assert found.changes == ()
        assert evidence_of(route, view) == (said.get(word))


spans = st.builds(
    lambda owner, begin, length: HoldSpan(
        deployment_id=owner, from_ms=begin, to_ms=None if length is None else begin + length
    ),
    st.sampled_from([None, DEMO, OTHERS]),
    st.integers(0, 100),
    st.none() | st.integers(0, 50),
)


@given(held=st.lists(spans, max_size=8), since=st.integers(0, 100), length=st.integers(0, 100))
def test_the_time_that_stood_still_is_what_a_clock_by_the_millisecond_counts(
    held: list[HoldSpan], since: int, length: int
) -> None:
    """S15"""
    until = since + length
    counted = sum(
        any(
            span.deployment_id in (None, DEMO)
            and span.from_ms <= at_ms
            and (span.to_ms is None or at_ms < span.to_ms)
            for span in held
        )
        for at_ms in range(since, until)
    )
    assert stood_still_ms(held, DEMO, since_ms=since, until_ms=until) == counted
