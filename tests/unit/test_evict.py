"""Which routes are taken out for good though nobody asked."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from controller.model import (
    Deployment,
    DeploymentId,
    Health,
    Lifecycle,
    Route,
    RouteChange,
    RouteStatus,
    Stage,
    Traffic,
)
from controller.route.evict import HEALTH_POLICY, decide, is_for_health
from controller.route.guard import Budget, BusView, HoldCause, held_deployments
from controller.route.orphans import ORPHAN
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
    own_fault,
    passed,
    snapshot_of,
    warming,
)

STRAY = "revision-0"
ILL = Health.UNHEALTHY


def evictions(
    routes: Iterable[Route],
    deployment: Deployment | None = None,
    *,
    view: BusView | None = None,
    hold: frozenset[HoldCause] = frozenset(),
    budget: Budget | None = None,
    floor: int = 3,
    now_ms: int = NOW_MS,
    held: frozenset[DeploymentId] = frozenset(),
) -> tuple[RouteChange, ...]:
    routes = list(routes)
    return decide(
        snapshot_of(routes, deployment or a_deployment(), now_ms=now_ms),
        view or a_view(as_said(routes)),
        hold=hold,
        budget=budget or Budget(),
        floors={DEMO: floor},
        period_s=60,
        held_deployments=held,
    ).changes


def evicted(*given: Any, **more: Any) -> list[Any]:  # noqa: ANN401 - as evictions takes them
    return [change.route.id for change in evictions(*given, **more)]


def test_a_fleet_in_order_loses_nobody() -> None:
    assert evictions(fleet(20)) == ()


def test_an_unhealthy_running_route_goes_with_its_real_state_recorded() -> None:
    """R-20, R-20c."""
    ill = a_route(9, health=ILL)
    (change,) = evictions([*fleet(3), ill])
    assert change.route == ill
    assert (change.status, change.stage) == (RouteStatus.TERMINATING, Stage.DRAINING)
    assert (change.traffic, change.health) == (Traffic.INACTIVE, None)
    assert change.error_code == HEALTH_POLICY
    assert change.message == (
        "unhealthy, which cleanup_target_statuses of demo lists; p-2 agrees; at most 1 a minute "
        "here and 1 in the fleet, ready floor 3"
    )


@pytest.mark.parametrize("stage", [Stage.PENDING, Stage.STARTING, Stage.WARMING_UP])
def test_a_provisioning_route_whose_health_is_listed_is_kept(stage: Stage) -> None:
    """R-20: health policy is for RUNNING only."""
    everything = a_deployment(cleanup_target_statuses=frozenset(Health))
    starting = warming(9, stage=stage, health=ILL)
    assert starting.id not in evicted([*fleet(9), starting], everything)


@pytest.mark.parametrize("health", [Health.DEGRADED, Health.NOT_CHECKED])
def test_degraded_is_not_dead(health: Health) -> None:
    """S2: by default only UNHEALTHY is listed."""
    assert evictions([*fleet(9), a_route(10, health=health)]) == ()


def test_degraded_goes_where_the_policy_lists_it() -> None:
    listed = a_deployment(cleanup_target_statuses=frozenset({Health.DEGRADED}))
    grey = a_route(10, health=Health.DEGRADED)
    assert evicted([*fleet(9), grey], listed) == [grey.id]


@pytest.mark.parametrize("cause", list(HoldCause))
def test_under_hold_nobody_goes(cause: HoldCause) -> None:
    """R-20e: not the unhealthy, not the orphans."""
    routes = [*fleet(9, bad=1), a_route(20, revision_id=STRAY)]
    assert evictions(routes, hold=frozenset({cause})) == ()


@pytest.mark.parametrize(("clear_for_s", "count"), [(29.9, 0), (30.0, 1)])
def test_a_new_leader_watches_before_it_takes_anybody_out(clear_for_s: float, count: int) -> None:
    """S20."""
    routes = fleet(9, bad=1)
    view = a_view(as_said(routes), clear_for_s=clear_for_s)
    assert len(evictions(routes, view=view)) == count


@pytest.mark.parametrize(
    "said",
    [
        None,
        passed(a_route(1, health=ILL)),
        failed(a_route(1, health=ILL), times=2),
        failed(a_route(1, health=ILL), age_s=121),
        own_fault(a_route(1, health=ILL)),
    ],
    ids=["nothing", "passing", "within budget", "stale", "own fault"],
)
def test_what_the_record_says_must_still_be_what_the_prober_says(said: Any) -> None:  # noqa: ANN401
    """R-20e: old evidence takes nobody out."""
    routes = fleet(9, bad=1)
    statuses = as_said(routes[1:]) | ({} if said is None else {routes[0].id: said})
    assert evictions(routes, view=a_view(statuses)) == ()


def test_a_deployment_half_of_which_is_ill_keeps_it_all() -> None:
    """S9: what looks bad at once is not believed."""
    routes = fleet(4, bad=2)
    held = held_deployments(snapshot_of(routes, a_deployment()))
    assert held == {DEMO}
    assert evictions(routes, floor=0, held=held) == ()


def test_a_small_deployment_may_lose_its_dead_one() -> None:
    """The floor is counted over ready replicas: a dead one takes nothing from it (R-32)."""
    assert len(evictions(fleet(3, bad=1), floor=3)) == 1


@pytest.mark.parametrize(("replicas", "count"), [(9, 1), (20, 2), (99, 3)])
def test_a_tenth_of_a_deployment_and_a_hundredth_of_the_fleet_go_in_a_minute(
    replicas: int, count: int
) -> None:
    """S13: of a fleet of 300, three."""
    others = DeploymentId("others")
    rest = fleet(300 - replicas, first=replicas + 1, deployment_id=others)
    routes = [*fleet(replicas, bad=replicas // 3), *rest]
    ours = a_deployment(replicas=replicas)
    snapshot = snapshot_of(routes, ours, a_deployment(id=others, replicas=300 - replicas))
    gone = decide(
        snapshot,
        a_view(as_said(routes)),
        hold=frozenset(),
        budget=Budget(),
        floors={DEMO: 0, others: 0},
        period_s=60,
    ).changes
    assert len(gone) == count


def test_what_went_within_the_last_minute_counts() -> None:
    """S13: also when the handler runs each second."""
    routes = fleet(9, bad=2)
    first = evictions(routes, floor=0)
    assert len(first) == 1
    budget = Budget().after([DEMO for _ in first], now_ms=NOW_MS)
    left = [route for route in routes if route.id != first[0].route.id]
    assert evictions(left, floor=0, budget=budget, now_ms=NOW_MS + 59_999) == ()
    assert len(evictions(left, floor=0, budget=budget, now_ms=NOW_MS + 60_000)) == 1


def test_the_budget_forgets_and_counts_health_evictions_only() -> None:
    (ill,) = evictions(fleet(9, bad=1))
    (stray,) = evictions([*fleet(9), a_route(10, revision_id=STRAY)])
    gone = [change.route.deployment_id for change in (ill, stray) if is_for_health(change)]
    budget = Budget().after(gone, now_ms=NOW_MS)
    assert budget.spent_in_all(now_ms=NOW_MS) == 1
    assert budget.spent_by(DeploymentId("another"), now_ms=NOW_MS) == 0
    assert budget.after([], now_ms=NOW_MS + 60_000).spent == ()


@pytest.mark.parametrize(("floor", "count"), [(9, 0), (8, 1)])
def test_a_ready_replica_goes_by_policy_only_above_the_floor(floor: int, count: int) -> None:
    """R-20e: unmanaged routes are ready, and a policy may list not_checked."""
    listed = a_deployment(cleanup_target_statuses=frozenset({Health.NOT_CHECKED}))
    unmanaged = fleet(9, health_check=None, health=Health.NOT_CHECKED)
    assert len(evictions(unmanaged, listed, floor=floor)) == count


def test_replicas_registered_by_hand_are_nobodys_to_replace() -> None:
    by_hand = a_deployment(current=a_revision(1, external=True))
    assert evictions(fleet(9, bad=1), by_hand) == ()


@pytest.mark.parametrize("health", list(Health))
def test_an_orphan_goes_whatever_its_health(health: Health) -> None:
    """R-20d."""
    stray = a_route(9, revision_id=STRAY, health=health)
    (change,) = evictions([*fleet(3), stray])
    assert (change.route.id, change.error_code) == (stray.id, ORPHAN)
    assert change.message == (
        "of no revision in use: the deployment's are 1; 3 of their replicas are ready (floor 3)"
    )


@pytest.mark.parametrize("stage", [Stage.PENDING, Stage.STARTING, Stage.WARMING_UP])
def test_an_orphan_goes_while_it_still_starts(stage: Stage) -> None:
    """R-20d."""
    stray = warming(9, revision_id=STRAY, stage=stage)
    assert evicted([*fleet(3), stray]) == [stray.id]


def test_a_starting_route_of_the_deploying_revision_is_no_orphan() -> None:
    """R-20d."""
    routes = [*fleet(3), warming(9, revision_id=NEW.id), a_route(10, revision_id=NEW.id)]
    assert evictions(routes, deploying()) == ()


def test_while_no_revision_is_known_nobody_goes() -> None:
    """R-20d: bootstrap."""
    unborn = a_deployment(current=None, lifecycle=Lifecycle.PENDING)
    assert evictions(fleet(9, bad=1), unborn) == ()


@pytest.mark.parametrize(("age_s", "count"), [(60, 0), (61, 1)])
def test_an_orphan_must_have_outlived_an_eviction_period(age_s: int, count: int) -> None:
    """Its pointer may be a moment behind."""
    stray = a_route(9, revision_id=STRAY, created_at_ms=NOW_MS - age_s * 1000)
    assert len(evictions([*fleet(3), stray])) == count


def test_an_orphan_that_serves_stays_until_the_floor_holds_without_it() -> None:
    """I1: orphans are outside the health budget, never below the floor."""
    serving = a_route(9, revision_id=STRAY)
    ill = a_route(10, revision_id=STRAY, health=ILL)
    assert evicted([*fleet(2), serving, ill]) == [ill.id]
    assert evicted([*fleet(3), serving, ill]) == [serving.id, ill.id]


def test_orphans_do_not_spend_the_health_budget() -> None:
    strays = fleet(30, first=100, revision_id=STRAY)
    assert len(evictions([*fleet(9, bad=1), *strays], floor=0)) == 31


@pytest.mark.parametrize("lifecycle", [Lifecycle.DESTROYING, Lifecycle.DESTROYED])
def test_what_is_going_away_is_not_evictions_affair(lifecycle: Lifecycle) -> None:
    """R-38."""
    assert evictions(fleet(9, bad=1), a_deployment(lifecycle=lifecycle)) == ()


@pytest.mark.parametrize(
    "status", [RouteStatus.TERMINATING, RouteStatus.TERMINATED, RouteStatus.FAILED_TO_START]
)
def test_what_is_leaving_or_gone_is_not_evicted_again(status: RouteStatus) -> None:
    """R-34."""
    gone = a_route(9, status=status, health=ILL, revision_id=STRAY)
    assert evictions([*fleet(9), gone, replace(gone, revision_id=OLD.id)]) == ()
