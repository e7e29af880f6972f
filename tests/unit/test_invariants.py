"""Each invariant goes off when it is broken, and stays quiet through everything that is lawful."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from controller.invariants import (
    Invariant,
    change_violations,
    decision_violations,
    snapshot_violations,
)
from controller.model import (
    Decision,
    Deployment,
    DeploymentChange,
    Health,
    Lifecycle,
    NewRoute,
    Outcome,
    Policy,
    Route,
    RouteChange,
    RouteStatus,
    Stage,
    Traffic,
)
from controller.route.guard import BusView, HoldCause, StatusEvidence
from controller.route.leave import leave
from tests.fakes.nouns import (
    CHECK,
    NEW,
    NOW_MS,
    a_deployment,
    a_rollout,
    a_route,
    a_view,
    as_said,
    deploying,
    failed,
    fleet,
    own_fault,
    passed,
    route_id,
    snapshot_of,
    warming,
)
from tests.fakes.small_world import SmallWorld

ONE_SPARE = Policy(surge=1, unavailable=0)


def wanting(deployment: Deployment, count: int) -> Decision:
    return Decision(
        deployment=deployment,
        create=tuple(
            NewRoute(
                id=route_id(900 + number),
                deployment_id=deployment.id,
                revision_id=NEW.id,
                traffic=Traffic.INACTIVE,
                traffic_ratio=0.0,
                health_check=CHECK,
                rollout_id=None,
                message="as the test wants",
            )
            for number in range(count)
        ),
    )


def draining(deployment: Deployment, routes: Sequence[Route], *, to: RouteStatus) -> Decision:
    return Decision(
        deployment=deployment,
        routes=tuple(
            RouteChange(route=route, category="test", message="goes", status=to) for route in routes
        ),
    )


def broken(decision: Decision, routes: Sequence[Route]) -> list[Invariant]:
    return list(decision_violations(decision, routes))


class TestReadyFloor:
    @pytest.mark.parametrize(
        "to", [RouteStatus.TERMINATING, RouteStatus.TERMINATED, RouteStatus.FAILED_TO_START]
    )
    @pytest.mark.parametrize("deployment", [deploying(policy=ONE_SPARE), a_deployment()])
    def test_to_drain_below_it_goes_off(self, deployment: Deployment, to: RouteStatus) -> None:
        """I1"""
        routes = fleet(3)
        decision = draining(deployment, routes[:1], to=to)
        assert broken(decision, routes) == [Invariant.READY_FLOOR]

    def test_the_rollouts_own_policy_counts_not_the_deployments_of_today(self) -> None:
        """I1"""
        loose = deploying(policy=Policy(surge=1, unavailable=2))
        decision = draining(
            replace(loose, policy=ONE_SPARE), fleet(3)[:2], to=RouteStatus.TERMINATING
        )
        assert broken(decision, fleet(3)) == []

    def test_who_serves_nobody_may_always_go(self) -> None:
        """R-32"""
        routes = fleet(3, bad=3)
        assert broken(draining(deploying(), routes, to=RouteStatus.TERMINATING), routes) == []

    def test_to_stay_below_it_is_not_our_own_doing(self) -> None:
        routes = [a_route(1), warming(2)]
        decision = draining(deploying(), routes[1:], to=RouteStatus.TERMINATING)
        assert broken(decision, routes) == []

    def test_what_is_destroyed_has_no_floor(self) -> None:
        deployment = a_deployment(lifecycle=Lifecycle.DESTROYING)
        decision = draining(deployment, fleet(3), to=RouteStatus.TERMINATING)
        assert broken(decision, fleet(3)) == []


class TestActiveCeiling:
    @pytest.mark.parametrize(("count", "found"), [(1, []), (2, [Invariant.ACTIVE_CEILING])])
    def test_to_create_above_it_goes_off(self, count: int, found: list[Invariant]) -> None:
        """I2"""
        deployment = deploying(policy=ONE_SPARE)
        assert broken(wanting(deployment, count), fleet(3)) == found

    def test_who_is_on_the_way_out_does_not_count(self) -> None:
        """I2"""
        leaving = a_route(4, status=RouteStatus.TERMINATING, stage=Stage.DRAINING)
        assert broken(wanting(deploying(policy=ONE_SPARE), 1), [*fleet(3), leaving]) == []

    def test_to_be_above_it_is_not_our_own_doing(self) -> None:
        change = DeploymentChange(category="test", message="waits", lifecycle=Lifecycle.DEPLOYING)
        assert broken(Decision(deployment=deploying(), change=change), fleet(9)) == []


class TestSnapshots:
    def test_a_fleet_in_order_is_quiet(self) -> None:
        routes = [*fleet(3), warming(4), a_route(5, status=RouteStatus.TERMINATING)]
        assert list(snapshot_violations(snapshot_of(routes))) == []
        assert list(snapshot_violations(snapshot_of(routes, deploying()))) == []

    @pytest.mark.parametrize("status", [RouteStatus.TERMINATED, RouteStatus.FAILED_TO_START])
    def test_a_terminal_route_that_is_seen_alive_goes_off(self, status: RouteStatus) -> None:
        """I5, R-34"""
        found = snapshot_violations(snapshot_of([a_route(1, status=status)]))
        assert list(found) == [Invariant.TERMINAL]

    @pytest.mark.parametrize(
        "deployment",
        [
            deploying(rollout=None),
            deploying(deploying=None),
            a_deployment(rollout=a_rollout(ONE_SPARE)),
        ],
    )
    def test_a_rollout_without_its_revision_or_the_reverse_goes_off(
        self, deployment: Deployment
    ) -> None:
        """R-13"""
        found = snapshot_violations(snapshot_of([], deployment))
        assert list(found) == [Invariant.ONE_ROLLOUT]


@pytest.mark.parametrize(
    ("target", "policy"),
    [
        (3, ONE_SPARE),
        (5, Policy(surge=2, unavailable=1)),
        (3, Policy(surge=0, unavailable=3)),
        (4, Policy(surge="50%", unavailable=0)),
    ],
)
@pytest.mark.parametrize("forward", [True, False])
def test_a_whole_rollout_forward_or_back_is_quiet(
    target: int, policy: Policy, *, forward: bool
) -> None:
    """I1, I2, I5"""
    world = SmallWorld(target, policy)

    def live(route: Route) -> None:
        if forward or route.revision_id != NEW.id:
            world.advance(route)
        elif route.active:
            world.fail(route)

    for _ in range(100):
        if world.deployment.lifecycle is Lifecycle.READY:
            break
        before = world.live
        decision = world.cycle()
        if decision is not None:
            assert broken(decision, before) == []
        assert list(snapshot_violations(snapshot_of(world.live, world.deployment))) == []
        for route in world.live:
            live(route)
    assert world.outcome is (Outcome.PROMOTED if forward else Outcome.ROLLED_BACK)


class TestChanges:
    """What handlers wrote, against what they knew."""

    @staticmethod
    def found(
        *changes: RouteChange,
        routes: Sequence[Route] = (),
        view: BusView | None = None,
        hold: frozenset[HoldCause] = frozenset(),
        deployment: Deployment | None = None,
    ) -> list[Invariant]:
        snapshot = snapshot_of(routes, deployment or a_deployment())
        return list(change_violations(changes, snapshot, view or a_view(), hold=hold))

    @pytest.mark.parametrize(
        ("evidence", "found"),
        [
            (passed(a_route()), []),
            (failed(a_route()), [Invariant.VERDICT]),
            (own_fault(a_route()), [Invariant.VERDICT]),
            (passed(a_route(port=9)), [Invariant.VERDICT]),
            (None, [Invariant.VERDICT]),
        ],
    )
    def test_a_verdict_improves_by_a_passing_probe_alone(
        self, evidence: StatusEvidence | None, found: list[Invariant]
    ) -> None:
        """I3, R-02"""
        route = a_route(health=Health.UNHEALTHY)
        view = a_view({} if evidence is None else {route.id: evidence})
        change = RouteChange(route=route, category="test", message="", health=Health.HEALTHY)
        assert self.found(change, view=view) == found

    def test_an_eviction_that_everybody_confirms_is_quiet(self) -> None:
        """I11"""
        routes = fleet(4, bad=1)
        change = leave(routes[0], category="evict", message="", error_code="HEALTH_POLICY")
        assert self.found(change, routes=routes, view=a_view(as_said(routes))) == []

    @pytest.mark.parametrize(
        ("given", "hold"),
        [
            ({}, frozenset({HoldCause.COVERAGE})),
            ({"reachable": False}, frozenset()),
            ({"statuses": {}}, frozenset()),
        ],
    )
    def test_an_eviction_in_an_outage_goes_off(
        self, given: dict[str, Any], hold: frozenset[HoldCause]
    ) -> None:
        """I11, R-20e"""
        routes = fleet(4, bad=1)
        change = leave(routes[0], category="evict", message="", error_code="HEALTH_POLICY")
        view = a_view(**({"statuses": as_said(routes)} | given))
        assert self.found(change, routes=routes, view=view, hold=hold) == [Invariant.OUTAGE]

    def test_an_operator_answers_for_what_is_forced(self) -> None:
        routes = fleet(4, bad=1)
        change = leave(routes[0], category="evict", message="", error_code="HEALTH_POLICY")
        forced = a_deployment(forced_until_ms=NOW_MS + 1)
        view, hold = a_view(as_said(routes)), frozenset({HoldCause.BREAKER})
        assert self.found(change, routes=routes, view=view, hold=hold, deployment=forced) == []

    def test_evictions_below_the_floor_go_off(self) -> None:
        """I1"""
        routes = fleet(3)
        changes = [leave(r, category="evict", message="", error_code="ORPHAN") for r in routes[:2]]
        assert self.found(*changes, routes=routes) == [Invariant.READY_FLOOR]


def test_to_scale_out_above_the_target_goes_off() -> None:
    """I2"""
    resting = a_deployment()
    assert broken(wanting(resting, 1), fleet(2)) == []
    assert broken(wanting(resting, 2), fleet(2)) == [Invariant.ACTIVE_CEILING]
