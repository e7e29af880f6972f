"""What the sweep counts: plain integers, because the hot path pays for them a million times.

Written by the sweep alone; the metrics read them at scrape time (an instrument's bound `observe`
costs 0.7 us, an int slot 0.05 us). Must not know prometheus.
"""

from bisect import bisect_left
from typing import Final

from probe.reasons import Reason

DURATION_BOUNDS_S: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
LAG_BOUNDS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Histogram:
    """Counts by upper bound, the last one without; an int slot costs a tenth of an instrument."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Results:
    """What the probes of one deployment came to; gone with the deployment's last check."""

    __slots__ = ("checks", "errors", "failed", "passed")

    def __init__(self) -> None:
        self.checks = 0
        self.passed = 0
        self.failed = 0
        self.errors = 0


class Counters:
    """What the sweep knows of itself; read by the metrics at scrape time, never reset."""

    __slots__ = ("deployments", "duration", "lag", "passed", "reasons", "stalls", "started")

    def __init__(self) -> None:
        self.started = 0
        self.passed = 0
        self.reasons: dict[Reason, int] = dict.fromkeys(Reason, 0)
        """Outcomes by reason; `OK` stays 0, it is `passed`."""
        self.deployments: dict[str, Results] = {}
        self.duration = Histogram(DURATION_BOUNDS_S)
        self.lag = Histogram(LAG_BOUNDS_S)
        """From when a probe was due to when it started: loop lag and the wait for room."""
        self.stalls = 0
