"""Which probes in flight have waited too long: a wheel of deadlines for the few that are slow.

Pure: driven by the scheduler. Most probes end within milliseconds, so what a tick started is
first kept as it is, and looked through once, 40 ms later, while it is still in the cache; only
what has not ended by then gets an entry of its own. No timer, and no entry to take back.
"""

from collections import defaultdict, deque
from typing import Final

from probe.schedule.spread import SLOTS_PER_S
from probe.schedule.watch import IN_FLIGHT, Check

SIFT_S: Final = 0.04
"""Long enough for nearly every answer, and shorter than any timeout worth setting."""


class Deadlines:
    """The deadlines of all probes in flight. `now` must not run backwards."""

    __slots__ = ("_recent", "_slot", "_wheel")

    def __init__(self) -> None:
        self._recent: deque[tuple[float, list[Check]]] = deque()  # started, not yet sifted
        self._wheel: defaultdict[int, list[tuple[Check, float]]] = defaultdict(list)
        self._slot = 0  # slots up to this one have been emptied

    def started(self, checks: list[Check], now: float) -> None:
        """Take note of probes that start now; the list is not to be changed any more."""
        self._recent.append((now, checks))

    def overdue(self, now: float) -> list[Check]:
        """Return the checks whose deadline passed, each once.

        Never early, and at most one slot and one tick late, or `SIFT_S` after the start. An
        entry is of one probe and no other: what the next one finds in the wheel is not its own.
        """
        late: list[Check] = []
        recent = self._recent
        while recent and recent[0][0] <= now - SIFT_S:
            started_at, checks = recent.popleft()
            for check in checks:
                if check.hold & IN_FLIGHT and check.started_at == started_at:
                    self._look(check, started_at + check.first_deadline_s, now, late)
        slot, wheel = int(now * SLOTS_PER_S), self._wheel
        if slot - self._slot > len(wheel):
            slots = sorted(at for at in wheel if at <= slot)
        else:
            slots = [at for at in range(self._slot + 1, slot + 1) if at in wheel]
        for at in slots:
            for check, started_at in wheel.pop(at):
                if check.hold & IN_FLIGHT and check.started_at == started_at:
                    self._look(check, check.deadline, now, late)
        self._slot = max(slot, self._slot)
        return late

    def rearm(self, check: Check, deadline: float) -> None:
        """Look at the check in flight again at `deadline`."""
        check.deadline = deadline
        slot = max(int(deadline * SLOTS_PER_S), self._slot) + 1
        self._wheel[slot].append((check, check.started_at))

    def _look(self, check: Check, deadline: float, now: float, late: list[Check]) -> None:
        if deadline < now:
            check.deadline = deadline
            late.append(check)
        else:
            self.rearm(check, deadline)
