"""How much a prober takes on: by how much it stretches all intervals, and when it is full.

Pure; asked by the watch once a second. Work is probes per second times what one costs, so a
prober at 95 % of its CPU that stretches intervals by 1.3 stands at 73 %: every target is probed a
little less often, instead of some of them late. Nothing here is per target: the stretch is even.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from probe.wire import status_ttl_s

BUSY_HIGH: Final = 0.85
"""Above it lag grows faster than load: time to stretch."""
BUSY_GOAL: Final = 0.70
"""Where a stretch aims at: the 30 % of headroom that a burst or a neighbour needs."""
LAG_HIGH_S: Final = 0.25
"""Mean lag of a window's probes from when they were due."""
WINDOWS_OVER: Final = 3
"""In a row before it stretches: a load, a scrape or one stall is shorter."""
WINDOWS_UNDER: Final = 10
"""In a row before it gives back: slower, so that it does not swing."""
STEP_MAX: Final = 1.5
"""One step up at most: measured at full load, the need is only known from below."""
STEP_MIN: Final = 1.1
"""One step up at least: lag without load has no measure of what would help."""
STEP_BACK: Final = 0.8
WORTH_IT: Final = 0.98
"""A step back of less than 2 % is noise."""
WITHOUT: Final = 1.0
PROBES_PER_LIFE: Final = 3
LONG_S: Final = 20.0


class Window(NamedTuple):
    """What one second showed."""

    busy: float
    """Share in which the loop's thread ran or waited for a CPU."""
    lag_s: float
    """Mean from when its probes were due to their start."""


@dataclass(frozen=True, slots=True)
class Admission:
    """By how much intervals are stretched, and whether targets can still be taken on."""

    stretch: float = WITHOUT
    full: bool = False
    over: int = 0
    under: int = 0
    settling: int = 0
    """Windows that still show the load of before the last step."""

    def after(self, window: Window, *, ceiling: float, settle: int = 0) -> "Admission":
        """Return the decision after one more window.

        `ceiling` is the most that is allowed, `settle` how many windows a step takes to show: a
        target follows it at its next start.

        >>> late = Window(busy=0.95, lag_s=0.0)
        >>> Admission().after(late, ceiling=3).after(late, ceiling=3).stretch
        1.0
        >>> Admission(over=2).after(late, ceiling=3).stretch
        1.357
        """
        now = replace(self, stretch=min(self.stretch, ceiling))
        if self.settling > 0:
            return replace(now, settling=self.settling - 1)
        if window.busy > BUSY_HIGH or window.lag_s > LAG_HIGH_S:
            return _over(now, window.busy, ceiling, settle)
        return _under(now, window.busy, settle)


def _over(now: Admission, busy: float, ceiling: float, settle: int) -> Admission:
    if now.over + 1 < WINDOWS_OVER:
        return replace(now, over=now.over + 1, under=0)
    wish = now.stretch * min(STEP_MAX, max(busy / BUSY_GOAL, STEP_MIN))
    stretch = round(min(wish, ceiling), 3)
    return Admission(stretch, full=wish > ceiling, settling=settle)


def _under(now: Admission, busy: float, settle: int) -> Admission:
    if now.under + 1 < WINDOWS_UNDER:
        return replace(now, over=0, under=now.under + 1)
    enough = now.stretch * busy / BUSY_GOAL  # at this stretch the goal is just met
    wish = max(enough, now.stretch * STEP_BACK, WITHOUT)
    if wish > now.stretch * WORTH_IT:
        return replace(now, full=False, over=0, under=0)
    return Admission(round(wish, 3), settling=settle)


def ceiling(cadences: Iterable[tuple[float, float]], *, limit: float, flush_s: float) -> float:
    """Return the largest stretch at which no status expires between two probes.

    `cadences` are (interval, timeout) of the targets, `limit` is what the operator allows. Three
    stretched intervals, a timeout and a flush have to fit into a status's life; of an interval
    above `LONG_S` one has to, for three would leave it no room and hold back all others.

    >>> round(ceiling([(10.0, 2.0)], limit=5.0, flush_s=0.2), 3)
    3.927
    >>> round(ceiling([(60.0, 2.0)], limit=5.0, flush_s=0.2), 3)
    2.963
    """
    bounds = (
        (status_ttl_s(interval_s) - timeout_s - flush_s)
        / (interval_s * (PROBES_PER_LIFE if interval_s <= LONG_S else 1))
        for interval_s, timeout_s in cadences
    )
    return max(WITHOUT, min((limit, *bounds)))
