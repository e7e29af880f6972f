"""A prober in virtual time: scheduler and sweep as they are, replicas that are a function."""

from collections import Counter
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import count

from probe.health import Outcome, ended
from probe.reasons import Reason
from probe.schedule.scheduler import Check, Scheduler
from probe.sweep import TICK_S, Sweep
from probe.wire import ReplicaProbeTarget

PASSED = ended(Reason.OK, http_status=200, first_byte_s=0.001, total_s=0.001)
REFUSED = ended(Reason.CONNECT_REFUSED, total_s=0.001)
BAD_STATUS = ended(Reason.STATUS_UNEXPECTED, http_status=503, total_s=0.001)

Behaviour = Callable[[Check, float], Outcome | None]
"""What a replica does when it is probed at a moment; None: it hangs."""


def passes(_check: Check, _now: float) -> Outcome | None:
    return PASSED


class ScriptedWire:
    """Answers after `answer_s`; the tick that follows finds the answer."""

    done: Callable[[Check, Outcome], None]

    def __init__(self, behaviour: Behaviour, *, answer_s: float = 0.001) -> None:
        self.behaviour = behaviour
        self.answer_s = answer_s
        self.starts: list[tuple[float, Check]] = []
        self._coming: list[tuple[float, int, Check, float, Outcome]] = []
        self._order = count()

    @property
    def open_connections(self) -> int:
        return 0

    def start(self, check: Check, now: float) -> None:
        self.starts.append((now, check))
        outcome = self.behaviour(check, now)
        if outcome is not None:
            heappush(self._coming, (now + self.answer_s, next(self._order), check, now, outcome))

    def arrive(self, now: float) -> None:
        """Deliver what has come, unless its probe was ended meanwhile."""
        while self._coming and self._coming[0][0] <= now:
            _, _, check, started_at, outcome = heappop(self._coming)
            if check.in_flight and check.started_at == started_at:
                self.done(check, outcome)

    def expire(self, check: Check, now: float) -> float | None:
        reason = Reason.CONNECT_TIMEOUT
        self.done(check, ended(reason, total_s=now - check.started_at))
        return None

    def cancel(self, check: Check) -> None:
        pass

    def forget(self, check: Check) -> None:
        pass

    def close(self) -> None:
        pass


class VirtualProber:
    """One sweep, its replicas, and the time that only `run` and `stall` move."""

    def __init__(
        self,
        targets: Iterable[ReplicaProbeTarget],
        *,
        scheduler: Scheduler | None = None,
        max_in_flight: int = 100_000,
        behaviour: Behaviour = passes,
    ) -> None:
        self.now = 1000.0
        self.wire = ScriptedWire(behaviour)
        self.scheduler = Scheduler() if scheduler is None else scheduler
        self.sweep = Sweep(
            self.scheduler, self.wire, clock=lambda: self.now, max_in_flight=max_in_flight
        )
        self.sweep.replace(0, targets, now=self.now)

    def run(self, seconds: float) -> list[tuple[float, Check]]:
        """Let time pass; return who started when."""
        first = len(self.wire.starts)
        for _ in range(round(seconds / TICK_S)):
            self.now += TICK_S
            self.wire.arrive(self.now)
            self.sweep.tick(self.now)
            self.sweep.take_dirty(self.sweep.dirty)
        return self.wire.starts[first:]

    def stall(self, seconds: float) -> list[tuple[float, Check]]:
        """Let the loop stand still, then tick once before any answer is read."""
        first = len(self.wire.starts)
        self.now += seconds
        self.sweep.tick(self.now)
        return self.wire.starts[first:]


def fullest(starts: Iterable[tuple[float, Check]], *, window_s: float = 0.1) -> int:
    """Count the starts of the fullest window of a run."""
    slots = Counter(round(now / TICK_S) for now, _ in starts)
    width = round(window_s / TICK_S)
    return max(sum(slots[at] for at in range(first, first + width)) for first in slots)
