"""How many may be taken out for good, and when that may begin again (S13, S20, S21).

Pure counting over a minute; the same numbers are counted once more in the transaction that
evicts, over what all leaders did.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.model import DeploymentId

WINDOW_MS: Final = 60_000
FLEET_PERCENT: Final = 1
DEPLOYMENT_PERCENT: Final = 10
CLOSING_S: Final = 120.0
"""So long every gate must have been clear before a HOLD is over for evictions."""
START_COVERAGE_PERCENT: Final = 95
"""A new leader takes nobody out before it has seen so much of the fleet."""
RAMP_DOUBLES_EVERY_S: Final = 60.0
RAMP_MINUTES_MAX: Final = 20
"""A million at once: no budget is larger."""


class Gate(StrEnum):
    """Why one eviction waits though there is no HOLD; safe as a metric label."""

    COLD_START = "cold_start"
    """This controller has not led for two intervals and 30 s, or has seen under 95 % (S20)."""
    CLOSING = "closing"
    """The last HOLD, the fleet's or the deployment's own, ended less than 120 s ago (S21)."""
    EVIDENCE = "evidence"
    """What the prober says at this moment is not, or not any more, that it fails."""
    SECOND_SOURCE = "second_source"
    """Nobody but one prober, over one connection, has seen it fail (S11)."""
    FLOOR = "floor"
    """It is ready, and no more are than must be (S13)."""
    NO_FLOOR = "no_floor"
    """Its deployment's strategy cannot tell how many must stay ready: nobody of it goes."""
    BUDGET = "budget"
    """As many went within the last minute as may (S13)."""
    RAMP = "ramp"
    """After a HOLD evictions begin again with one, and double each minute (S21)."""
    TRANSACTION = "transaction"
    """Something had changed when it was to be written (S14)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The health evictions of the last minute: what may go is what they leave of it (S13)."""

    spent: tuple[tuple[int, DeploymentId], ...] = ()

    def after(self, gone: Iterable[DeploymentId], *, now_ms: int) -> "Budget":
        """Return the budget with what really went now, without what is a minute old."""
        kept = tuple(entry for entry in self.spent if now_ms - entry[0] < WINDOW_MS)
        return Budget(spent=kept + tuple((now_ms, deployment_id) for deployment_id in gone))

    def spent_by(self, deployment_id: DeploymentId, *, now_ms: int) -> int:
        """Return how many went from one deployment within the last minute."""
        return sum(
            owner == deployment_id and now_ms - at_ms < WINDOW_MS for at_ms, owner in self.spent
        )

    def spent_in_all(self, *, now_ms: int) -> int:
        """Return how many went from the fleet within the last minute."""
        return sum(now_ms - at_ms < WINDOW_MS for at_ms, _ in self.spent)


def allowance(size: int, *, percent: int) -> int:
    """Return how many of `size` replicas may go within a minute: a share, and at least one.

    >>> allowance(3, percent=10), allowance(500, percent=1)
    (1, 5)
    """
    return max(1, size * percent // 100)


def fleet_allowance(running: int) -> int:
    """Return how many of the fleet's running routes may go within a minute."""
    return allowance(running, percent=FLEET_PERCENT)


def deployment_allowance(target_count: int) -> int:
    """Return how many of a deployment's replicas may go within a minute."""
    return allowance(target_count, percent=DEPLOYMENT_PERCENT)


def opening(
    clear_for_s: float, *, held_before: bool, seen_enough: bool, settle_s: float
) -> Gate | None:
    """Return why evictions have not begun, or not again; None: they may.

    `seen_enough` tells whether this controller ever saw `START_COVERAGE_PERCENT` of the fleet.

    >>> opening(29, held_before=False, seen_enough=True, settle_s=30)
    <Gate.COLD_START: 'cold_start'>
    >>> opening(60, held_before=True, seen_enough=True, settle_s=30)
    <Gate.CLOSING: 'closing'>
    >>> opening(120, held_before=True, seen_enough=True, settle_s=30)
    """
    if not seen_enough:
        return Gate.COLD_START
    if held_before:
        return Gate.CLOSING if clear_for_s < CLOSING_S else None
    return Gate.COLD_START if clear_for_s < settle_s else None


def ramp(clear_for_s: float, *, held_before: bool) -> int | None:
    """Return how many may go at once so soon after a HOLD; None: as many as the budgets allow.

    >>> [ramp(at_s, held_before=True) for at_s in (120, 179, 180, 300)]
    [1, 1, 2, 8]
    >>> ramp(120, held_before=False)
    """
    minutes = int((clear_for_s - CLOSING_S) // RAMP_DOUBLES_EVERY_S)
    if not held_before or minutes > RAMP_MINUTES_MAX:
        return None
    return 1 << max(0, minutes)
