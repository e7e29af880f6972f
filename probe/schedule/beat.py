"""The beat of probes: which checks fall due when, evenly spread, at whatever pace.

Pure: driven by the scheduler. Checks of one interval and one phase fall due together for ever, so
they are kept as one `Cohort`, and a turn of the wheel moves a cohort, not its hundred checks.
The wheel runs on the beat's own clock: it slows down when intervals are stretched, and stands
still for what it cannot catch up with, so that neither makes starts crowd (R-61).
"""

from collections import defaultdict
from collections.abc import Iterable
from operator import itemgetter
from typing import Final, NamedTuple, TypeVar

from probe.schedule.spread import SLOTS_PER_S, Spread
from probe.schedule.watch import JOINING, Check

FIRST_PROBE_S: Final = 0.5
"""A new target is probed so soon after it is read where there is room, and whatever its interval:
with a look at the bus every 0.25 s that is well within a second of being written (P11)."""
IN_PHASE_S: Final = 1.0
"""At such an interval or less a crowd waits for its phase: anything sooner would only crowd the
start of a whole fleet (R-61)."""
FIRST_STARTS_PER_S: Final = 3000.0
"""First probes come at such a rate, regular ones included: each dials, and builds what the later
ones find: 0.13 ms. That is a third of a core, and leaves the rest to a load of many targets, which
would otherwise take all the longer for probing again and again what came first."""
HURRY_SHARE: Final = 0.05
"""Of the regular rate there is always so much room on top for first probes, and in any slot for
one: few new targets need not wait, and many do not make themselves felt."""
CATCH_UP_S: Final = 1.0
"""After a longer pause than this (a suspended machine, a stopped process) the beat goes on from
where it was: all targets get their next result later, and none of them in a crowd."""

CATCH_UP_SHARE: Final = 1.2
"""Who is late catches up by so much of the rate: all at once would be a crowd (R-61), and the next
delay."""
SAVED_S: Final = 0.025
"""What falls due in so much time may start at one tick, however late it is: so far ticks stray."""
CALM_SHARE: Final = 1.1
CALM_SAVED_S: Final = 0.015
"""The same in the first round over targets taken over: each probe dials, so that ticks stray all
the time, and a verdict is known already, so that nobody waits."""
BROUGHT_MAX: Final = 150
"""So many starts out of turn at one tick: of what waits for a first probe, 15 ms."""
ROOM_MIN: Final = 20.0
ROOM_MIN_PER_S: Final = 1000.0
"""Fewer than this are no crowd: 20 at a tick, and as many in the next 20 ms."""

_UP: Final = 1 - 1e-6
"""Rounds a start up to a slot. Most lie on one but for 1e-10 of float noise (after 10 days of
uptime), and a plain ceiling would cost these 10 ms of lag each time."""
_Entry = TypeVar("_Entry")


class Cohort:
    """The checks of one interval and one phase; `due` is their next turn, on the beat's clock."""

    __slots__ = ("checks", "due", "interval_s", "phase_slot")

    def __init__(self, interval_s: float, phase_slot: int) -> None:
        self.interval_s = interval_s
        self.phase_slot = phase_slot
        self.checks: list[Check] = []
        self.due = 0.0


class Turn(NamedTuple):
    """Checks that are due, and since when in monotonic seconds. Not to be changed."""

    due_at: float
    checks: list[Check]


class Beat:
    """All cohorts of one prober, and the few starts out of turn. `now` must not run backwards."""

    __slots__ = (
        "_brought",
        "_calm_until",
        "_cohorts",
        "_extras",
        "_now",
        "_room",
        "_slipped",
        "_slot",
        "_spread",
        "_stretch",
        "_tail",
        "_time",
        "_wheel",
        "joined_by",
        "missed",
        "rate_per_s",
        "stretch",
    )

    def __init__(self) -> None:
        self._cohorts: dict[tuple[float, int], Cohort] = {}
        self._spread = Spread()
        self._wheel: defaultdict[int, list[Cohort]] = defaultdict(list)
        self._extras: defaultdict[int, list[Check]] = defaultdict(list)
        self._slot = 0  # slots of the beat's clock up to this one have been emptied
        self._now = 0.0  # the last advance in monotonic seconds
        self._time = -1.0  # the same on the beat's clock; negative before the first
        self._stretch = 1.0  # since then
        self._slipped = 0.0  # starts that a pause took, and that are not yet a whole one
        self._tail = 0  # slots before this one have no room for first starts
        self.joined_by = 0.0
        """When the last of those that joined so far has its first start."""
        self.stretch = 1.0
        """All intervals are so many times as long (>= 1.0); takes effect at the next advance."""
        self.missed = 0
        """Starts that never were, because the prober was late."""
        self.rate_per_s = 0.0
        """Starts per second when nothing is stretched."""
        self._room = ROOM_MIN
        self._calm_until = 0.0  # in no hurry with what was taken over
        self._brought = 0  # starts out of turn since the last ones, which need no room

    @property
    def room(self) -> int:
        """How many may start now; what comes out of turn brings its own, within bounds."""
        return int(self._room) + min(self._brought, BROUGHT_MAX)

    def bring(self) -> None:
        """Make room for one that is to start again."""
        self._brought += 1

    def started(self, count: int) -> None:
        """Use up the room of so many starts."""
        brought = min(count, self._brought, BROUGHT_MAX)
        self._brought -= brought
        self._room -= count - brought

    def time(self, now: float) -> float:
        """Return what the beat's clock shows at `now`, which is not before the last advance."""
        if self._time < 0.0:
            return now
        return self._time + min(now - self._now, CATCH_UP_S) / self._stretch

    def join(self, check: Check, now: float, *, wait_s: float | None) -> None:
        """Give a check its phase and its first start.

        Its phase comes anyway. Whoever has no verdict from the bus is probed before it, within
        `FIRST_PROBE_S` or as soon as there is room; with one, after `wait_s` at the latest.
        """
        if self._time < 0.0:
            self._now = self._time = now
        time, interval_s = self.time(now), check.interval_s
        phase_slot = self._spread.take(check.replica_id, interval_s)
        cohort = self._cohorts.get((interval_s, phase_slot))
        if cohort is None:
            cohort = self._cohorts[interval_s, phase_slot] = Cohort(interval_s, phase_slot)
            cohort.due = _next_in_phase(cohort, time)
            self._wheel[max(_slot_of(cohort.due), self._slot + 1)].append(cohort)
        check.cohort = cohort
        cohort.checks.append(check)
        self.rate_per_s += 1.0 / interval_s
        first_at, slot = cohort.due, None
        if wait_s is None:
            slot = self._early(cohort, time)
        elif time + wait_s < first_at and interval_s > IN_PHASE_S:
            slot = max(_slot_of(time + wait_s), self._slot + 1)
        if slot is not None:
            check.hold |= JOINING
            self._extras[slot].append(check)
            first_at = slot / SLOTS_PER_S
        check.due_at = now + (first_at - time) * self._stretch
        self.joined_by = max(self.joined_by, check.due_at)
        if wait_s is not None:
            self._calm_until = max(self._calm_until, check.due_at + CATCH_UP_S)

    def _early(self, cohort: Cohort, time: float) -> int | None:
        """Return the slot in which a new check starts before its phase; None if it does not.

        Where the phase is long in coming each takes its phase's place in a shorter while, as
        evenly spread (R-61); who finds that full goes to the end of the crowd.
        """
        interval_s, extras = cohort.interval_s, self._extras
        per_s = self.rate_per_s * HURRY_SHARE
        slot = soonest = max(int(time * SLOTS_PER_S), self._slot) + 1
        latest = time + FIRST_PROBE_S
        if interval_s > IN_PHASE_S:
            per_s = max(per_s, FIRST_STARTS_PER_S - self.rate_per_s)
            share = cohort.phase_slot / SLOTS_PER_S / interval_s
            slot, latest = max(slot, _slot_of(time + share * FIRST_PROBE_S)), cohort.due
        elif cohort.due <= latest:
            return None
        room = max(1, int(per_s / SLOTS_PER_S))
        if len(extras.get(slot, ())) >= room:
            tail = max(self._tail, soonest)
            while len(extras.get(tail, ())) >= room:
                tail += 1
            slot = self._tail = tail
        return slot if slot < latest * SLOTS_PER_S else None

    def leave(self, checks: Iterable[Check]) -> None:
        """Take checks out; entries of their extra starts die where they lie."""
        gone = set(checks)
        for cohort in {check.cohort for check in gone}:
            cohort.checks = [check for check in cohort.checks if check not in gone]
        for check in gone:
            self._spread.give(check.cohort.phase_slot, check.interval_s)
            self.rate_per_s -= 1.0 / check.interval_s

    def start_in(self, check: Check, wait_s: float, now: float) -> None:
        """Let a check start once out of turn, after seconds of the beat's clock."""
        slot = _slot_of(self.time(now) + wait_s)
        self._extras[max(slot, self._slot + 1)].append(check)

    def advance(self, now: float) -> tuple[list[Turn], float]:
        """Return what fell due up to `now`, oldest first, and how far the beat's clock moved."""
        before = self._time if self._time >= 0.0 else now
        time = self.time(now)
        pause_s = now - self._now - CATCH_UP_S
        if pause_s > 0.0 and self._time >= 0.0:
            lost, self._slipped = divmod(
                self._slipped + self.rate_per_s * pause_s / self._stretch, 1.0
            )
            self.missed += int(lost)
        self._make_room(time - before, calm=now < self._calm_until)
        slot = int(time * SLOTS_PER_S)
        turns: list[Turn] = []
        for at, extras in _emptied(self._extras, self._slot, slot):
            self._brought += len(extras)
            for check in extras:
                check.hold &= ~JOINING
                check.hastened = False
            turns.append(Turn(now - (time - at / SLOTS_PER_S) * self._stretch, extras))
        for _, cohorts in _emptied(self._wheel, self._slot, slot):
            for cohort in cohorts:
                if cohort.checks:
                    turns.append(Turn(now - (time - cohort.due) * self._stretch, cohort.checks))
                    self._turn(cohort, time, slot)
                else:
                    del self._cohorts[cohort.interval_s, cohort.phase_slot]
        turns.sort(key=_due_at)
        self._slot = max(slot, self._slot)
        self._now, self._time, self._stretch = now, time, max(1.0, self.stretch)
        return turns, time - before

    def _make_room(self, elapsed_s: float, *, calm: bool) -> None:
        share, saved_s = CATCH_UP_SHARE, SAVED_S
        if calm:
            share, saved_s = CALM_SHARE, CALM_SAVED_S
        per_s = max(self.rate_per_s * share, ROOM_MIN_PER_S)
        most = max(self.rate_per_s * saved_s, ROOM_MIN)
        self._room = min(self._room + elapsed_s * per_s, most)

    def _turn(self, cohort: Cohort, time: float, slot: int) -> None:
        """Put a cohort where its next turn lies; turns that have passed too are missed."""
        due = cohort.due + cohort.interval_s
        if due <= time:
            passed = int((time - due) / cohort.interval_s) + 1
            self.missed += passed * len(cohort.checks)
            due += passed * cohort.interval_s
        cohort.due = due
        self._wheel[max(_slot_of(due), slot + 1)].append(cohort)


_due_at: Final = itemgetter(0)


def _slot_of(time: float) -> int:
    return int(time * SLOTS_PER_S + _UP)


def _emptied(wheel: dict[int, list[_Entry]], last: int, now: int) -> list[tuple[int, list[_Entry]]]:
    """Take the filled slots after `last` up to `now` out of a wheel, in order."""
    if now - last > len(wheel):  # after a long pause, or at the first call
        slots: Iterable[int] = sorted(slot for slot in wheel if slot <= now)
    else:
        slots = range(last + 1, now + 1)
    return [(slot, wheel.pop(slot)) for slot in slots if slot in wheel]


def _next_in_phase(cohort: Cohort, time: float) -> float:
    """Return the first instant of the cohort's phase after `time`."""
    phase_s = cohort.phase_slot / SLOTS_PER_S
    periods = (time - phase_s) // cohort.interval_s + 1
    instant = phase_s + periods * cohort.interval_s
    return instant if instant > time else instant + cohort.interval_s
