"""What the sweep counts: plain integers, because the hot path pays for them a million times.

Written by the scheduler and the sweep alone; the metrics read them at scrape time (an
instrument's bound `observe` costs 0.7 us, an int slot 0.05 us). Must not know prometheus.
"""

from bisect import bisect_left
from collections.abc import Mapping
from enum import IntEnum
from typing import Final, Protocol

from probe.reasons import Reason

DURATION_BOUNDS_S: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
LAG_BOUNDS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Standing(IntEnum):
    """How a check is counted."""

    UNKNOWN = 0
    """No probe has passed or failed yet."""
    HEALTHY = 1
    UNHEALTHY = 2


class Judged(Protocol):
    """What of a check says how it stands."""

    @property
    def healthy(self) -> bool:
        """The verdict."""

    @property
    def evidence_at(self) -> float | None:
        """When a probe last passed or failed."""


def standing_of(check: Judged) -> Standing:
    """Return what a check counts as now."""
    if check.healthy:
        return Standing.HEALTHY
    return Standing.UNKNOWN if check.evidence_at is None else Standing.UNHEALTHY


class Histogram:
    """Counts by upper bound (the last slot has none) and the sum of all values, in seconds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value_s: float, times: int = 1) -> None:
        """Count a value that was seen so many times."""
        self.counts[bisect_left(self.bounds, value_s)] += times
        self.total += value_s * times


class Results:
    """What the probes of one deployment came to; gone with the deployment's last check (R-67)."""

    __slots__ = ("checks", "errors", "failed", "passed", "standings")

    def __init__(self) -> None:
        self.checks = 0
        self.standings = [0] * len(Standing)
        self.passed = 0
        self.failed = 0
        self.errors = 0


class Counters:
    """What the sweep knows of itself; only ever grows, but for deployments that end.

    `duration` is of probes that passed or failed. `lag` is from when a probe was due to when the
    loop came to it, `slot_wait` from there to when there was room to start it: 0 for nearly all.
    """

    __slots__ = (
        "deployments",
        "duration",
        "lag",
        "passed",
        "slot_wait",
        "stalls",
        "started",
        "unpassed",
    )

    def __init__(self, deployments: Mapping[str, Results]) -> None:
        self.deployments = deployments
        self.started = 0
        self.passed = 0
        self.stalls = 0
        self.duration = Histogram(DURATION_BOUNDS_S)
        self.lag = Histogram(LAG_BOUNDS_S)
        self.slot_wait = Histogram(LAG_BOUNDS_S)
        self.unpassed: dict[Reason, int] = {}
        """By reason, of probes that did not pass; reasons not seen yet are absent."""

    @property
    def reasons(self) -> dict[Reason, int]:
        """Outcomes by reason; every reason is there."""
        return dict.fromkeys(Reason, 0) | self.unpassed | {Reason.OK: self.passed}
