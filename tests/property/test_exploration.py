"""Every state that a rollout of at most four replicas can come to, and a way out of each.

With FLEETPULSE_FULL=1 larger ones, which takes minutes.
"""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from controller.model import Outcome, Policy, SubStep, Traffic, WeightStep
from tests.fakes.exploration import ORPHAN, Life, Room, State
from tests.fakes.nouns import NEW, OLD

FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
STEPS: Final = (WeightStep(weight_percent=50, pause_s=60),)
KEPT_OUT: Final = Life(NEW.id, "ready", Traffic.INACTIVE, 0.0)
"""A replica of the new revision that an earlier rollout left without traffic."""
SUPERSEDED: Final = (
    Life(ORPHAN, "ready", Traffic.INACTIVE, 0.0),
    Life(ORPHAN, "starting", Traffic.INACTIVE, 0.0),
)
"""Greens of a rollout that was superseded."""


class Case(NamedTuple):
    """One exploration, and what an earlier rollout left behind in it."""

    room: Room
    left: tuple[Life, ...] = ()


def case(
    target: int,
    *left: Life,
    served: bool = True,
    scales_to: tuple[int, ...] = (),
    **policy: object,
) -> Case:
    made = Policy(**({"max_failed_replicas": 1} | policy))  # type: ignore[arg-type]  # fields of a policy, by name
    return Case(Room(policy=made, target=target, served=served, scales_to=scales_to), left)


def rolling(target: int, surge: int, unavailable: int, *left: Life, **given: object) -> Case:
    return case(target, *left, surge=surge, unavailable=unavailable, **given)  # type: ignore[arg-type]  # same


CASES: Final = {
    **{
        f"rolling {target}, {surge}/{unavailable}": rolling(target, surge, unavailable)
        for target, surge, unavailable in (
            (0, 1, 0),
            (1, 1, 0),
            (1, 0, 1),
            (2, 1, 0),
            (2, 2, 0),
            (2, 0, 1),
            (2, 1, 2),
            (3, 1, 0),
            (3, 0, 1),
            (3, 1, 1),
        )
    },
    "rolling, min_ready_s": rolling(2, 1, 0, min_ready_s=60),
    "rolling, first": rolling(2, 1, 0, served=False),
    "rolling, scaled": rolling(1, 1, 0, scales_to=(0, 1, 2)),
    "rolling, no room": rolling(2, 1, 0, capacity=2),
    "rolling, one for one in little room": rolling(2, 1, 1, capacity=2),
    "rolling over its own without traffic": rolling(
        2, 1, 0, Life(OLD.id, "ready", Traffic.INACTIVE, 0.0)
    ),
    "rolling over greens": rolling(2, 1, 0, KEPT_OUT, KEPT_OUT),
    "rolling over orphans": rolling(2, 1, 0, *SUPERSEDED),
    **{f"blue-green {target}": case(target, strategy="blue-green") for target in (0, 1, 2)},
    "blue-green, delay": case(1, strategy="blue-green", promote_delay_s=60),
    "blue-green, kept": case(1, strategy="blue-green", scale_down_delay_s=60),
    "blue-green, operator": case(1, strategy="blue-green", auto_promote=False),
    "blue-green, first": case(2, strategy="blue-green", served=False),
    "blue-green, scaled": case(1, strategy="blue-green", scales_to=(0, 1, 2)),
    "blue-green, no room": case(2, strategy="blue-green", capacity=3),
    "blue-green back to kept": case(1, KEPT_OUT, strategy="blue-green"),
    "blue-green over orphans": case(1, *SUPERSEDED, strategy="blue-green"),
    **{f"canary {target}": case(target, strategy="canary", steps=STEPS) for target in (0, 1, 2)},
    "canary, operator": case(1, strategy="canary", steps=STEPS, auto_promote=False),
    "canary, first": case(1, strategy="canary", steps=STEPS, served=False),
    "canary, scaled": case(1, strategy="canary", steps=STEPS, scales_to=(0, 1)),
    "canary over orphans": case(1, SUPERSEDED[0], strategy="canary", steps=STEPS),
}
LARGER: Final = {
    "rolling 2, scaled": rolling(2, 1, 0, scales_to=(0, 1, 2)),
    "blue-green 2, delay": case(2, strategy="blue-green", promote_delay_s=60),
    "blue-green 2, kept": case(2, strategy="blue-green", scale_down_delay_s=60),
    "blue-green 2, operator": case(2, strategy="blue-green", auto_promote=False),
    "blue-green 2, scaled": case(2, strategy="blue-green", scales_to=(0, 1, 2)),
    "blue-green 2 back to kept": case(2, KEPT_OUT, KEPT_OUT, strategy="blue-green"),
    "blue-green 2 over orphans": case(2, *SUPERSEDED, strategy="blue-green"),
    "canary 2, first": case(2, strategy="canary", steps=STEPS, served=False),
    "canary over all orphans": case(1, *SUPERSEDED, strategy="canary", steps=STEPS),
    "rolling 4, 1/0": rolling(4, 1, 0),
    "rolling 4, 2/1": rolling(4, 2, 1),
    "rolling 3, scaled": rolling(3, 1, 1, scales_to=(1, 2, 3, 4)),
    "blue-green 3": case(3, strategy="blue-green"),
    "blue-green 3, delay": case(3, strategy="blue-green", promote_delay_s=60),
    "blue-green 3, scaled": case(3, strategy="blue-green", scales_to=(1, 2, 3)),
    "canary 3": case(3, strategy="canary", steps=STEPS),
    "canary 2, scaled": case(2, strategy="canary", steps=STEPS, scales_to=(0, 1, 2, 3)),
}


@pytest.mark.parametrize("name", [*CASES, *(LARGER if FULL else ())])
@pytest.mark.timeout(1800 if FULL else 120)
def test_every_state_of_a_small_rollout_keeps_its_bounds_and_has_an_exit(name: str) -> None:
    """I1, I2, I4, I5, I6, R-11, R-13, R-32, R-33, R-35, R-39."""
    room, left = (CASES | LARGER)[name]
    found = room.reachable(room.beginning(*left))
    waits: Counter[str] = Counter()
    longest = 0
    for state, after in found.items():
        for broken in (*edges(room, state, after), *ends_in_time(room, state)):
            pytest.fail(f"{broken}\n{state}")
        if state.ended is None:
            cycles, waited = without_faults(room, state)
            longest = max(longest, cycles)
            waits[waited] += bool(waited)
    ended = Counter(state.ended for state in found if state.ended)
    told = [f"{outcome} {number}" for outcome, number in sorted(ended.items())]
    late = [f"{why} {number}" for why, number in sorted(waits.items()) if number]
    print(  # noqa: T201 - the figures
        f"{name}: {len(found)} states, {sum(map(len, found.values()))} edges, "
        f"ends {', '.join(told)}; without faults at most {longest} cycles"
        + (f"; wait for the deadline: {', '.join(late)}" if late else "")
    )


def edges(room: Room, state: State, after: list[State]) -> Iterator[str]:
    """Yield what is wrong with what can follow a state."""
    if state.ended is not None:
        return
    for held in (False, True):
        decided = room.decide(state, held=held)
        for broken in decision(room, state, decided.after):
            yield f"{broken}, by {set(decided.rules)}: {decided.after}"
        if held and decided.rules & {"expired", "all_failed", "cannot_restore"}:
            yield f"S15: {set(decided.rules)} while held"
    if state.phase is not SubStep.ROLLING_BACK and room.paused(state).after != state:
        yield "moved while paused"
    for each in after:
        if not {ORPHAN} & serving(state) and ORPHAN in serving(each):
            yield f"a replica of neither revision got traffic: {each}"
        if room.policy.strategy == "blue-green" and len(serving(each)) > 1:
            yield f"I4: {each}"


def decision(room: Room, state: State, after: State) -> Iterator[str]:
    """Yield what is wrong with what was decided in a state."""
    bounds = room.bounds(state)
    serve = [sum(life.serves for life in each.lives) for each in (state, after)]
    if serve[1] < min(serve[0], bounds.min_avail):
        yield f"I1: {serve[0]} with traffic became {serve[1]}, floor {bounds.min_avail}"
    if len(after.lives) > max(len(state.lives), bounds.max_total):
        yield f"I2: {len(after.lives)} active, at most {bounds.max_total}"
    if after.ended is Outcome.PROMOTED and serve[1] < state.target:
        yield f"promoted with {serve[1]} that serve"


def serving(state: State) -> set[str]:
    return {life.revision for life in state.lives if life.traffic is Traffic.ACTIVE}


def ends_in_time(room: Room, state: State) -> Iterator[str]:
    """Yield a state in which a deadline that is over is not acted on at once (I6).

    Traffic may be given to who shall have it first, in one cycle, of which the next is woken.
    """
    if state.ended is not None:
        return
    over = room.decide(state._replace(late=True, long=True))
    if over.rules & {"serve", "retreat"}:
        over = room.decide(over.after._replace(late=True, long=True))
    if over.after.ended is not None:
        return
    if state.phase is SubStep.ROLLING_BACK:
        yield f"I6: going back has no end: {over}"
    elif over.after.phase is not SubStep.ROLLING_BACK:
        yield f"I6: its deadline is over, and it goes on: {over}"


def without_faults(room: Room, state: State) -> tuple[int, str]:
    """Return in how many cycles it ends by itself, and what it would wait for its deadline for."""
    waited = ""
    seen: set[State] = set()
    for cycles in range(1000):
        if state.ended is not None:
            return cycles, waited
        if state in seen:
            assert not waited, f"the deadline does not end it: {state}"
            waited = room.waits_for(state)
            assert waited, f"nothing but its deadline ends it: {state}"
            state = state._replace(late=True, long=True)
        seen.add(state)
        state = room.fair(state, in_time=not waited)
    raise AssertionError(f"it goes on for ever: {state}")
