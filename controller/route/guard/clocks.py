"""Whether the clocks can be trusted, and how long nothing could be observed.

Everything here is decided over deltas: no instant of one clock is ever compared with one of
another. Called by the observer (S19) and by the handler of rollouts (S15).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controller.model import DeploymentId, HoldSpan

DISAGREEMENT_MAX_S: Final = 5.0
HELD_LOOKS: Final = 2
"""A step is over after the look that saw it and the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """What the clocks showed at one look, each with this process's monotonic time beside it."""

    database_s: float
    database_at_s: float
    bus_s: float | None
    """None: the bus did not answer."""
    bus_at_s: float


def disagreement_s(before: ClockReading, now: ClockReading) -> float:
    """Return by how much the clocks differ on the time that passed between two looks.

    >>> calm = ClockReading(database_s=100, database_at_s=5, bus_s=70, bus_at_s=5)
    >>> later = ClockReading(database_s=110, database_at_s=15, bus_s=200, bus_at_s=15)
    >>> disagreement_s(calm, later)
    120
    """
    database = (now.database_s - before.database_s) - (now.database_at_s - before.database_at_s)
    if before.bus_s is None or now.bus_s is None:
        return abs(database)
    bus = (now.bus_s - before.bus_s) - (now.bus_at_s - before.bus_at_s)
    return max(abs(database), abs(bus), abs(database - bus))


def jumped_over(before: ClockReading, now: ClockReading) -> HoldSpan | None:
    """Return the time that the database's clock left out between two looks; None: none.

    Nobody lived through it, so no stay and no deadline may count it.

    >>> calm = ClockReading(database_s=100, database_at_s=5, bus_s=None, bus_at_s=5)
    >>> later = ClockReading(database_s=3710, database_at_s=15, bus_s=None, bus_at_s=15)
    >>> jumped_over(calm, later)
    HoldSpan(deployment_id=None, from_ms=110000, to_ms=3710000)
    >>> jumped_over(later, later)
    """
    expected_s = before.database_s + now.database_at_s - before.database_at_s
    if now.database_s - expected_s <= DISAGREEMENT_MAX_S:
        return None
    from_ms, to_ms = int(expected_s * 1000), int(now.database_s * 1000)
    return HoldSpan(deployment_id=None, from_ms=from_ms, to_ms=to_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockGuard:
    """The last reading, and how many looks a step still holds."""

    last: ClockReading | None = None
    held_looks: int = 0

    @property
    def agree(self) -> bool:
        """Tell whether nothing has stepped lately."""
        return self.held_looks == 0

    def after(self, reading: ClockReading) -> "ClockGuard":
        """Return the guard after one more look."""
        stepped = self.last is not None and disagreement_s(self.last, reading) > DISAGREEMENT_MAX_S
        left = HELD_LOOKS if stepped else max(0, self.held_looks - 1)
        return ClockGuard(last=reading, held_looks=left)


def stood_still_ms(
    spans: Iterable[HoldSpan], deployment_id: DeploymentId, *, since_ms: int, until_ms: int
) -> int:
    """Return for how long HOLD, of the fleet or of this deployment, stopped its clocks (S15).

    >>> one = DeploymentId("one")
    >>> spans = [
    ...     HoldSpan(deployment_id=None, from_ms=0, to_ms=40),
    ...     HoldSpan(deployment_id=one, from_ms=30, to_ms=60),
    ...     HoldSpan(deployment_id=DeploymentId("two"), from_ms=0, to_ms=90),
    ...     HoldSpan(deployment_id=None, from_ms=90, to_ms=None),
    ... ]
    >>> stood_still_ms(spans, one, since_ms=10, until_ms=100)
    60
    """
    total, reached = 0, since_ms
    ours = (span for span in spans if span.deployment_id in (None, deployment_id))
    for span in sorted(ours, key=lambda span: span.from_ms):
        end_ms = until_ms if span.to_ms is None else min(span.to_ms, until_ms)
        begin_ms = max(span.from_ms, reached)
        if end_ms > begin_ms:
            total += end_ms - begin_ms
            reached = end_ms
    return total
