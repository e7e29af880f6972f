"""What damping may and may not do, for every run of outcomes."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.health import Outcome, ended, observe
from probe.reasons import OutcomeKind, Reason
from probe.schedule.damping import Damping, Flaps
from probe.schedule.scheduler import Check, Scheduler
from tests.fakes.entries import target

outcomes = st.sampled_from(
    [ended(r) for r in (Reason.OK, Reason.OK, Reason.CONNECT_REFUSED, Reason.LOCAL_FDS)]
)
runs = st.lists(outcomes, max_size=120)
thresholds = st.integers(1, 4)
dampings = st.builds(
    Damping,
    half_life_s=st.floats(0.5, 600.0),
    suppress=st.floats(1.0, 6.0),
    reuse=st.floats(0.1, 0.99),
    max_s=st.floats(0.1, 3600.0),
)
penalties = st.floats(0.0, 1e6)


def walk(
    run: Sequence[Outcome], damping: Damping, healthy_threshold: int, max_retries: int
) -> Iterator[tuple[Outcome, float, Check]]:
    """Probe one target once a second; yield after each outcome."""
    scheduler = Scheduler(damping=damping)
    entry = target(1, interval_s=1.0, healthy_threshold=healthy_threshold, max_retries=max_retries)
    scheduler.replace(0, [entry], now=0.0)
    (check,) = scheduler
    for second, outcome in enumerate(run, start=1):
        now = float(second)
        if not check.in_flight:
            scheduler.restart(check, now)
            scheduler.due(now, 9)
        scheduler.record(check, outcome, now)
        yield outcome, now, check
        assert scheduler.damped == check.damped


@given(runs, dampings, thresholds, thresholds)
def test_it_only_ever_keeps_a_target_from_becoming_healthy(
    run: Sequence[Outcome], damping: Damping, healthy_threshold: int, max_retries: int
) -> None:
    """R-02: never healthier than without, and a failing probe improves nothing."""
    before = False
    plain = walk(run, Damping(suppress=0.0), healthy_threshold, max_retries)
    damped = walk(run, damping, healthy_threshold, max_retries)
    for (outcome, _, without), (_, _, check) in zip(plain, damped, strict=True):
        assert check.healthy <= without.healthy
        assert (check.failures, check.successes) == (without.failures, without.successes)
        if outcome.kind is not OutcomeKind.PASSED:
            assert check.healthy <= before
        assert not (check.damped and check.healthy)
        before = check.healthy


@given(runs, dampings, thresholds, thresholds)
def test_it_ends(
    run: Sequence[Outcome], damping: Damping, healthy_threshold: int, max_retries: int
) -> None:
    """No suppression is longer than the longest, and what passes after it is healthy."""
    since: float | None = None
    for outcome, now, check in walk(run, damping, healthy_threshold, max_retries):
        if not check.damped:
            since = None
            if outcome.kind is OutcomeKind.PASSED and check.successes >= healthy_threshold:
                assert check.healthy
        elif outcome.kind is not OutcomeKind.PROBE_ERROR:
            since = now if since is None else since
            assert now - since <= damping.max_s


@given(runs, thresholds, thresholds)
def test_without_it_a_verdict_is_the_plain_rule(
    run: Sequence[Outcome], healthy_threshold: int, max_retries: int
) -> None:
    """R-02: the short cuts of the hot path agree with the rule."""
    (check,) = _one(Scheduler())
    streak = check.streak
    for outcome, _, after in walk(run, Damping(suppress=0.0), healthy_threshold, max_retries):
        streak, _ = observe(
            streak, outcome, healthy_threshold=healthy_threshold, max_retries=max_retries
        )
        assert after.streak == streak


def _one(scheduler: Scheduler) -> Scheduler:
    scheduler.replace(0, [target(1)], now=0.0)
    return scheduler


@given(dampings, penalties, st.floats(0.0, 1e5), st.floats(0.0, 1e5))
def test_a_penalty_only_decays(
    damping: Damping, penalty: float, first_s: float, more_s: float
) -> None:
    flaps = Flaps(penalty, at=0.0, until=0.0)
    assert damping.penalty(flaps, first_s + more_s) <= damping.penalty(flaps, first_s) <= penalty


@given(dampings, penalties)
@settings(max_examples=200)
def test_a_suppression_lasts_until_the_penalty_may_be_reused_or_the_longest(
    damping: Damping, penalty: float
) -> None:
    after = damping.changed(Flaps(penalty, at=0.0, until=0.0), 0.0, healthy=False)
    assert after is not None
    if after.until > 0:
        assert after.until <= damping.max_s
        left = damping.penalty(after, after.until)
        assert left == pytest.approx(damping.reuse) or after.until == damping.max_s
