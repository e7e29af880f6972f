"""Canary: a second set of replicas that gets the traffic in steps."""

from dataclasses import replace

import pytest

from controller.errors import InvalidInput
from controller.model import Lifecycle, Outcome, Policy, SubStep, Traffic, WeightStep
from controller.rollout.strategies import check
from tests.fakes.nouns import NEW, OLD, a_revision, a_route
from tests.fakes.rollouts import ask_promotion, blues, go_on, greens, rules, until
from tests.fakes.small_world import SmallWorld

STEPS = (WeightStep(weight_percent=10, pause_s=60), WeightStep(weight_percent=50, pause_s=30))


def canary(target: int = 3, *, old: int | None = None, **policy: object) -> SmallWorld:
    given = {"steps": STEPS} | policy
    return SmallWorld(target, Policy(strategy="canary", **given), old=old)  # type: ignore[arg-type]  # fields of a policy, by name


def shares(world: SmallWorld) -> tuple[set[float], set[float]]:
    """Return the traffic ratios of greens and of blues."""
    return {r.traffic_ratio for r in greens(world)}, {r.traffic_ratio for r in blues(world)}


def test_the_traffic_moves_step_by_step_and_never_goes_missing() -> None:
    world = canary()
    seen: list[tuple[set[float], set[float]]] = []
    for _ in range(100):
        if world.deployment.lifecycle is not Lifecycle.DEPLOYING:
            break
        go_on(world)
        ratios = shares(world)
        if not seen or seen[-1] != ratios:
            seen.append(ratios)
        if blues(world):
            green, blue = max(ratios[0], default=0.0), min(ratios[1])
            assert green + blue == pytest.approx(1.0)
    assert world.outcome is Outcome.PROMOTED
    assert [green for green, _ in seen if green] == [{0.0}, {0.1}, {0.5}, {1.0}]
    assert world.serving() == {NEW.id}


def test_each_share_stays_for_its_pause() -> None:
    world = canary()
    until(world, "shift")
    began_ms = world.now_ms
    until(world, "shift")
    assert world.now_ms - began_ms >= 60_000
    began_ms = world.now_ms
    until(world, "promote")
    assert world.now_ms - began_ms >= 30_000


def test_a_green_that_relapses_takes_all_traffic_back() -> None:
    world = canary()
    until(world, "shift")
    world.relapse(greens(world)[0])
    world.cycle()
    assert world.serving() == {OLD.id}
    assert shares(world)[1] == {1.0}
    until(world, "shift")
    assert max(shares(world)[0]) == pytest.approx(0.1), "it begins with the first step again"


def test_greens_keep_their_traffic_where_too_few_blues_are_left() -> None:
    """I1: the floor counts both sets; what it needs of the greens stays until blues are back."""
    world = canary(3)
    until(world, "shift")
    until(world, "shift")
    ill = blues(world)[0]
    world.relapse(ill)
    world.fail(blues(world)[1])
    world.relapse(greens(world)[0])
    decision = world.cycle()
    assert decision is not None
    assert rules(decision) == {"retreat"}
    assert decision.change is not None
    assert "2 of the greens keep theirs for the floor of 3" in decision.change.message
    assert [r.traffic_ratio for r in greens(world)] == [0.0, 0.5, 0.5]
    assert {r.traffic_ratio for r in blues(world)} == {1.0}

    world.cycle()
    assert [r.traffic_ratio for r in greens(world)] == [0.0, 0.5, 0.5]
    world.advance(world.routes[ill.id])
    world.cycle()
    assert sorted(r.traffic_ratio for r in greens(world)) == [0.0, 0.0, 0.5]


def test_greens_with_unlike_shares_begin_with_the_first_step_again() -> None:
    world = canary(3)
    until(world, "shift")
    until(world, "shift")
    world.fail(blues(world)[0])
    green = greens(world)[0]
    world.relapse(green)
    world.cycle()
    assert sorted(r.traffic_ratio for r in greens(world)) == [0.0, 0.0, 0.5]
    world.advance(world.routes[green.id])
    until(world, "shift", cycles=1)
    assert shares(world) == ({0.1}, {0.9})


def test_a_green_that_relapses_takes_no_traffic_back_where_nobody_else_serves() -> None:
    """I1."""
    world = canary(old=0)
    world.deployment = replace(world.deployment, current=None)
    until(world, "shift")
    world.relapse(greens(world)[0])
    world.cycle()
    assert world.serving() == {NEW.id}


def test_no_traffic_is_given_to_a_revision_that_was_superseded() -> None:
    """I4."""
    world = canary(2)
    orphan = a_route(50, revision_id=a_revision(3).id, traffic=Traffic.INACTIVE, traffic_ratio=0.0)
    world.routes[orphan.id] = orphan
    while world.deployment.lifecycle is Lifecycle.DEPLOYING:
        go_on(world)
        assert orphan.revision_id not in world.serving()


def test_a_deployment_of_none_is_promoted_at_once() -> None:
    """R-11: there is nothing to give a share of the traffic to."""
    world = canary(0)
    until(world, "promote", cycles=1)


def test_turning_back_gives_the_traffic_back_before_anything_leaves() -> None:
    world = canary(rollout_timeout_s=60)
    until(world, "shift")
    until(world, "expired")
    assert world.deployment.sub_step is SubStep.ROLLING_BACK
    first = world.cycle()
    assert first is not None
    assert rules(first) == {"retreat"}
    assert world.serving() == {OLD.id}
    world.settle()
    assert world.outcome is Outcome.EXPIRED
    assert {(r.traffic, r.traffic_ratio) for r in blues(world)} == {(Traffic.ACTIVE, 1.0)}


def test_an_operator_who_promotes_ends_every_pause() -> None:
    world = canary()
    until(world, "shift")
    ask_promotion(world)
    until(world, "promote", cycles=1)


def test_without_auto_promote_the_last_step_waits_for_an_operator() -> None:
    world = canary(auto_promote=False)
    until(world, "await_promotion")
    assert max(shares(world)[0]) == pytest.approx(0.5)
    go_on(world, 5)
    assert world.deployment.sub_step is SubStep.AWAITING_PROMOTION
    ask_promotion(world)
    until(world, "promote", cycles=1)


def test_nothing_moves_while_it_is_paused() -> None:
    world = canary()
    until(world, "shift")
    before = shares(world)
    rollout = world.deployment.rollout
    assert rollout is not None
    paused = replace(rollout, paused_at_ms=world.now_ms)
    world.deployment = replace(world.deployment, rollout=paused)
    go_on(world, 20)
    assert shares(world) == before


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (Policy(strategy="canary"), "needs at least one"),
        (Policy(strategy="canary", steps=STEPS[::-1]), "must grow from step to step"),
        (Policy(strategy="blue-green", steps=STEPS), "moves all traffic at once"),
        (Policy(steps=STEPS), "of no use to a rolling update"),
        (Policy(promote_delay_s=5), "of no use to a rolling update"),
        (Policy(auto_promote=False), "nothing to promote"),
        (Policy(strategy="recreate"), "implemented: rolling, blue-green, canary"),
    ],
)
def test_a_policy_that_its_strategy_has_no_use_for_is_refused(policy: Policy, says: str) -> None:
    """R-26."""
    with pytest.raises(InvalidInput, match=says):
        check(policy)
