"""When a rollout is given up because its decisions fail, by a bug or by what the database refuses.

Pure; called by the handler `deploying` after each failure. It asks no strategy, for the one of the
rollout may be what fails: forward it turns back as the deadline does, on the way back it ends.
"""

from typing import Final

from controller.model import Decision, Deployment, Outcome, Rollout, SubStep
from controller.rollout import endings
from controller.rollout.cycle import StoodStill
from controller.rollout.table import named

ATTEMPTS_MAX: Final = 10
"""Failures in a row: 50 s where marks wake the handler every 5 s, else 5 minutes of 30 s each."""
RULE: Final = "give_up"


def give_up(
    deployment: Deployment,
    now_ms: int,
    *,
    attempts: int,
    error: str,
    held: bool,
    still: StoodStill,
) -> Decision | None:
    """Return how a rollout ends whose decisions failed `attempts` times in a row; None: not yet.

    Not while it is paused or held. `error` is what was raised last.
    """
    rollout = deployment.rollout
    if rollout is None or deployment.deploying is None or held or rollout.paused_at_ms is not None:
        return None
    over = _is_over(deployment, rollout, now_ms, still=still)
    if attempts < ATTEMPTS_MAX and not over:
        return None
    last = "the last decision" if attempts == 1 else f"the last {attempts} decisions"
    why = f"{last} failed, with {error}"
    return named(_end(deployment, rollout, why, over=over), RULE)


def _end(deployment: Deployment, rollout: Rollout, why: str, *, over: bool) -> Decision:
    if deployment.sub_step is not SubStep.ROLLING_BACK:
        outcome = Outcome.EXPIRED if over else Outcome.ROLLED_BACK
        return endings.turn_back(deployment, rollout, outcome, why=why)
    outcome = rollout.outcome or Outcome.FAILED
    if deployment.current is None or deployment.deploying is None:
        return endings.destroy(deployment, rollout, outcome, why=why)
    return endings.gone_back(
        deployment,
        rollout,
        outcome,
        given_up=deployment.deploying,
        why=f"{why}; what is left of it leaves by orphan eviction",
    )


def _is_over(deployment: Deployment, rollout: Rollout, now_ms: int, *, still: StoodStill) -> bool:
    """Tell whether the time of the phase is over: a rollout that fails ends no later (I6)."""
    began_ms, ends_ms = rollout.started_at_ms, rollout.deadline_at_ms
    if deployment.sub_step is SubStep.ROLLING_BACK:
        began_ms = deployment.phase_entered_at_ms
        ends_ms = began_ms + int(rollout.policy.rollout_timeout_s * 1000)
    return now_ms >= ends_ms + still(began_ms, now_ms)
