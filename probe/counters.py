"""What the sweep counts: plain integers, because the hot path pays for them a million times.

Written by the sweep alone; the metrics read them at scrape time (an instrument's bound `observe`
costs 0.7 us, an int slot 0.05 us). Must not know prometheus.
"""

from bisect import bisect_left
from collections.abc import Collection
from typing import Final

from probe.health import Outcome
from probe.reasons import OutcomeKind, Reason
from probe.scheduler import Check

DURATION_BOUNDS_S: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
LAG_BOUNDS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


_PASSED: Final = OutcomeKind.PASSED
_FAILED: Final = OutcomeKind.FAILED


class Histogram:
    """Counts by upper bound (the last slot has none) and the sum of all values, in seconds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0


class Results:
    """What the probes of one deployment came to; gone with the deployment's last check (R-67)."""

    __slots__ = ("checks", "errors", "failed", "passed")

    def __init__(self) -> None:
        self.checks = 0
        self.passed = 0
        self.failed = 0
        self.errors = 0


class Counters:
    """What the sweep knows of itself; only ever grows, but for deployments that end.

    `duration` is of probes that passed or failed. `lag` is from when a probe was due to when it
    started: loop lag and the wait for room.
    """

    __slots__ = ("_unpassed", "deployments", "duration", "lag", "passed", "stalls", "started")

    def __init__(self) -> None:
        self.started = 0
        self.passed = 0
        self.stalls = 0
        self.deployments: dict[str, Results] = {}
        self.duration = Histogram(DURATION_BOUNDS_S)
        self.lag = Histogram(LAG_BOUNDS_S)
        self._unpassed: dict[Reason, int] = {}

    @property
    def reasons(self) -> dict[Reason, int]:
        """Outcomes by reason; every reason is there."""
        return dict.fromkeys(Reason, 0) | self._unpassed | {Reason.OK: self.passed}

    def starting(self, checks: Collection[Check], now: float) -> None:
        """Count probes that start now."""
        self.started += len(checks)
        lag, bounds, total = self.lag.counts, self.lag.bounds, 0.0
        for check in checks:
            late_s = now - check.due_at
            lag[bisect_left(bounds, late_s)] += 1
            total += late_s
        self.lag.total += total

    def ended(self, outcome: Outcome, deployment: str) -> None:
        """Count one outcome of a deployment under watch."""
        results = self.deployments[deployment]
        if outcome.kind is _PASSED:
            self.passed += 1
            results.passed += 1
        else:  # hashing an enum member costs 0.15 us: only where something is wrong
            self._unpassed[outcome.reason] = self._unpassed.get(outcome.reason, 0) + 1
            if outcome.kind is not _FAILED:
                results.errors += 1
                return
            results.failed += 1
        duration = self.duration
        duration.counts[bisect_left(duration.bounds, outcome.total_s)] += 1
        duration.total += outcome.total_s

    def watch(self, deployment: str) -> None:
        """Count one more check of a deployment."""
        self.deployments.setdefault(deployment, Results()).checks += 1

    def unwatch(self, deployment: str) -> None:
        """Count one check of a deployment less; drop the deployment with the last one."""
        results = self.deployments[deployment]
        results.checks -= 1
        if not results.checks:
            del self.deployments[deployment]
