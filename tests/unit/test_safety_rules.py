"""Budgets, openings and clocks: when something irreversible may begin, and how much of it."""

from dataclasses import replace

import pytest

from controller.model import DeploymentId, Health, HealthCheck, HoldSpan, Route, RouteStatus
from controller.route.evict import Evictions, decide
from controller.route.guard import Budget, BusView, Gate, HoldCause, held_deployments
from controller.route.guard.breakers import settled
from controller.route.guard.budget import CLOSING_S, ramp
from controller.route.guard.clocks import (
    DISAGREEMENT_MAX_S,
    ClockGuard,
    ClockReading,
    stood_still_ms,
)
from controller.route.guard.evidence import settle_s
from tests.fakes.nouns import (
    DEMO,
    NEW,
    NOW_MS,
    a_deployment,
    a_view,
    as_said,
    deploying,
    fleet,
    snapshot_of,
)

FORCED = a_deployment(replicas=9, forced_until_ms=NOW_MS + 1)


def evictions(
    routes: list[Route],
    view: BusView | None = None,
    *,
    forced: bool = False,
    hold: frozenset[HoldCause] = frozenset(),
    held: frozenset[DeploymentId] = frozenset(),
    floor: int = 0,
    replicas: int = 9,
) -> Evictions:
    deployment = replace(FORCED, replicas=replicas) if forced else a_deployment(replicas=replicas)
    return decide(
        snapshot_of(routes, deployment),
        view or a_view(as_said(routes)),
        hold=hold,
        held_deployments=held,
        budget=Budget(),
        floors={DEMO: floor},
        period_s=60,
    )


def blocked(found: Evictions) -> set[HoldCause | Gate]:
    return set().union(*found.blocked.values())


class TestOpening:
    @pytest.mark.parametrize(
        ("clear_for_s", "seen_enough", "gate"),
        [(29.9, True, Gate.COLD_START), (3600.0, False, Gate.COLD_START), (30.0, True, None)],
    )
    def test_a_new_leader_looks_first_and_at_nearly_all(
        self, clear_for_s: float, gate: Gate | None, *, seen_enough: bool
    ) -> None:
        """S20"""
        routes = fleet(9, bad=1)
        view = a_view(as_said(routes), clear_for_s=clear_for_s, seen_enough=seen_enough)
        assert blocked(evictions(routes, view)) == ({gate} if gate else set())

    def test_it_waits_for_two_intervals_of_the_slowest_check(self) -> None:
        """S20"""
        slow = fleet(1, health_check=HealthCheck(path="/health", interval_s=60))
        assert settle_s([*fleet(3), *slow]) == 120
        assert settle_s(fleet(3)) == 30

    @pytest.mark.parametrize(("clear_for_s", "gate"), [(119.9, Gate.CLOSING), (120.0, None)])
    def test_a_hold_is_over_for_evictions_after_two_quiet_minutes(
        self, clear_for_s: float, gate: Gate | None
    ) -> None:
        """S21"""
        routes = fleet(9, bad=1)
        view = a_view(as_said(routes), clear_for_s=clear_for_s, held_before=True)
        assert blocked(evictions(routes, view)) == ({gate} if gate else set())

    def test_then_they_begin_with_one_and_double_each_minute(self) -> None:
        """S13, S21"""
        counts = []
        for minutes in range(4):
            routes = fleet(1000, bad=100)
            clear_for_s = CLOSING_S + 60 * minutes
            view = a_view(as_said(routes), clear_for_s=clear_for_s, held_before=True)
            counts.append(len(evictions(routes, view, replicas=1000).changes))
        assert counts == [1, 2, 4, 8]
        assert ramp(1e9, held_before=True) is None


class TestForce:
    """S21: an operator answers for what is believed, and for nothing else."""

    @pytest.mark.parametrize("cause", list(HoldCause))
    def test_hold_and_breakers_do_not_stop_it(self, cause: HoldCause) -> None:
        routes = fleet(9, bad=5)
        view = a_view(as_said(routes), clear_for_s=0.0, held_before=True, cases={})
        causes, held = frozenset({cause}), frozenset({DEMO})
        assert evictions(routes, view, hold=causes, held=held).changes == ()
        (change,) = evictions(routes, view, hold=causes, held=held, forced=True).changes
        assert "an operator forced it" in change.message

    def test_budget_floor_and_evidence_do(self) -> None:
        routes = fleet(9, bad=5)
        assert len(evictions(routes, forced=True).changes) == 1
        unseen = a_view(as_said(routes[5:]))
        assert evictions(routes, unseen, forced=True).changes == ()
        assert evictions(routes, a_view(reachable=False), forced=True).changes == ()

    def test_it_ends_by_itself(self) -> None:
        assert FORCED.forced(NOW_MS)
        assert not FORCED.forced(NOW_MS + 1)
        assert not a_deployment().forced(NOW_MS)


class TestBlocked:
    """What keeps a route is said of each route, every reason at once."""

    def test_every_gate_is_named(self) -> None:
        routes = fleet(9, bad=3)
        assert blocked(evictions(routes, a_view(as_said(routes), cases={}))) == {Gate.SECOND_SOURCE}
        assert blocked(evictions(routes, a_view(as_said(routes[3:])))) == {
            Gate.EVIDENCE,
            Gate.SECOND_SOURCE,
        }
        first, *others = routes[:3]
        found = evictions(routes)
        assert [change.route for change in found.changes] == [first]
        assert found.blocked == {route.id: {Gate.BUDGET} for route in others}
        held = evictions(routes, hold=frozenset({HoldCause.VELOCITY}), held=frozenset({DEMO}))
        assert blocked(held) == {
            HoldCause.VELOCITY,
            HoldCause.DEPLOYMENT_BREAKER,
        }

    def test_a_look_that_found_no_bus_takes_nobody_out(self) -> None:
        """S3: also before it is a HOLD, and no orphan either."""
        routes = [*fleet(9, bad=1), *fleet(1, first=20, revision_id="of nobody")]
        found = evictions(routes, a_view(reachable=False, failed_looks=1))
        assert found.changes == ()


class TestBreakerOfOne:
    def test_a_new_revision_that_fails_holds_nothing(self) -> None:
        """S9: else no rollout of a bad revision could turn back."""
        old, new = fleet(3), fleet(3, first=10, revision_id=NEW.id, health=Health.UNHEALTHY)
        deployment = deploying(3)
        assert held_deployments(snapshot_of([*old, *new], deployment)) == frozenset()
        assert settled([*old, *new], {DEMO: deployment}) == tuple(old)
        sick = [*fleet(4, bad=2), *new]
        assert held_deployments(snapshot_of(sick, deployment)) == {DEMO}

    def test_only_running_routes_count(self) -> None:
        leaving = fleet(4, status=RouteStatus.TERMINATING, health=Health.UNHEALTHY)
        assert held_deployments(snapshot_of(leaving, a_deployment())) == frozenset()


def reading(at_s: float, *, database: float = 0.0, bus: float | None = 0.0) -> ClockReading:
    return ClockReading(
        database_s=5e8 + at_s + database,
        database_at_s=at_s,
        bus_s=None if bus is None else 7e8 + at_s + bus,
        bus_at_s=at_s,
    )


class TestClocks:
    @pytest.mark.parametrize("clock", ["database", "bus"])
    @pytest.mark.parametrize("step_s", [-120.0, -5.1, 5.1, 120.0])
    def test_a_step_of_any_clock_holds_for_two_looks(self, clock: str, step_s: float) -> None:
        """S19"""
        guard = ClockGuard().after(reading(0)).after(reading(10))
        assert guard.agree
        agreed = []
        for at_s in (20, 30, 40):
            guard = guard.after(reading(at_s, **{clock: step_s}))
            agreed.append(guard.agree)
        assert agreed == [False, False, True]

    def test_what_is_within_five_seconds_is_the_duration_of_asking(self) -> None:
        guard = ClockGuard().after(reading(0))
        assert guard.after(reading(10, database=DISAGREEMENT_MAX_S)).agree

    def test_the_clock_of_another_bus_is_compared_with_its_own_past_only(self) -> None:
        guard = ClockGuard().after(reading(0)).after(reading(10, bus=None))
        assert guard.after(reading(20, bus=300.0)).agree

    def test_a_long_pause_between_two_looks_is_no_step(self) -> None:
        assert ClockGuard().after(reading(0)).after(reading(3600)).agree

    @pytest.mark.parametrize(
        ("since_ms", "until_ms", "still_ms"),
        [(0, 100, 60), (50, 100, 30), (0, 10, 0), (75, 75, 0), (200, 300, 100)],
    )
    def test_the_time_of_hold_is_counted_once(
        self, since_ms: int, until_ms: int, still_ms: int
    ) -> None:
        """S15: of the fleet and of the deployment at once, it is one time."""
        spans = [
            HoldSpan(deployment_id=None, from_ms=20, to_ms=60),
            HoldSpan(deployment_id=DEMO, from_ms=50, to_ms=70),
            HoldSpan(deployment_id=DEMO, from_ms=30, to_ms=40),
            HoldSpan(deployment_id=None, from_ms=90, to_ms=None),
            HoldSpan(deployment_id=DeploymentId("another"), from_ms=0, to_ms=None),
        ]
        assert stood_still_ms(spans, DEMO, since_ms=since_ms, until_ms=until_ms) == still_ms
