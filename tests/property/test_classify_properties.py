"""What holds for every status, and for every outage."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.model import Health, HealthCheck, Route, RouteId, RouteStatus
from controller.route import classify, evict, warmup
from controller.route.guard import (
    Budget,
    BusView,
    HoldCause,
    StatusEvidence,
    blind_to,
    coverage_percent,
    evidence_of,
    generation_of,
    hold,
)
from probe.reasons import REASONS
from probe.wire import OutcomeKind, Reason, ReplicaHealthStatus, ReplicaId
from tests.fakes.nouns import (
    COVERED,
    DEMO,
    a_deployment,
    a_route,
    a_view,
    fleet,
    snapshot_of,
    warming,
)

checks = st.builds(
    HealthCheck,
    path=st.just("/health"),
    interval_s=st.sampled_from([0.5, 10.0, 300.0]),
    max_retries=st.integers(1, 5),
    healthy_threshold=st.integers(1, 4),
    initial_delay_s=st.sampled_from([0.0, 60.0]),
)
healths = st.sampled_from(Health)
holds = st.frozensets(st.sampled_from(HoldCause), max_size=2)


def holding(routes: list[Route], view: BusView) -> frozenset[HoldCause]:
    """Weigh every cause, with nobody newly unhealthy."""
    return hold(routes, view, coverage=coverage_percent(routes, view), newly_unhealthy=0)


@st.composite
def evidence_for(draw: st.DrawFn, route: Route) -> StatusEvidence:
    """Draw any status a prober, however confused, could have written for a route."""
    reason = draw(st.sampled_from(Reason))
    own = generation_of(route)
    return StatusEvidence(
        status=ReplicaHealthStatus(
            replica_id=ReplicaId(route.id),
            healthy=draw(st.booleans()),
            outcome=REASONS[reason].kind,
            reason=reason,
            consecutive_failures=draw(st.integers(0, 9)),
            consecutive_successes=draw(st.integers(0, 9)),
            generation=draw(st.sampled_from([own, own, own, own + 1])),
            seq=1,
        ),
        age_s=draw(st.sampled_from([0.0, 4.0, 29.0, 119.0, 121.0, 1e6])),
    )


@st.composite
def views(draw: st.DrawFn, routes: list[Route]) -> BusView:
    """Draw any look at the bus."""
    statuses: dict[RouteId, StatusEvidence] = {}
    for route in routes:
        found = draw(st.none() | evidence_for(route))
        if found is not None:
            statuses[route.id] = found
    return BusView(
        reachable=draw(st.booleans()),
        remembers_for_s=draw(st.sampled_from([0.0, 29.0, 31.0, inf])),
        covered_for_s=draw(
            st.sampled_from(
                [{}, dict.fromkeys(range(32), 60.0), dict.fromkeys(range(64), 29.0), COVERED]
            )
        ),
        statuses=statuses,
        unreadable=frozenset(draw(st.sets(st.sampled_from([r.id for r in routes])))),
        clear_for_s=draw(st.sampled_from([0.0, 29.0, 31.0, 59.0, 1e6])),
    )


@settings(max_examples=300)
@given(data=st.data(), health=healths, check=st.none() | checks, held=holds)
def test_only_a_passing_probe_improves_and_only_evidence_worsens(
    data: st.DataObject, health: Health, check: HealthCheck | None, held: frozenset[HoldCause]
) -> None:
    """I3, R-02, R-03, R-05."""
    route = a_route(health=health, health_check=check)
    view = data.draw(views([route]))
    found = classify.classify(route, view, hold=held)
    if found is None:
        return
    assert check is not None, "R-03"
    assert found.health is not health, "R-41"
    assert found.health is not Health.NOT_CHECKED
    evidence = evidence_of(route, view)
    if found.health is Health.HEALTHY:
        assert evidence is not None
        assert evidence.status.outcome is OutcomeKind.PASSED
        assert evidence.status.consecutive_successes >= check.healthy_threshold
        return
    assert not held, "nothing gets worse under HOLD"
    if found.health is Health.UNHEALTHY:
        assert evidence is not None
        assert evidence.status.outcome is OutcomeKind.FAILED
        assert evidence.status.consecutive_failures >= check.max_retries
    else:
        assert evidence is None
        assert not blind_to(route, view)


@given(data=st.data(), check=checks, previous=healths)
def test_a_verdict_given_twice_changes_nothing(
    data: st.DataObject, check: HealthCheck, previous: Health
) -> None:
    """I10, R-41: at rest nothing is written."""
    route = a_route(health=previous, health_check=check)
    view = data.draw(views([route]))
    found = classify.classify(route, view, hold=frozenset())
    if found is None:
        return
    again = classify.classify(replace(route, health=found.health), view, hold=frozenset())
    assert again is None


@st.composite
def fleets(draw: st.DrawFn) -> list[Route]:
    """Draw a fleet in any state, some of it warming up."""
    check = draw(checks)
    serving = [
        a_route(number, health=draw(healths), health_check=check)
        for number in range(1, 1 + draw(st.integers(1, 12)))
    ]
    loading = [warming(number, health_check=check, entered_at_ms=0) for number in (50, 51)]
    return serving + loading[: draw(st.integers(0, 2))]


OUTAGES: Mapping[str, BusView] = {
    "bus away": a_view(reachable=False, remembers_for_s=1.0, covered_for_s={}),
    "bus away, heartbeats remembered": a_view(reachable=False),
    "bus lost its memory": a_view(remembers_for_s=1.0),
    "all probers gone": a_view(covered_for_s={}),
    "every status gone": a_view(),
}


@settings(max_examples=200)
@given(data=st.data(), routes=fleets(), outage=st.sampled_from(sorted(OUTAGES)))
def test_an_outage_of_any_length_takes_nobody_out_and_makes_nobody_worse(
    data: st.DataObject, routes: list[Route], outage: str
) -> None:
    """I11, R-05, R-20e: however long the routes were warming up, whatever the record says."""
    view = OUTAGES[outage]
    if outage in ("bus away, heartbeats remembered", "bus lost its memory", "all probers gone"):
        # What was read before may still be there: it only stops to move.
        view = replace(view, statuses=data.draw(views(routes)).statuses)
    held = holding(routes, view)
    assert held
    everything = a_deployment(cleanup_target_statuses=frozenset(Health))
    snapshot = snapshot_of(routes, everything, now_ms=10**12)
    gone = evict.decide(snapshot, view, hold=held, budget=Budget(), floors={DEMO: 0}, period_s=1)
    assert gone.changes == ()
    for change in classify.classify_all(routes, view, hold=held):
        assert change.health is Health.HEALTHY
    for route in routes:
        if route.status is RouteStatus.PROVISIONING:
            change_of = warmup.decide(route, everything, view, now_ms=10**12, hold=held)
            assert change_of is None or change_of.status is RouteStatus.RUNNING


@given(data=st.data(), routes=fleets())
def test_only_who_fails_at_this_moment_is_taken_out(
    data: st.DataObject, routes: list[Route]
) -> None:
    """R-20, R-20e: and never more than the budget of a minute."""
    view = data.draw(views(routes))
    snapshot = snapshot_of(routes, now_ms=10**12)
    gone = evict.decide(
        snapshot,
        view,
        hold=holding(routes, view),
        budget=Budget(),
        floors={DEMO: 0},
        period_s=1,
    ).changes
    assert len(gone) <= 1
    for change in gone:
        assert change.route.status is RouteStatus.RUNNING
        assert change.route.health is Health.UNHEALTHY
        evidence = evidence_of(change.route, view)
        assert evidence is not None
        assert evidence.status.outcome is OutcomeKind.FAILED


def test_an_outage_that_ends_leaves_time_to_be_seen_again() -> None:
    """I11, S15: the tick after a long outage finds nothing on the bus yet."""
    loading = [warming(number, entered_at_ms=0) for number in range(1, 9)]
    back = a_view(clear_for_s=1.0)
    for route in loading:
        assert warmup.decide(route, a_deployment(), back, now_ms=10**9, hold=frozenset()) is None
    routes = fleet(9, bad=1)
    assert (
        evict.decide(
            snapshot_of(routes),
            back,
            hold=frozenset(),
            budget=Budget(),
            floors={DEMO: 0},
            period_s=60,
        ).changes
        == ()
    )
