"""What holds for every rollout, whatever becomes of its replicas."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.model import Health, Lifecycle, Outcome, Policy, Route, RouteStatus, SubStep
from controller.rollout.counting import bounds_back, steps, tally
from controller.rollout.strategies import bounds_of
from tests.fakes.nouns import NEW, NOW_MS, OLD, a_route, warming
from tests.fakes.small_world import SmallWorld

bounds = st.one_of(st.integers(0, 8), st.integers(0, 100).map("{}%".format))
targets = st.integers(0, 8)
policies = st.builds(
    Policy,
    surge=bounds,
    unavailable=bounds,
    min_ready_s=st.sampled_from([0.0, 0.0, 12.0]),
    max_failed_replicas=st.one_of(st.none(), st.integers(0, 5)),
    rollout_timeout_s=st.sampled_from([100.0, 600.0]),
)


class Fate(NamedTuple):
    """What becomes of the n-th live replica."""

    which: int
    what: str


fates = st.builds(
    Fate,
    st.integers(0, 30),
    st.sampled_from(["advance", "advance", "advance", "fail", "unhealthy", "degraded"]),
)
operator = st.sampled_from([None, None, None, None, "hold", "release", "abort", "more", "fewer"])
lives = st.lists(st.tuples(operator, st.lists(fates, max_size=8)), max_size=30)


def befall(world: SmallWorld, fate: Fate) -> None:
    if not world.live:
        return
    route = world.live[fate.which % len(world.live)]
    doing: dict[str, Callable[[], None]] = {
        "advance": lambda: world.advance(route),
        "fail": lambda: world.fail(route),
        "unhealthy": lambda: world.relapse(route),
        "degraded": lambda: world.relapse(route, Health.DEGRADED),
    }
    doing[fate.what]()


def order(world: SmallWorld, verb: str | None) -> None:
    of = world.deployment
    match verb:
        case "hold" | "release":
            world.held = verb == "hold"
        case "more" | "fewer":
            wanted = max(0, of.target_count + (1 if verb == "more" else -1))
            world.deployment = replace(of, desired_replicas=wanted)
        case "abort" if of.lifecycle is Lifecycle.DEPLOYING and of.current is not None:
            entered = world.now_ms
            world.deployment = replace(
                of, sub_step=SubStep.ROLLING_BACK, phase_entered_at_ms=entered
            )
        case _:
            return


@settings(max_examples=300, deadline=None)
@given(
    target=targets,
    policy=policies,
    old=st.integers(0, 10),
    served_before=st.booleans(),
    life=lives,
)
def test_a_rollout_keeps_its_bounds_whatever_happens_and_ends_when_faults_stop(
    target: int,
    policy: Policy,
    old: int,
    *,
    served_before: bool,
    life: Sequence[tuple[str | None, list[Fate]]],
) -> None:
    """I1, I2, I5 are asserted by the world at each decision; I6, I12: it ends, R-11, R-32, R-39."""
    world = SmallWorld(target, policy, old=old if served_before else 0)
    if not served_before:
        world.deployment = replace(world.deployment, current=None)
    for verb, befalling in life:
        order(world, verb)
        world.cycle()
        for fate in befalling:
            befall(world, fate)
    world.held = False
    world.settle()
    assert world.deployment.rollout is None
    if world.deployment.lifecycle is Lifecycle.DESTROYED:
        assert not served_before
        assert world.live == []
        return
    assert_at_rest(world)


def assert_at_rest(world: SmallWorld) -> None:
    """Faults are over: what is left converges to the target count of the current revision (I12)."""
    current = NEW if world.outcome is Outcome.PROMOTED else OLD
    assert world.deployment.current == current
    if world.outcome is Outcome.FAILED and world.deployment.current == OLD:
        return  # rolling back ran out of time; eviction takes the others out
    for _ in range(8):
        world.cycle()
        for route in world.live:
            world.advance(route)
    mine = [route for route in world.live if route.active]
    assert {route.revision_id for route in mine} <= {current.id}
    assert world.ready == len(mine) == world.deployment.target_count


@settings(max_examples=100, deadline=None)
@given(target=targets, policy=policies)
def test_without_faults_every_policy_promotes(target: int, policy: Policy) -> None:
    """R-11: however many cycles it takes, as long as the deadline allows them."""
    patient = Policy(
        surge=policy.surge,
        unavailable=policy.unavailable,
        min_ready_s=policy.min_ready_s,
        max_failed_replicas=0,
    )
    world = SmallWorld(target, patient)
    world.settle()
    assert world.outcome is Outcome.PROMOTED
    assert world.ready == world.active == target


some_routes = st.lists(
    st.builds(
        lambda revision, health, serving: (revision, health, serving),
        st.sampled_from([OLD, NEW]),
        st.sampled_from(Health),
        st.booleans(),
    ),
    max_size=20,
).map(
    lambda drawn: [
        (a_route if serving else warming)(number, revision_id=revision.id, health=health)
        for number, (revision, health, serving) in enumerate(drawn)
    ]
)


@given(routes=some_routes, target=targets, policy=policies, back=st.booleans())
def test_from_any_state_one_cycle_stays_within_its_bounds(
    routes: list[Route], target: int, policy: Policy, *, back: bool
) -> None:
    """I1, I2, R-32: also from states no rollout of ours would reach."""
    limits = bounds_of(policy, target)
    assert limits.surge > 0 or limits.unavailable > 0, "R-31"
    limits = bounds_back(limits) if back else limits
    wanted = OLD if back else NEW
    counted = tally(routes, wanted.id, now_ms=NOW_MS, min_ready_s=0.0)
    found = steps(counted, limits)
    active = sum(route.active for route in routes)
    assert active + found.create <= max(active, limits.max_total), "I2"
    drained = sum(route.ready for route in found.drain)
    ready = sum(route.ready for route in routes)
    assert ready - drained >= min(ready, limits.min_avail), "I1"
    assert all(route.revision_id != wanted.id for route in found.drain)
    dead = [r for r in routes if r.revision_id != wanted.id and not r.ready]
    assert set(dead) <= set(found.drain), "R-32: what serves nobody goes outside the budget"
    if ready and not counted.ready_wanted and drained == ready:
        assert limits.unavailable >= target, "R-32: the last ready one"
    if found.complete:
        assert (found.create, found.drain) == (0, ())
        assert sum(r.status is RouteStatus.RUNNING for r in counted.wanted) >= target
