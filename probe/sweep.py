"""The hot loop: starts what is due, ends what is overdue, records what comes back.

Driven by `tick(now)` from the ticker, so tests drive it with a fake wire and no clock. Plain
callbacks: no task, stream or timer per probe (a task costs more than the whole probe). It must
not know HTTP, the bus, or prometheus: the flusher and the metrics read what it leaves behind.
"""

from typing import Protocol

from probe.health import Outcome
from probe.scheduler import Check


class Outcomes(Protocol):
    """Where a wire delivers: the sweep's `done`."""

    def __call__(self, check: Check, outcome: Outcome, /) -> None: ...


class Wire(Protocol):
    """How one replica is asked. `now` is monotonic seconds; no method raises."""

    done: Outcomes
    """Set by the sweep. Called exactly once for each probe that is not cancelled or forgotten."""

    @property
    def open_connections(self) -> int:
        """How many connections are open, idle ones included."""

    def start(self, check: Check, now: float) -> None:
        """Begin one probe. `done` may be called before this returns."""

    def expire(self, check: Check, now: float) -> float | None:
        """Judge a probe whose deadline passed.

        Returns None when it was ended (`done` was called with a timeout), or the monotonic time
        at which to look again: it is connected and has until `started_at + timeout_s`.
        """

    def cancel(self, check: Check) -> None:
        """End the probe in flight without an outcome: `done` is not called."""

    def forget(self, check: Check) -> None:
        """Close the check's connection, in flight or idle: its target is gone."""

    def close(self) -> None:
        """Close every connection."""
