"""Blue-green: a second set of replicas, and all traffic moved to it at once."""

from dataclasses import replace

from controller.model import (
    Lifecycle,
    Outcome,
    Policy,
    Route,
    RouteStatus,
    Stage,
    SubStep,
    Traffic,
)
from tests.fakes.nouns import NEW, OLD, a_revision, a_route
from tests.fakes.rollouts import ask_promotion, blues, go_on, greens, rules, until
from tests.fakes.small_world import CYCLE_MS, SmallWorld


def blue_green(target: int = 3, *, old: int | None = None, **policy: object) -> SmallWorld:
    return SmallWorld(target, Policy(strategy="blue-green", **policy), old=old)  # type: ignore[arg-type]  # fields of a policy, by name


def test_greens_are_created_at_once_and_without_traffic() -> None:
    """R-33."""
    world = blue_green(4)
    decision = go_on(world)
    assert decision is not None
    assert len(decision.create) == 4
    assert {(new.traffic, new.traffic_ratio) for new in decision.create} == {
        (Traffic.INACTIVE, 0.0)
    }


def test_until_the_promotion_no_green_has_traffic_and_after_it_no_blue() -> None:
    world = blue_green(3)
    promoted = until(world, "promote")
    assert promoted.change is not None
    assert promoted.change.end_rollout is Outcome.PROMOTED
    assert world.serving() == {NEW.id}
    assert all(r.traffic is Traffic.ACTIVE and r.traffic_ratio == 1.0 for r in greens(world))
    assert blues(world) == []
    assert world.deployment.lifecycle is Lifecycle.READY
    assert world.deployment.current is NEW


def test_the_promotion_names_every_ready_green() -> None:
    """R-35: each is compared with what was seen, inside the transaction that promotes."""
    promoted = until(blue_green(3), "promote")
    named = {c.route.id for c in promoted.routes if c.route.revision_id == NEW.id}
    assert len(named) == 3


def test_blues_serve_to_the_last_moment() -> None:
    """I1: the ready floor is the whole first set."""
    world = blue_green(3)
    for _ in range(20):
        if world.deployment.lifecycle is Lifecycle.READY:
            break
        assert world.serving() == {OLD.id}
        assert sum(r.ready for r in blues(world)) == 3
        go_on(world)
    assert world.outcome is Outcome.PROMOTED


def test_without_auto_promote_an_operator_is_waited_for() -> None:
    world = blue_green(2, auto_promote=False)
    until(world, "await_promotion")
    assert world.deployment.sub_step is SubStep.AWAITING_PROMOTION
    decision = go_on(world, 5)
    assert decision is not None
    assert rules(decision) == {"awaiting_promotion"}
    ask_promotion(world)
    until(world, "promote", cycles=1)
    assert world.outcome is Outcome.PROMOTED


def test_a_green_that_relapses_while_an_operator_is_waited_for_is_not_promoted() -> None:
    """R-35."""
    world = blue_green(2, auto_promote=False)
    until(world, "await_promotion")
    ask_promotion(world)
    world.relapse(greens(world)[0])
    decision = world.cycle()
    assert decision is not None
    assert rules(decision) == {"relapsed"}
    assert world.serving() == {OLD.id}


def test_the_delay_counts_from_the_newest_ready_green_and_a_relapse_begins_it_anew() -> None:
    delay_s = 60
    world = blue_green(2, promote_delay_s=delay_s)
    until(world, "promote_delay")
    go_on(world, 5)
    world.relapse(greens(world)[1])
    world.cycle()
    world.advance(greens(world)[1])
    began_ms = world.now_ms
    until(world, "promote")
    assert world.now_ms - began_ms >= delay_s * 1000
    assert world.now_ms - began_ms <= delay_s * 1000 + CYCLE_MS


def test_an_operator_who_promotes_waits_for_no_delay() -> None:
    world = blue_green(2, promote_delay_s=3600)
    until(world, "promote_delay")
    ask_promotion(world)
    until(world, "promote", cycles=1)


def test_failed_greens_are_replaced_within_the_budget() -> None:
    """R-35."""
    world = blue_green(3, max_failed_replicas=1)
    go_on(world)
    world.fail(greens(world)[0])
    decision = world.cycle()
    assert decision is not None
    assert len(decision.create) == 1
    world.settle()
    assert world.outcome is Outcome.PROMOTED


def test_when_all_greens_failed_the_blues_never_knew() -> None:
    world = blue_green(3)

    def fate(route: Route) -> None:
        if route.revision_id == NEW.id and route.stage is Stage.WARMING_UP:
            world.fail(route)
        else:
            world.advance(route)

    world.settle(fate)
    assert world.outcome in {Outcome.FAILED, Outcome.ROLLED_BACK}
    assert {r.revision_id for r in world.live if r.active} == {OLD.id}
    assert world.ready == 3
    assert world.serving() == {OLD.id}


def test_kept_blues_stay_without_traffic_to_switch_back_to() -> None:
    world = blue_green(2, scale_down_delay_s=600)
    promoted = until(world, "promote")
    assert promoted.change is not None
    assert promoted.change.keep_for_s == 600
    kept = blues(world)
    assert len(kept) == 2
    assert {(r.status, r.traffic, r.traffic_ratio) for r in kept} == {
        (RouteStatus.RUNNING, Traffic.INACTIVE, 0.0)
    }
    assert all(r.ready for r in kept)


def test_switching_back_to_kept_replicas_takes_one_cycle() -> None:
    """A rollback to replicas that still run is a switch, and no new start."""
    world = blue_green(2, scale_down_delay_s=600)
    until(world, "promote")
    began = world.deployment
    back = SmallWorld(2, began.policy)
    back.deployment = replace(back.deployment, current=NEW, deploying=OLD)
    back.routes = dict(world.routes)
    back.now_ms = world.now_ms
    decision = back.cycle()
    assert decision is not None
    assert rules(decision) == {"promote"}
    assert decision.create == ()
    assert back.serving() == {OLD.id}


def test_switching_back_asks_nobody_again() -> None:
    """An operator who rolls back has promoted it by that, whatever the policy asks for."""
    world = blue_green(2, scale_down_delay_s=600, auto_promote=False, promote_delay_s=60)
    until(world, "await_promotion")
    ask_promotion(world)
    until(world, "promote")
    back = SmallWorld(2, world.deployment.policy)
    back.deployment = replace(back.deployment, current=NEW, deploying=OLD)
    rollout = back.deployment.rollout
    assert rollout is not None
    asked = replace(rollout, revision_id=OLD.id, promote_asked=True)
    back.deployment = replace(back.deployment, rollout=asked)
    back.routes, back.now_ms = dict(world.routes), world.now_ms
    decision = back.cycle()
    assert decision is not None
    assert rules(decision) == {"promote"}
    assert back.serving() == {OLD.id}


def test_nothing_moves_while_it_is_paused() -> None:
    world = blue_green(2)
    rollout = world.deployment.rollout
    assert rollout is not None
    world.deployment = replace(world.deployment, rollout=replace(rollout, paused_at_ms=1))
    decision = go_on(world, 3)
    assert decision is not None
    assert rules(decision) == {"paused"}
    assert greens(world) == []


def test_a_first_deployment_has_no_blue() -> None:
    world = blue_green(2, old=0)
    world.deployment = replace(world.deployment, current=None)
    world.settle()
    assert world.outcome is Outcome.PROMOTED
    assert world.ready == 2


def test_a_deployment_of_none_is_promoted_at_once() -> None:
    world = blue_green(0)
    world.settle()
    assert world.outcome is Outcome.PROMOTED


def test_blues_beyond_a_target_that_was_scaled_in_make_room_for_greens() -> None:
    """I2: twice the target, blues included; without room it would wait for its deadline."""
    world = blue_green(3)
    world.deployment = replace(world.deployment, desired_replicas=1)
    until(world, "make_room", cycles=1)
    assert len(blues(world)) == 1
    world.settle()
    assert world.outcome is Outcome.PROMOTED


def test_past_its_deadline_no_operator_is_waited_for() -> None:
    """I6."""
    world = blue_green(1, auto_promote=False)
    go_on(world, 3)
    assert all(green.ready for green in greens(world))
    world.now_ms += 7_200_000
    until(world, "expired", cycles=1)


def test_only_replicas_of_the_revision_before_are_kept() -> None:
    """Those of a rollout that was superseded are orphans."""
    world = blue_green(1, scale_down_delay_s=600, old=1)
    orphan = a_route(50, revision_id=a_revision(3).id, traffic=Traffic.INACTIVE, traffic_ratio=0.0)
    world.routes[orphan.id] = orphan
    world.deployment = replace(world.deployment, desired_replicas=2)
    until(world, "promote")
    assert world.routes[orphan.id].status is not RouteStatus.RUNNING


def test_too_little_room_for_a_second_set_waits_and_expires() -> None:
    world = blue_green(3, capacity=4, rollout_timeout_s=100)
    world.settle()
    assert world.outcome is Outcome.EXPIRED
    assert world.serving() == {OLD.id}
