"""A plan is the rollout in advance: the same rules, in the same cycles, with the same numbers.

200 random cases; with FLEETPULSE_FULL=1 a thousand. What came of them is printed (`-s`).
"""

import os
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Final

import msgspec

from controller.model import Bound, Outcome, Policy, WeightStep
from controller.rollout.strategies import STRATEGIES
from tests.fakes.plans import Case, foretold
from tests.fakes.small_world import CYCLE_MS

CASES = 1_000 if os.environ.get("FLEETPULSE_FULL") == "1" else 200
SURGES: Final[list[Bound]] = [0, 1, 2, "25%", "50%", "100%"]
UNAVAILABLES: Final[list[Bound]] = [0, 0, 1, 2, "30%"]


def a_case(random: Random) -> Case:
    """Draw a rollout: some have room and time enough, some have not."""
    target = random.randint(0, 8)
    strategy = random.choice(list(STRATEGIES))
    second_set = strategy != "rolling"
    weights = sorted(random.sample(range(1, 100), random.randint(1, 4)))
    pause_s = random.choice([0.0, 7.0, 30.0])
    policy = Policy(
        strategy=strategy,
        surge=random.choice(SURGES),
        unavailable=random.choice(UNAVAILABLES),
        min_ready_s=random.choice([0.0, 0.0, 12.0, 60.0]),
        max_failed_replicas=random.choice([None, 0]),
        rollout_timeout_s=random.choice([40.0, 150.0, 300.0, 600.0]),
        capacity=random.choice([None, None, None, random.randint(1, 2 * target + 1)]),
        auto_promote=not second_set or random.random() < 0.8,
        promote_delay_s=random.choice([0.0, 33.0, 90.0]) if second_set else 0.0,
        scale_down_delay_s=random.choice([0.0, 60.0]) if second_set else 0.0,
        steps=tuple(WeightStep(weight_percent=w, pause_s=pause_s) for w in weights)
        if strategy == "canary"
        else (),
    )
    # A canary that turns back gives its share to the blues, be they enough or not: that is no
    # matter of a plan, and not what is asked here.
    blues_fail = strategy != "canary"
    return Case(
        target=target,
        policy=policy,
        starts_in_ms=random.choice([0, 1_000, 10_000, 12_345, 61_000, 130_000]),
        old=random.choice([None, None, None, random.randint(0 if blues_fail else target, 10)]),
        ill=random.choice([0, 0, 0, 1, 2]) if blues_fail else 0,
    )


def test_plan_is_the_run_cycle_by_cycle() -> None:
    ends: Counter[str] = Counter()
    cycles = 0
    for seed in range(CASES):
        case = a_case(Random(seed))  # noqa: S311 - a seeded draw
        planned = case.plan()
        world, seen = case.run()
        assert foretold(planned) == seen, f"seed {seed}: {case}"
        assert planned.outcome is world.outcome, f"seed {seed}: {case}"
        assert (planned.deadlock is None) == (world.outcome is Outcome.PROMOTED), f"seed {seed}"
        ends[f"{case.policy.strategy} {planned.outcome}"] += 1
        cycles += len(seen)
    print(f"{CASES} plans are their runs, {cycles} cycles: {dict(sorted(ends.items()))}")  # noqa: T201 - a result
    promoted = {each for each in ends if each.endswith("promoted")}
    assert len(promoted) == len(STRATEGIES), "the cases say nothing"


def test_time_that_a_plan_asks_for_is_enough_and_no_less_is() -> None:
    tried = 0
    for seed in range(CASES):
        case = a_case(Random(seed))  # noqa: S311 - a seeded draw
        deadlock = case.plan().deadlock
        if deadlock is None or deadlock.needs_s is None:
            continue
        tried += 1
        for less_s, suffices in ((0, True), (CYCLE_MS / 1000, False)):
            timeout_s = deadlock.needs_s - less_s
            policy = msgspec.structs.replace(case.policy, rollout_timeout_s=timeout_s)
            world, _ = replace(case, policy=policy).run()
            assert (world.outcome is Outcome.PROMOTED) == suffices, f"seed {seed}: {case}"
    assert tried >= CASES / 20, "the cases say nothing"
