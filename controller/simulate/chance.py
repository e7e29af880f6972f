"""Scenarios by chance: a seed says which fleet, which verbs, which faults.

Faults end well before the end, so that there is time in which all must become well again.
"""

from random import Random
from typing import Final

from controller.model import HealthCheck, Policy, WeightStep
from controller.simulate.scenario import Do, Fleet, Replicas, Scenario, Step, What

DURATION_S: Final = 2100.0
VERBS_UNTIL_S: Final = 800.0
FAULTS_UNTIL_S: Final = 1100.0
_TIMEOUTS_S: Final = (240.0, 420.0)


def random_scenario(seed: int) -> Scenario:
    """Make up a scenario; the same seed, the same one."""
    chance = Random(f"{seed}/scenario")  # noqa: S311 - repeatable on purpose
    names = ["chat", "search"][: chance.choice((1, 1, 2))]
    fleets = {name: _fleet(chance) for name in names}
    steps: list[Step] = []
    for name in names:
        steps += _verbs(chance, name)
    for _ in range(chance.randint(0, 4)):
        steps.append(_fault(chance, chance.choice(names)))
    controllers, probers = chance.choice((1, 2, 2, 3)), chance.choice((1, 2, 3))
    if probers == 1:  # cut off, it is believed: nobody is left to contradict it
        steps = [step for step in steps if step.do is not Do.ISOLATE]
    return Scenario(
        title=f"random, seed {seed}",
        duration_s=DURATION_S,
        controllers=controllers,
        probers=probers,
        deployments=fleets,
        steps=tuple(steps),
    )


def _fleet(chance: Random) -> Fleet:
    check = HealthCheck(
        path="/health",
        interval_s=chance.choice((5.0, 10.0)),
        max_retries=chance.choice((2, 3)),
        initial_delay_s=chance.choice((60.0, 120.0)),
    )
    return Fleet(
        replicas=chance.randint(1, 5),
        policy=_policy(chance),
        health_check=check,
        behaviour=Replicas(load_s=chance.choice((0.0, 10.0, 30.0))),
    )


def _policy(chance: Random) -> Policy:
    timeout_s = chance.choice(_TIMEOUTS_S)
    match chance.choice(("rolling", "rolling", "blue-green", "canary")):
        case "rolling":
            surge, unavailable = chance.choice((("50%", 0), (1, 0), (2, 1), (0, 1), (1, "50%")))
            return Policy(
                surge=surge,
                unavailable=unavailable,
                min_ready_s=chance.choice((0.0, 0.0, 15.0)),
                rollout_timeout_s=timeout_s,
            )
        case "blue-green":
            return Policy(
                strategy="blue-green",
                auto_promote=chance.choice((True, True, False)),
                promote_delay_s=chance.choice((0.0, 30.0)),
                scale_down_delay_s=chance.choice((0.0, 120.0)),
                rollout_timeout_s=timeout_s,
            )
        case _:
            return Policy(
                strategy="canary",
                steps=(
                    WeightStep(weight_percent=20, pause_s=20),
                    WeightStep(weight_percent=60, pause_s=20),
                ),
                rollout_timeout_s=timeout_s,
            )


def _behaviour(chance: Random) -> Replicas:
    return Replicas(
        load_s=chance.choice((0.0, 5.0, 20.0, 45.0)),
        load_spread_s=chance.choice((0.0, 20.0)),
        refused=chance.choice((0.0, 0.0, 0.0, 0.2)),
        crashing=chance.choice((0.0, 0.0, 0.0, 0.3)),
        broken=chance.choice((True, False, False, False, False)),
    )


def _verbs(chance: Random, name: str) -> list[Step]:
    steps = []
    for _ in range(chance.randint(1, 3)):
        at_s = round(chance.uniform(150, VERBS_UNTIL_S - 150), 2)
        steps.append(Step(at_s=at_s, do=Do.START, of=name, behaviour=_behaviour(chance)))
        later_s = round(at_s + chance.uniform(1, 150), 2)
        match chance.randint(0, 8):
            case 0:
                steps.append(Step(at_s=later_s, do=Do.ABORT, of=name))
            case 1:
                steps.append(Step(at_s=later_s, do=Do.ROLLBACK, of=name))
            case 2:
                steps.append(
                    Step(at_s=later_s, do=Do.SCALE, of=name, replicas=chance.randint(0, 6))
                )
            case 3:
                steps.append(Step(at_s=later_s, do=Do.PAUSE, of=name))
            case 4:
                steps.append(Step(at_s=later_s, do=Do.PROMOTE, of=name))
            case 5:
                steps.append(Step(at_s=later_s, do=Do.RETRY, of=name))
            case 6 if chance.choice((True, False, False, False)):
                steps.append(Step(at_s=later_s, do=Do.DELETE, of=name))
            case _:
                pass
    # Twice, for the first may meet a database that is away: none stays paused to the end.
    resumes = (Step(at_s=s, do=Do.RESUME, of=name) for s in (VERBS_UNTIL_S, FAULTS_UNTIL_S))
    return [*steps, *resumes]


def _fault(chance: Random, name: str) -> Step:
    for_s = round(chance.choice((chance.uniform(1, 20), chance.uniform(20, 250))), 2)
    at_s = round(chance.uniform(100, FAULTS_UNTIL_S - for_s), 2)
    do = chance.choice(_FAULTS)
    what = chance.choice(_LOST) if do is Do.LOSE else None
    by_s = 0.0
    if do is Do.STEP_CLOCK:
        what = chance.choice((What.BUS, What.DATABASE, What.CONTROLLER))
        by_s = round(chance.uniform(1, 40), 2)
        if what is not What.CONTROLLER:  # a monotonic clock never goes back
            by_s *= chance.choice((-1, 1))
    return Step(
        at_s=at_s,
        do=do,
        of=name if do in (Do.KILL, Do.HANG, Do.FLAP) else "",
        what=what,
        count=chance.randint(1, 4),
        for_s=for_s,
        by_s=by_s,
        share=chance.choice((0.5, 1.0)),
    )


_FAULTS: Final = (
    Do.KILL,
    Do.HANG,
    Do.FLAP,
    Do.LOSE,
    Do.LOSE,
    Do.LOSE,
    Do.FLUSH,
    Do.ISOLATE,
    Do.CRASH,
    Do.FREEZE,
    Do.CLONE,
    Do.STEP_CLOCK,
)
_LOST: Final = (
    What.BUS, What.DATABASE, What.PROBERS, What.PROBER, What.PROVISIONER, What.PROXY,
)  # fmt: skip
