"""Replicas that run without traffic: greens before their promotion, blues kept to switch back to.

They are ready, and serve nobody: no floor may count on them, and nothing but their rollout, or the
end of the time they are kept for, moves them.
"""

from dataclasses import replace
from typing import Any

import pytest

from controller.invariants import Invariant, decision_violations
from controller.model import (
    Decision,
    Deployment,
    Health,
    Lifecycle,
    Policy,
    Route,
    RouteChange,
    RouteStatus,
    Stage,
    Traffic,
)
from controller.reconcile.health import floors
from controller.rollout import destroy, scale
from controller.rollout.counting import Bounds, steps, tally
from controller.route import evict
from controller.route.classify import classify_all
from controller.route.evict import HEALTH_POLICY, Evictions
from controller.route.guard import Budget
from controller.route.guard.breakers import held_deployments
from controller.route.leave import leave
from controller.route.orphans import ORPHAN
from controller.route.shed import with_traffic
from controller.route.table import published
from controller.route.targets import probed
from controller.vigil import Vigil
from tests.fakes.nouns import (
    DEMO,
    NEW,
    NOW_MS,
    OLD,
    a_deployment,
    a_revision,
    a_route,
    a_view,
    as_said,
    deploying,
    failed,
    fleet,
    fresh_ids,
    passed,
    snapshot_of,
)

PERIOD_S = 60.0
THIRD = a_revision(3)
BLUE_GREEN = Policy(strategy="blue-green")


def idle(size: int, *, first: int = 100, **given: Any) -> list[Route]:  # noqa: ANN401 - any field of a route
    """Build ready replicas without traffic, of the old revision."""
    without: dict[str, Any] = {"traffic": Traffic.INACTIVE, "traffic_ratio": 0.0}
    return fleet(size, first=first, **(without | given))


def serving(size: int, *, bad: int = 0) -> list[Route]:
    """Build replicas of the new revision, which serves."""
    return fleet(size, bad=bad, revision_id=NEW.id)


def switched(**given: Any) -> Deployment:  # noqa: ANN401 - any field of a deployment
    """Build a deployment that was promoted, and keeps what served before."""
    return a_deployment(
        **{"current": NEW, "kept": OLD, "kept_until_ms": NOW_MS + 1, "policy": BLUE_GREEN} | given
    )


def decide(routes: list[Route], deployment: Deployment) -> Evictions:
    snapshot = snapshot_of(routes, deployment)
    return evict.decide(
        snapshot,
        a_view(as_said(routes)),
        hold=frozenset(),
        budget=Budget(),
        floors=floors(snapshot),
        period_s=PERIOD_S,
    )


def test_kept_replicas_stay_while_they_are_kept() -> None:
    assert decide([*serving(3), *idle(3)], switched()).changes == ()


def test_when_the_time_is_over_they_leave_as_orphans() -> None:
    """I9"""
    over = switched(kept=None)
    found = decide([*serving(3), *idle(3)], over).changes
    assert {(c.route.revision_id, c.error_code) for c in found} == {(OLD.id, ORPHAN)}
    assert len(found) == 3


def test_those_leave_also_when_what_serves_is_at_its_floor_or_below() -> None:
    """They serve nobody: no floor rests on them."""
    found = decide([*serving(3, bad=1), *idle(3)], switched(kept=None)).changes
    assert {c.route.revision_id for c in found if c.error_code == ORPHAN} == {OLD.id}


def test_serving_orphans_stay_while_only_idle_replicas_are_ready() -> None:
    """I1: greens before their promotion are no reason to let go of what serves."""
    greens = idle(3, revision_id=NEW.id)
    strays = fleet(2, first=50, revision_id=THIRD.id)
    going = deploying(3, policy=BLUE_GREEN)
    found = decide([*fleet(2), *greens, *strays], going)
    assert found.changes == ()


def test_health_evictions_do_not_count_on_what_has_no_traffic() -> None:
    """S13: a listed replica that is ready stays, when only kept ones would be left."""
    daring = switched(cleanup_target_statuses=frozenset({Health.HEALTHY}))
    found = decide([*serving(3), *idle(3)], daring)
    gone = {c.route.revision_id for c in found.changes if c.error_code == HEALTH_POLICY}
    assert NEW.id not in gone


def test_kept_replicas_hide_no_outage_from_the_breaker() -> None:
    """S9: two of four that serve fail, and four kept ones do not change that."""
    ill = [*serving(4, bad=2), *idle(4)]
    assert held_deployments(snapshot_of(ill, switched())) == {DEMO}


def test_kept_replicas_that_fail_hold_nobody() -> None:
    routes = [*serving(4), *idle(4, health=Health.UNHEALTHY)]
    assert held_deployments(snapshot_of(routes, switched())) == frozenset()


def test_kept_replicas_are_probed_and_not_published() -> None:
    (kept,) = idle(1)
    assert probed(kept)
    assert not published(kept)


def test_they_come_into_traffic_by_nobody_but_their_rollout() -> None:
    """R-33"""
    routes = [*serving(2), *idle(2, health=Health.UNHEALTHY)]
    statuses = {r.id: failed(r) if r.revision_id == NEW.id else passed(r) for r in routes}
    view = a_view(statuses)
    changes = with_traffic(classify_all(routes, view, hold=frozenset()), routes, routes, view)
    moved = {c.route.revision_id for c in changes if c.traffic is not None}
    assert moved == {NEW.id}
    assert [c.health for c in changes if c.route.revision_id == OLD.id] == [Health.HEALTHY] * 2


def test_watching_over_orphans_knows_what_is_kept() -> None:
    """I9: a kept replica is none."""
    vigil = Vigil(evict_s=PERIOD_S, deploying_s=PERIOD_S)
    routes, hour_ms = [*serving(3), *idle(3)], 3_600_000
    for at_ms in range(NOW_MS, NOW_MS + hour_ms, 60_000):
        assert vigil.see(snapshot_of(routes, switched(), now_ms=at_ms), held=False) == ()


def test_a_paused_rollout_breaks_no_deadline() -> None:
    """I6: its clocks stand."""
    vigil = Vigil(evict_s=PERIOD_S, deploying_s=PERIOD_S)
    paused = deploying(3)
    assert paused.rollout is not None
    paused = replace(paused, rollout=replace(paused.rollout, paused_at_ms=NOW_MS))
    late_ms = NOW_MS + 100 * 3_600_000
    assert vigil.see(snapshot_of(fleet(3), paused, now_ms=late_ms), held=False) == ()


def test_a_decision_that_leaves_only_idle_replicas_breaks_the_floor() -> None:
    """I1"""
    routes = [*fleet(3), *idle(3, revision_id=NEW.id)]
    going = deploying(3, policy=BLUE_GREEN)
    gone = tuple(leave(r, category="deploying", message="") for r in routes[:3])
    assert list(decision_violations(Decision(deployment=going, routes=gone), routes)) == [
        Invariant.READY_FLOOR
    ]
    served = tuple(
        RouteChange(
            route=route,
            category="deploying",
            message="",
            traffic=Traffic.ACTIVE,
            traffic_ratio=1.0,
        )
        for route in routes[3:]
    )
    promoted = Decision(deployment=going, routes=gone + served)
    assert list(decision_violations(promoted, routes)) == []


def test_replicas_that_serve_nobody_are_drained_first_and_outside_the_budget() -> None:
    """R-32: greens of a superseded rollout make way, and no blue goes in their place."""
    greens = idle(3, revision_id=NEW.id)
    counted = tally([*fleet(3), *greens], THIRD.id, now_ms=NOW_MS, min_ready_s=0)
    planned = steps(counted, Bounds(target=3, surge=1, unavailable=0))
    assert {route.id for route in planned.drain} == {route.id for route in greens}


@pytest.mark.parametrize("lifecycle", [Lifecycle.DESTROYING])
def test_deletion_takes_the_kept_ones_along(lifecycle: Lifecycle) -> None:
    routes = [*serving(2), *idle(2)]
    decision = destroy.step(switched(lifecycle=lifecycle), routes)
    assert decision is not None
    assert len(decision.routes) == 4


class TestForgotten:
    """R-35: at rest no ready replica of the current revision is left without traffic."""

    def test_a_green_that_became_ready_after_the_promotion_gets_traffic(self) -> None:
        left = idle(1, revision_id=NEW.id)
        decision = scale.step(
            switched(), [*serving(2), *left, *idle(2, first=200)], fresh=fresh_ids()
        )
        assert decision is not None
        assert [(c.route.id, c.traffic, c.traffic_ratio) for c in decision.routes] == [
            (left[0].id, Traffic.ACTIVE, 1.0)
        ]
        assert [note.rule for note in decision.notes] == ["bring_in"]

    def test_a_share_that_a_canary_left_becomes_whole(self) -> None:
        part = [replace(route, traffic_ratio=0.5) for route in serving(3)]
        decision = scale.step(switched(), part, fresh=fresh_ids())
        assert decision is not None
        assert {c.traffic_ratio for c in decision.routes} == {1.0}

    def test_one_that_is_shed_stays_so_and_has_its_share_back(self) -> None:
        """S12: its health brings it back."""
        ill = a_route(
            9,
            revision_id=NEW.id,
            health=Health.UNHEALTHY,
            traffic=Traffic.INACTIVE,
            traffic_ratio=0.5,
        )
        decision = scale.step(switched(), [*serving(2), ill], fresh=fresh_ids())
        assert decision is not None
        assert [(c.traffic, c.traffic_ratio) for c in decision.routes] == [(None, 1.0)]

    def test_one_that_is_not_ready_has_to_become_so_first(self) -> None:
        ill = idle(1, revision_id=NEW.id, health=Health.UNHEALTHY)
        assert scale.step(switched(), [*serving(2), *ill], fresh=fresh_ids()) is None

    def test_what_is_too_much_leaves_before_it_is_brought_in(self) -> None:
        left = idle(1, revision_id=NEW.id)
        decision = scale.step(switched(), [*serving(3), *left], fresh=fresh_ids())
        assert decision is not None
        assert [(c.route.id, c.stage) for c in decision.routes] == [(left[0].id, Stage.DRAINING)]

    def test_replicas_run_by_hand_are_brought_in_too(self) -> None:
        by_hand = a_deployment(current=a_revision(1, external=True), replicas=1)
        decision = scale.step(by_hand, idle(5), fresh=fresh_ids())
        assert decision is not None
        assert len(decision.routes) == 5
        assert {c.status for c in decision.routes} == {RouteStatus.RUNNING}

    def test_at_rest_nothing_is_written(self) -> None:
        """I10"""
        routes = [*serving(3), *idle(3)]
        assert scale.step(switched(), routes, fresh=fresh_ids()) is None
