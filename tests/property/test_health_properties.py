"""What holds for every run of outcomes."""

from collections.abc import Sequence
from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from probe.health import UNKNOWN, Outcome, Streak, Transition, ended, observe
from probe.reasons import OutcomeKind, Reason

outcomes = st.sampled_from(list(Reason)).map(ended)
thresholds = st.integers(1, 12)
streaks = st.one_of(
    st.builds(Streak, st.booleans(), st.integers(0, 20), st.just(0)),
    st.builds(Streak, st.booleans(), st.just(0), st.integers(0, 20)),
)


@given(streaks, outcomes, thresholds, thresholds)
def test_only_a_pass_improves_and_only_a_failure_worsens(
    streak: Streak, outcome: Outcome, healthy_threshold: int, max_retries: int
) -> None:
    """R-02: a failing or absent probe never improves a verdict."""
    after, transition = observe(
        streak, outcome, healthy_threshold=healthy_threshold, max_retries=max_retries
    )
    if after.healthy > streak.healthy:
        assert (outcome.kind, transition) == (OutcomeKind.PASSED, Transition.UP)
    elif after.healthy < streak.healthy:
        assert (outcome.kind, transition) == (OutcomeKind.FAILED, Transition.DOWN)
    else:
        assert transition is None


@given(st.lists(outcomes, max_size=60), thresholds, thresholds)
def test_the_counters_are_the_run_at_the_end_without_the_probers_faults(
    run: Sequence[Outcome], healthy_threshold: int, max_retries: int
) -> None:
    """R-02, R-53."""
    streak = UNKNOWN
    for outcome in run:
        streak, _ = observe(
            streak, outcome, healthy_threshold=healthy_threshold, max_retries=max_retries
        )
    evidence = [o.kind for o in reversed(run) if o.kind is not OutcomeKind.PROBE_ERROR]
    passes = sum(1 for _ in takewhile(OutcomeKind.PASSED.__eq__, evidence))
    failures = sum(1 for _ in takewhile(OutcomeKind.FAILED.__eq__, evidence))
    assert (streak.consecutive_successes, streak.consecutive_failures) == (passes, failures)
    if failures >= max_retries:
        assert not streak.healthy
    if passes >= healthy_threshold:
        assert streak.healthy


@given(st.lists(outcomes, max_size=60), st.integers(0, 60), thresholds, thresholds)
def test_a_streak_handed_over_goes_on_as_if_nothing_happened(
    run: Sequence[Outcome], cut: int, healthy_threshold: int, max_retries: int
) -> None:
    """R-62."""

    def observed(start: Streak, part: Sequence[Outcome]) -> Streak:
        for outcome in part:
            start, _ = observe(
                start, outcome, healthy_threshold=healthy_threshold, max_retries=max_retries
            )
        return start

    before = observed(UNKNOWN, run[:cut])
    seed = Streak(before.healthy, before.consecutive_failures, before.consecutive_successes)
    assert observed(seed, run[cut:]) == observed(UNKNOWN, run)
