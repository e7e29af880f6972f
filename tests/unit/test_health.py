"""What a run of outcomes means."""

import pytest

from probe.health import UNKNOWN, Streak, Transition, ended, observe
from probe.reasons import REASONS, OutcomeKind, Reason

PASSED, REFUSED, NO_FDS = Reason.OK, Reason.CONNECT_REFUSED, Reason.LOCAL_FDS


def walk(
    *reasons: Reason, start: Streak = UNKNOWN, healthy_threshold: int = 1, max_retries: int = 3
) -> tuple[Streak, list[Transition | None]]:
    streak, transitions = start, []
    for reason in reasons:
        streak, transition = observe(
            streak, ended(reason), healthy_threshold=healthy_threshold, max_retries=max_retries
        )
        transitions.append(transition)
    return streak, transitions


@pytest.mark.parametrize("reason", Reason)
def test_an_outcome_takes_its_kind_from_the_reason_table(reason: Reason) -> None:
    assert ended(reason).kind is REASONS[reason].kind


def test_an_outcome_keeps_what_was_measured() -> None:
    outcome = ended(
        Reason.STATUS_UNEXPECTED,
        detail="503",
        http_status=503,
        connect_s=0.001,
        first_byte_s=0.002,
        total_s=0.003,
    )
    assert (outcome.detail, outcome.http_status) == ("503", 503)
    assert (outcome.connect_s, outcome.first_byte_s, outcome.total_s) == (0.001, 0.002, 0.003)


def test_first_pass_marks_healthy_by_default() -> None:
    streak, transitions = walk(PASSED)
    assert streak == Streak(healthy=True, consecutive_failures=0, consecutive_successes=1)
    assert transitions == [Transition.UP]


def test_healthy_threshold_asks_for_that_many_passes_in_a_row() -> None:
    streak, transitions = walk(PASSED, PASSED, REFUSED, PASSED, PASSED, PASSED, healthy_threshold=3)
    assert transitions == [None, None, None, None, None, Transition.UP]
    assert streak.consecutive_successes == 3


def test_third_failure_in_a_row_marks_unhealthy() -> None:
    """R-02."""
    streak, transitions = walk(PASSED, REFUSED, REFUSED, REFUSED)
    assert transitions == [Transition.UP, None, None, Transition.DOWN]
    assert streak == Streak(healthy=False, consecutive_failures=3, consecutive_successes=0)


def test_inside_the_retry_budget_the_previous_verdict_stays() -> None:
    """R-02."""
    streak, transitions = walk(PASSED, REFUSED, REFUSED, PASSED, REFUSED, REFUSED)
    assert streak.healthy
    assert transitions == [Transition.UP, None, None, None, None, None]


def test_a_failure_never_makes_an_unknown_replica_healthy() -> None:
    """R-02."""
    streak, transitions = walk(REFUSED)
    assert streak == Streak(healthy=False, consecutive_failures=1, consecutive_successes=0)
    assert transitions == [None]


def test_going_on_failing_is_no_further_change() -> None:
    assert walk(PASSED, REFUSED, REFUSED, max_retries=1)[1] == [
        Transition.UP,
        Transition.DOWN,
        None,
    ]


@pytest.mark.parametrize(
    "reason", [r for r in Reason if REASONS[r].kind is OutcomeKind.PROBE_ERROR]
)
def test_the_probers_own_fault_moves_no_counter(reason: Reason) -> None:
    """R-53."""
    before = Streak(healthy=True, consecutive_failures=2, consecutive_successes=0)
    streak, transitions = walk(reason, start=before)
    assert streak is before
    assert transitions == [None]


def test_a_lowered_budget_counts_at_the_next_failure() -> None:
    before = Streak(healthy=True, consecutive_failures=5, consecutive_successes=0)
    assert walk(PASSED, start=before)[0].healthy
    assert walk(NO_FDS, start=before)[0].healthy
    assert walk(REFUSED, start=before)[1] == [Transition.DOWN]
