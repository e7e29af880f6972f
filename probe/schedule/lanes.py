"""Who starts when not all can: each deployment in turn, and none with all the room.

Pure: used by the scheduler only while something has to wait. A deployment may have as many probes
in flight as a multiple of the room that is free ("dynamic thresholds", Choudhury and Hahne 1998):
one with ten thousand black holes stops at its share, a second one like it at a bit less, and
there always is room for the rest. It costs no list of who is over his share, and O(1) per probe.
"""

from collections import deque
from math import inf
from typing import Final

from probe.schedule.counters import Standing, standing_of
from probe.schedule.watch import REMOVED, WAITING, Check, Lane

SHARE: Final = 0.75
"""Of all probes in flight; of two greedy deployments each gets 43 %, of three 30 %, and so on."""


def count(check: Check) -> None:
    """Count a check as what it is now: its verdict changed, or is its first."""
    standings = check.lane.standings
    standings[check.standing] -= 1
    check.standing = standing_of(check)
    standings[check.standing] += 1


class Lanes:
    """The deployments under watch, and those with probes that wait.

    `share` is what one deployment gets at most of the probes in flight while there are others.
    """

    __slots__ = ("_per_free", "_ring", "by_name")

    def __init__(self, share: float) -> None:
        self.by_name: dict[str, Lane] = {}
        self._ring: deque[Lane] = deque()  # each lane in which something waits, once
        self._per_free = share / (1.0 - share) if share < 1.0 else inf

    def __len__(self) -> int:
        """Count the checks that wait."""
        return sum(len(lane.waiting) for lane in self._ring)

    def join(self, deployment: str) -> Lane:
        """Return the lane of one more check."""
        lane = self.by_name.get(deployment)
        if lane is None:
            lane = self.by_name[deployment] = Lane()
        lane.checks += 1
        lane.standings[Standing.UNKNOWN] += 1
        return lane

    def leave(self, check: Check) -> None:
        """Take a check out; the last one takes the lane with it (R-67)."""
        lane = check.lane
        lane.checks -= 1
        lane.standings[check.standing] -= 1
        if not lane.checks:
            del self.by_name[check.target.deployment]

    def fit(self, more: int, *, in_flight: int, free: float) -> bool:
        """Tell whether so many may start without a look at whose they are.

        While all that is in flight would be less than one deployment may have, nobody can have
        too much.
        """
        return not self._ring and in_flight + more <= self._most(free - more)

    def wait(self, check: Check, now: float) -> None:
        """Let a check wait for its turn."""
        check.hold |= WAITING
        lane = check.lane
        if not lane.waiting:
            self._ring.append(lane)
        lane.waiting.append((check, now))

    def serve(self, limit: int, free: float) -> list[tuple[Check, float]]:
        """Take out at most `limit` that may start, lane by lane, with when their wait began."""
        ring, served = self._ring, list[tuple[Check, float]]()
        passed_over = 0  # lanes in a row that have all they may have
        while ring and passed_over < len(ring) and len(served) < limit:
            lane = ring.popleft()
            if lane.in_flight >= max(1.0, self._most(free)):
                ring.append(lane)
                passed_over += 1
                continue
            passed_over = 0
            check, since = lane.waiting.popleft()
            if lane.waiting:
                ring.append(lane)
            check.hold &= ~WAITING
            if not check.hold & REMOVED:
                lane.in_flight += 1
                free -= 1
                served.append((check, since))
        return served

    def _most(self, free: float) -> float:
        """Return how many probes one deployment may have in flight with so much room left."""
        return free * self._per_free if len(self.by_name) > 1 else inf
