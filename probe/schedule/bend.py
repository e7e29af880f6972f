"""Bends the beat for single targets, as far as the pace and its allowances let it.

Pure: used by the scheduler when a verdict is at stake, and for targets long down. What may be
bent is decided in `pace`; here it is done, and counted.
"""

from math import inf
from typing import Final

from probe.schedule.beat import Beat
from probe.schedule.pace import EDGE_FLOOR_PER_S, Allowance, Pace, edge_s
from probe.schedule.watch import RESTING, Check

SLACK_S: Final = 0.1
"""What slots and ticks may have shifted three looks by."""


class Bend:
    """One prober's extra probes and left-out ones, out of two allowances of equal share."""

    __slots__ = ("_beat", "_extras", "_pace", "_rests", "hastened", "rest_after_s", "rested")

    def __init__(self, beat: Beat, pace: Pace) -> None:
        self._beat = beat
        self._pace = pace
        self._extras = Allowance()
        self._rests = Allowance()
        self.rest_after_s = pace.backoff_after_s if pace.share else inf
        """Targets down for less are not asked about."""
        self.hastened = 0
        """Extra probes asked for at the edge of a verdict."""
        self.rested = 0
        """Turns left out of targets long down."""

    def grow(self, elapsed_s: float) -> None:
        """Let the allowances grow with the beat, by their share of its rate."""
        share = self._pace.share
        if share:
            per_s = share * self._beat.rate_per_s
            self._extras.grow(elapsed_s, per_s=max(per_s, EDGE_FLOOR_PER_S))
            self._rests.grow(elapsed_s, per_s=per_s)

    def hasten(self, check: Check, now: float) -> None:
        """Look again soon, if that is well before the next turn and the allowance has it.

        An edge interval after the start before, so that answers of any speed leave room for as
        many looks.
        """
        if check.hastened or self._extras.left < 1.0:
            return
        edge = edge_s(check.interval_s)
        took_s = (now - check.due_at) / self._beat.stretch
        wait_s = max(edge - took_s, edge / 2)
        room_s = check.cohort.due - self._beat.time(now) - wait_s
        if room_s >= edge - SLACK_S and self._extras.take():
            check.hastened = True
            self.hastened += 1
            self._beat.start_in(check, wait_s, now)

    def rest(self, check: Check, down_s: float) -> None:
        """Leave out the next turns of a target long down, as far as the allowance goes."""
        spacing = self._pace.spacing(
            down_s,
            interval_s=check.interval_s,
            timeout_s=check.timeout_s,
            stretch=self._beat.stretch,
        )
        rest = 0
        while rest < spacing - 1 and self._rests.take():
            rest += 1
        check.rest = rest
        check.spacing = rest + 1
        if rest:
            check.hold |= RESTING

    def skip(self, check: Check) -> None:
        """Leave out one turn of a target that rests."""
        check.rest -= 1
        self.rested += 1
        if not check.rest:
            check.hold &= ~RESTING
