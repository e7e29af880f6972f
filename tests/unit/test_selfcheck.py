"""When a prober stops believing itself, or its network."""

import pytest

from probe.health import ended
from probe.reasons import OutcomeKind, Reason
from probe.selfcheck import RIGHT_IN_A_ROW, WRONG_IN_A_ROW, Trust, excused, network_gone

WRONG = "calls good bad"


def after(trust: Trust, *mistakes: str | None) -> Trust:
    for mistake in mistakes:
        trust = trust.after(mistake)
    return trust


def test_one_wrong_verdict_is_chance_two_in_a_row_are_an_illness() -> None:
    """S7."""
    assert after(Trust(), WRONG, None, WRONG).sick is None
    assert after(Trust(), *[WRONG] * WRONG_IN_A_ROW).sick == WRONG


def test_recovery_takes_a_few_good_ones_in_a_row() -> None:
    """S7."""
    sick = after(Trust(), *[WRONG] * WRONG_IN_A_ROW)
    assert after(sick, None, None, WRONG, None, None).sick == WRONG
    assert after(sick, *[None] * RIGHT_IN_A_ROW).sick is None


def test_silence_of_one_landmark_or_of_the_landmarks_alone_is_not_ours() -> None:
    """R-66."""
    assert not network_gone([True, False], passed=0, failed=100, before=False)
    assert not network_gone([False, False], passed=100, failed=10, before=False)
    assert not network_gone([False], passed=0, failed=0, before=False)
    assert not network_gone([], passed=0, failed=100, before=False)


def test_all_silent_and_half_of_the_fleet_is_our_own_network_until_one_answers() -> None:
    """R-66."""
    assert network_gone([False, False], passed=5, failed=5, before=False)
    assert network_gone([False, False], passed=0, failed=0, before=True)
    assert not network_gone([False, True], passed=0, failed=0, before=True)


@pytest.mark.parametrize("reason", list(Reason))
def test_only_silence_is_excused(reason: Reason) -> None:
    """R-66: a replica that replied has been reached."""
    outcome = ended(reason, total_s=1.0)
    excuse = excused(outcome)
    if outcome.kind is OutcomeKind.FAILED:
        assert (excuse.kind, excuse.reason) == (OutcomeKind.PROBE_ERROR, Reason.LOCAL_NETWORK)
        assert reason.value in excuse.detail
    else:
        assert excuse is outcome


def test_a_reply_counts_even_while_the_network_is_gone() -> None:
    replied = ended(Reason.STATUS_UNEXPECTED, http_status=503)
    assert excused(replied) is replied
