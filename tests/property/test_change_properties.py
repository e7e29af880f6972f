"""What every change of a route keeps true, whatever it is."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controller.change import applied, changes_anything
from controller.model import Health, Route, RouteChange, RouteStatus, Stage, Traffic
from tests.fakes.nouns import CHECK, NOW_MS, a_route

LATER_MS = NOW_MS + 1

STAGES = {
    RouteStatus.PROVISIONING: [Stage.PENDING, Stage.STARTING, Stage.WARMING_UP],
    RouteStatus.TERMINATING: [Stage.DRAINING, Stage.COOLING_DOWN],
}


@st.composite
def a_state(draw: st.DrawFn) -> tuple[RouteStatus, Stage | None]:
    status = draw(st.sampled_from(RouteStatus))
    stages = STAGES.get(status)
    return status, None if stages is None else draw(st.sampled_from(stages))


@st.composite
def some_route(draw: st.DrawFn) -> Route:
    status, stage = draw(a_state())
    route = a_route(
        status=status,
        stage=stage,
        health=draw(st.sampled_from(Health)),
        traffic=draw(st.sampled_from(Traffic)),
        health_check=draw(st.sampled_from([CHECK, None])),
        ready_since_ms=None,
    )
    return replace(route, ready_since_ms=NOW_MS - 1) if route.ready else route


@st.composite
def some_change(draw: st.DrawFn) -> RouteChange:
    status, stage = draw(a_state() | st.just((None, None)))
    return RouteChange(
        route=draw(some_route()),
        category="test",
        message="because",
        status=status,
        stage=stage,
        health=draw(st.none() | st.sampled_from(Health)),
        traffic=draw(st.none() | st.sampled_from(Traffic)),
        traffic_ratio=draw(st.none() | st.sampled_from([0.0, 1.0])),
        port=draw(st.none() | st.integers(1, 65_535)),
    )


@given(some_change())
def test_ready_since_is_there_exactly_while_ready(change: RouteChange) -> None:
    before, after = change.route, applied(change, now_ms=LATER_MS)
    assert (after.ready_since_ms is not None) == after.ready
    if before.ready and after.ready:
        assert after.ready_since_ms == before.ready_since_ms
    elif after.ready:
        assert after.ready_since_ms == LATER_MS


@given(some_change())
def test_stage_never_outlives_its_status(change: RouteChange) -> None:
    """R-42"""
    after = applied(change, now_ms=LATER_MS)
    assert after.stage in STAGES.get(after.status, [None])


@given(some_change())
def test_entered_moves_exactly_with_status_and_stage(change: RouteChange) -> None:
    before, after = change.route, applied(change, now_ms=LATER_MS)
    moved = (before.status, before.stage) != (after.status, after.stage)
    assert after.entered_at_ms == (LATER_MS if moved else before.entered_at_ms)


@given(some_change())
def test_version_grows_by_one_exactly_when_something_differs(change: RouteChange) -> None:
    before, after = change.route, applied(change, now_ms=LATER_MS)
    assert after.version - before.version == int(changes_anything(change))
    assert (after is before) == (not changes_anything(change))


@given(some_change())
def test_same_change_again_alters_nothing(change: RouteChange) -> None:
    after = applied(change, now_ms=LATER_MS)
    assert not changes_anything(replace(change, route=after))
