"""Keeping the count at rest, and going away."""

import pytest

from controller.model import (
    Health,
    Lifecycle,
    Route,
    RouteStatus,
    Stage,
    SubStep,
    Traffic,
)
from controller.rollout import destroy, scale
from tests.fakes.nouns import (
    CHECK,
    NEW,
    OLD,
    a_deployment,
    a_revision,
    a_route,
    deploying,
    fleet,
    fresh_ids,
    warming,
)


@pytest.mark.parametrize("sub_step", list(SubStep))
@pytest.mark.parametrize("routes", [[], fleet(9)], ids=["too few", "too many"])
def test_while_deploying_the_count_is_the_rollouts_affair(
    sub_step: SubStep, routes: list[Route]
) -> None:
    """R-30."""
    assert scale.step(deploying(sub_step=sub_step), routes, fresh=fresh_ids()) is None


@pytest.mark.parametrize(
    "lifecycle", [Lifecycle.PENDING, Lifecycle.DESTROYING, Lifecycle.DESTROYED]
)
def test_only_a_deployment_at_rest_is_scaled(lifecycle: Lifecycle) -> None:
    """R-38."""
    assert scale.step(a_deployment(lifecycle=lifecycle), [], fresh=fresh_ids()) is None


def test_the_right_count_writes_nothing() -> None:
    routes = [*fleet(2), warming(3), a_route(9, status=RouteStatus.TERMINATING)]
    assert scale.step(a_deployment(replicas=3), routes, fresh=fresh_ids()) is None


def test_missing_replicas_are_created_of_the_current_revision() -> None:
    decision = scale.step(a_deployment(replicas=4), fleet(1), fresh=fresh_ids())
    assert decision is not None
    assert len({wanted.id for wanted in decision.create}) == 3
    assert {wanted.revision_id for wanted in decision.create} == {OLD.id}
    assert {wanted.health_check for wanted in decision.create} == {CHECK}
    assert {(w.traffic, w.rollout_id) for w in decision.create} == {(Traffic.INACTIVE, None)}
    assert {wanted.message for wanted in decision.create} == {
        "scaling out: 1 replicas of revision 1 active, 4 wanted"
    }


def test_what_was_asked_for_by_scaling_wins_over_the_file() -> None:
    deployment = a_deployment(replicas=1, desired_replicas=2)
    decision = scale.step(deployment, [], fresh=fresh_ids())
    assert decision is not None
    assert len(decision.create) == 2


def test_surplus_replicas_drain_in_termination_order() -> None:
    ill = a_route(8, health=Health.UNHEALTHY)
    loading = warming(9)
    decision = scale.step(a_deployment(replicas=2), [*fleet(3), ill, loading], fresh=fresh_ids())
    assert decision is not None
    assert [change.route.id for change in decision.routes] == [loading.id, ill.id, a_route(1).id]
    assert {change.stage for change in decision.routes} == {Stage.DRAINING}
    assert decision.routes[0].message == ("scaling in: 5 replicas of revision 1 active, 2 wanted")


def test_scaling_to_none_drains_all() -> None:
    decision = scale.step(a_deployment(desired_replicas=0), fleet(3), fresh=fresh_ids())
    assert decision is not None
    assert len(decision.routes) == 3


def test_routes_of_other_revisions_are_not_counted_nor_drained() -> None:
    """Those are eviction's, which keeps the floor."""
    strays = fleet(4, first=10, revision_id=NEW.id)
    assert scale.step(a_deployment(replicas=2), [*fleet(2), *strays], fresh=fresh_ids()) is None


@pytest.mark.parametrize("size", [0, 9])
def test_replicas_registered_by_hand_are_never_touched(size: int) -> None:
    deployment = a_deployment(current=a_revision(1, external=True))
    assert scale.step(deployment, fleet(size), fresh=fresh_ids()) is None


def test_destroying_drains_everything_active_at_once() -> None:
    deployment = a_deployment(lifecycle=Lifecycle.DESTROYING)
    leaving = a_route(8, status=RouteStatus.TERMINATING, stage=Stage.COOLING_DOWN)
    decision = destroy.step(deployment, [*fleet(2), warming(3), leaving])
    assert decision is not None
    assert len(decision.routes) == 3
    assert decision.change is None
    assert {change.traffic for change in decision.routes} == {Traffic.INACTIVE}


def test_a_deployment_is_gone_when_its_last_replica_has_ended() -> None:
    deployment = a_deployment(lifecycle=Lifecycle.DESTROYING)
    leaving = a_route(8, status=RouteStatus.TERMINATING, stage=Stage.COOLING_DOWN)
    assert destroy.step(deployment, [leaving]) is None
    ended = a_route(8, status=RouteStatus.TERMINATED)
    decision = destroy.step(deployment, [ended])
    assert decision is not None
    assert decision.change is not None
    assert decision.change.lifecycle is Lifecycle.DESTROYED


@pytest.mark.parametrize("lifecycle", [s for s in Lifecycle if s is not Lifecycle.DESTROYING])
def test_only_what_is_being_destroyed_is_destroyed(lifecycle: Lifecycle) -> None:
    """R-38."""
    assert destroy.step(a_deployment(lifecycle=lifecycle), fleet(1)) is None
