"""A rollout that goes on after a pause has the time it had, however HOLD and the pause overlap."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations_with_replacement

import pytest

from controller.cycles import still_ms
from controller.model import Deployment, HoldSpan, Policy
from controller.rollout.cycle import Cycle
from controller.rollout.machine import look
from controller.rollout.progress import deadline
from controller.rollout.resume import resumed
from tests.fakes.nouns import DEMO, NOW_MS, a_rollout, deploying, fleet, fresh_ids

POLICY = Policy(surge=1, rollout_timeout_s=600)
PAUSED_S, RESUMED_S, SEEN_S = 100, 200, 300


def at(seconds: int) -> int:
    return NOW_MS + seconds * 1000


def hold(from_s: int, to_s: int | None) -> HoldSpan:
    to_ms = None if to_s is None else at(to_s)
    return HoldSpan(deployment_id=None, from_ms=at(from_s), to_ms=to_ms)


def seen(deployment: Deployment, at_s: int, spans: tuple[HoldSpan, ...]) -> Cycle:
    still = partial(still_ms, spans, DEMO)
    found = look(deployment, fleet(3), at(at_s), failed=0, fresh=fresh_ids(), still=still)
    assert found is not None
    return found


def times(deployment: Deployment, at_s: int, spans: tuple[HoldSpan, ...]) -> tuple[float, float]:
    """Return what is left of the rollout, and what of its phase is over, in seconds."""
    cycle = seen(deployment, at_s, spans)
    return deadline(cycle).left_s, cycle.turned_for_ms / 1000


def story(entered_s: int, spans: tuple[HoldSpan, ...]) -> Iterator[tuple[float, float]]:
    """Yield the times at the pause, at its end, and later."""
    paused = deploying(
        policy=POLICY,
        phase_entered_at_ms=at(entered_s),
        rollout=a_rollout(POLICY, paused_at_ms=at(PAUSED_S)),
    )
    yield times(paused, PAUSED_S, spans)
    assert paused.rollout is not None
    still = partial(still_ms, spans, DEMO)
    clocks = resumed(paused, paused.rollout, at(RESUMED_S), still=still)
    goes_on = replace(
        paused,
        phase_entered_at_ms=clocks.phase_entered_at_ms,
        rollout=replace(paused.rollout, paused_at_ms=None, deadline_at_ms=clocks.deadline_at_ms),
    )
    yield times(goes_on, RESUMED_S, spans)
    yield times(goes_on, SEEN_S, spans)


def test_hold_inside_a_pause_is_counted_once() -> None:
    """S15: a pause of 100 s with 40 s of HOLD in it is 100 s without progress, not 140."""
    assert [left for left, _ in story(0, (hold(120, 160),))] == [500, 500, 400]


def test_a_phase_goes_on_where_it_was() -> None:
    """S15: also when HOLD came before the pause, at its end, or twice."""
    spans = (hold(20, 30), hold(110, 115), hold(190, 195))
    assert [spent for _, spent in story(10, spans)] == [80, 80, 180]


@pytest.mark.parametrize("entered_s", [0, 50])
@pytest.mark.parametrize(
    "hold_s", [*combinations_with_replacement((0, 60, 100, 150, 200, 250), 2)], ids=str
)
def test_every_overlap_of_one_hold_with_a_pause(entered_s: int, hold_s: tuple[int, int]) -> None:
    """S15"""
    spans = (hold(*hold_s),)
    (left, spent), after, later = story(entered_s, spans)
    assert after == (left, spent)
    went_on = SEEN_S - RESUMED_S - max(0, hold_s[1] - max(hold_s[0], RESUMED_S))
    assert later == (left - went_on, spent + went_on)


def test_a_hold_that_lasts_stops_the_clocks_after_the_pause_too() -> None:
    """S15"""
    assert list(story(0, (hold(150, None),))) == [(500, 100)] * 3
