"""How far the beat of probes may bend: faster at the edge of a verdict, slower when long down.

Pure: asked by the scheduler when a verdict is at stake. Work must not grow or shrink with the
health of the fleet (S18), so both ways are rationed by one share of all probes: when everything
flaps, or everything is down, nearly all targets simply keep their interval.
"""

from dataclasses import dataclass
from typing import Final

from probe.wire import status_ttl_s

EDGE_PART: Final = 4
EDGE_MIN_S: Final = 0.5
"""Closer together, two probes see the same instant of trouble."""
EDGE_FLOOR_PER_S: Final = 0.5
"""Extra probes that any fleet may spend: 5 % of three targets would be one in two minutes."""
BURST_S: Final = 0.1
"""Of its rate an allowance saves up this much: more in one 100 ms would be a crowd (R-61)."""
BURST_MIN: Final = 3.0
"""Or the extra probes of one interval of one target."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What an operator may set; `share` 0 keeps every target to its interval."""

    share: float = 0.05
    backoff_after_s: float = 300.0
    backoff_max: int = 2
    flush_s: float = 0.2

    def spacing(
        self, down_s: float, *, interval_s: float, timeout_s: float, stretch: float = 1.0
    ) -> int:
        """Return in how many intervals a target that is down for so long is probed once.

        Doubles with the time down, and never beyond what its status outlives:
        `3 x effective interval + timeout + flush <= status TTL`.

        >>> [Pace(backoff_max=8).spacing(s, interval_s=1, timeout_s=1) for s in (299, 300, 1200)]
        [1, 2, 8]
        >>> Pace(backoff_max=8).spacing(9000, interval_s=10, timeout_s=15)
        2
        """
        room_s = status_ttl_s(interval_s) - timeout_s - self.flush_s
        every = 1
        while (
            2 * every <= self.backoff_max
            and down_s >= self.backoff_after_s * every
            and 3 * 2 * every * stretch * interval_s <= room_s
        ):
            every *= 2
        return every


def edge_s(interval_s: float) -> float:
    """Return how soon to look again at a target whose verdict is at stake.

    >>> edge_s(10.0), edge_s(1.0)
    (2.5, 0.5)
    """
    return max(interval_s / EDGE_PART, EDGE_MIN_S)


class Allowance:
    """A token bucket: what was not spent is saved up, but hardly.

    >>> extra = Allowance()
    >>> extra.grow(1.0, per_s=1.0)
    >>> extra.take(), extra.take()
    (True, False)
    """

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0.0

    def grow(self, elapsed_s: float, *, per_s: float) -> None:
        """Let time pass."""
        if per_s:
            self.left = min(self.left + elapsed_s * per_s, max(BURST_MIN, BURST_S * per_s))

    def take(self) -> bool:
        """Spend one, if there is one."""
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True
