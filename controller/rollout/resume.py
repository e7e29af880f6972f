"""How the clocks of a rollout go on after a pause: without the time it stood, HOLD counted once.

Pure; used by the verb `resume`. HOLD is taken from a clock whenever it is read, from its beginning
on, also when it fell into the pause: so only the rest of the pause moves that beginning.
"""

from dataclasses import dataclass

from controller.model import Deployment, Rollout
from controller.rollout.cycle import StoodStill


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Where they stand, for the rows."""

    deadline_at_ms: int
    phase_entered_at_ms: int


def resumed(deployment: Deployment, rollout: Rollout, now_ms: int, *, still: StoodStill) -> Clocks:
    """Return the clocks with which a paused rollout has as much time as when it was paused."""
    paused_ms = now_ms if rollout.paused_at_ms is None else min(rollout.paused_at_ms, now_ms)
    entered_ms = deployment.phase_entered_at_ms
    spent_ms = paused_ms - entered_ms - still(entered_ms, paused_ms)
    return Clocks(
        deadline_at_ms=rollout.deadline_at_ms + now_ms - paused_ms - still(paused_ms, now_ms),
        phase_entered_at_ms=_ago(now_ms, spent_ms, still=still),
    )


def _ago(now_ms: int, spent_ms: int, *, still: StoodStill) -> int:
    """Return since when `spent_ms` have passed without HOLD; each step back may meet another."""
    since_ms = now_ms - spent_ms
    while (earlier_ms := now_ms - spent_ms - still(since_ms, now_ms)) < since_ms:
        since_ms = earlier_ms
    return since_ms
