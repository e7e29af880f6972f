"""What the sweep counts: plain integers, because the hot path pays for them a million times.

Written by the sweep alone; the metrics read them at scrape time (an instrument's bound `observe`
costs 0.7 us, an int slot 0.05 us). Must not know prometheus.
"""

from bisect import bisect_left
from collections.abc import Collection
from enum import IntEnum
from itertools import islice
from typing import Final

from probe.health import Outcome
from probe.reasons import OutcomeKind, Reason
from probe.scheduler import Check

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

    __slots__ = ("checks", "errors", "failed", "passed", "standings")

    def __init__(self) -> None:
        self.checks = 0
        self.standings = [0] * len(Standing)
        self.passed = 0
        self.failed = 0
        self.errors = 0


class Counters:
    """What the sweep knows of itself; only ever grows, but for deployments that end.

    `duration` is of probes that passed or failed. `lag` is from when a probe was due to when it
    started: loop lag and the wait for room; `slot_wait` is the latter, where there was any.
    """

    __slots__ = (
        "_unpassed",
        "deployments",
        "duration",
        "lag",
        "passed",
        "slot_wait",
        "stalls",
        "started",
    )

    def __init__(self) -> None:
        self.started = 0
        self.passed = 0
        self.stalls = 0
        self.deployments: dict[str, Results] = {}
        self.duration = Histogram(DURATION_BOUNDS_S)
        self.lag = Histogram(LAG_BOUNDS_S)
        self.slot_wait = Histogram(LAG_BOUNDS_S)
        self._unpassed: dict[Reason, int] = {}

    @property
    def reasons(self) -> dict[Reason, int]:
        """Outcomes by reason; every reason is there."""
        return dict.fromkeys(Reason, 0) | self._unpassed | {Reason.OK: self.passed}

    def starting(self, checks: Collection[Check], now: float, *, held: int = 0) -> None:
        """Count probes that start now, the first `held` of which have waited for room."""
        self.started += len(checks)
        if held:
            for check in islice(checks, held):
                waited_s = now - check.due_at
                self.slot_wait.counts[bisect_left(self.slot_wait.bounds, waited_s)] += 1
                self.slot_wait.total += waited_s
        self.slot_wait.counts[0] += len(checks) - held
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

    def moved(self, check: Check) -> None:
        """Count a check as what it is now: its verdict changed, or is its first."""
        standings = self.deployments[check.deployment].standings
        standings[check.standing] -= 1
        check.standing = standing_of(check)
        standings[check.standing] += 1

    def watch(self, check: Check) -> None:
        """Count one more check of its deployment."""
        results = self.deployments.setdefault(check.deployment, Results())
        results.checks += 1
        check.standing = standing_of(check)
        results.standings[check.standing] += 1

    def unwatch(self, check: Check) -> None:
        """Count one check of its deployment less; drop the deployment with the last one."""
        results = self.deployments[check.deployment]
        results.checks -= 1
        results.standings[check.standing] -= 1
        if not results.checks:
            del self.deployments[check.deployment]


def standing_of(check: Check) -> Standing:
    """Return what a check counts as now."""
    if check.streak.healthy:
        return Standing.HEALTHY
    return Standing.UNKNOWN if check.evidence_at is None else Standing.UNHEALTHY
