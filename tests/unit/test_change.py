"""What becomes of a deployment by a decision."""

from typing import Any

import pytest

from controller.change import moved
from controller.model import Deployment, DeploymentChange, Lifecycle, Outcome, SubStep
from tests.fakes.nouns import NEW, NOW_MS, OLD, deploying

LATER_MS = NOW_MS + 5_000


def after(seen: Deployment, **given: Any) -> Deployment:  # noqa: ANN401 - any field of a change
    change = DeploymentChange(category="test", message="as the test wants", **given)
    return moved(seen, change, now_ms=LATER_MS)


def test_promoted_revision_is_current_and_the_one_before_is_kept_for_a_while() -> None:
    done = after(
        deploying(), lifecycle=Lifecycle.READY, end_rollout=Outcome.PROMOTED, keep_for_s=60
    )
    assert (done.current, done.deploying, done.rollout) == (NEW, None, None)
    assert (done.kept, done.kept_until_ms) == (OLD, LATER_MS + 60_000)


def test_nothing_is_kept_where_nobody_wants_it() -> None:
    done = after(deploying(kept=OLD), lifecycle=Lifecycle.READY, end_rollout=Outcome.PROMOTED)
    assert (done.current, done.kept, done.kept_until_ms) == (NEW, None, None)


def test_rollout_given_up_leaves_the_current_revision() -> None:
    done = after(deploying(), lifecycle=Lifecycle.READY, end_rollout=Outcome.FAILED)
    assert (done.current, done.deploying, done.rollout) == (OLD, None, None)


def test_half_a_rollout_is_left_without_ending_it() -> None:
    """R-13"""
    done = after(deploying(rollout=None), lifecycle=Lifecycle.READY)
    assert (done.current, done.deploying) == (OLD, None)


@pytest.mark.parametrize(
    ("sub_step", "restarts", "began_ms"),
    [
        (SubStep.PROVISIONING, False, NOW_MS),
        (SubStep.PROVISIONING, True, LATER_MS),
        (SubStep.PROGRESSING, False, LATER_MS),
    ],
)
def test_clock_of_the_phase_begins_with_another_phase_or_when_it_is_told_to(
    sub_step: SubStep, *, restarts: bool, began_ms: int
) -> None:
    done = after(
        deploying(), lifecycle=Lifecycle.DEPLOYING, sub_step=sub_step, restarts_clock=restarts
    )
    assert done.phase_entered_at_ms == began_ms
    assert done.rollout is not None
    assert done.version == deploying().version + 1
