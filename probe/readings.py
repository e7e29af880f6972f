"""What the prober's instruments say right now, read from the plain counts at scrape time.

Called by the exposition once per scrape; walks every check once (0.3 us each).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from probe.counters import Histogram, Results
from probe.http.pool import ConnectionEvent
from probe.metrics import Buckets, Reading, Samples
from probe.reasons import OutcomeKind, Reason
from probe.scheduler import Check
from probe.stages import Prober

DEPLOYMENTS_MAX: Final = 200
"""Shown by name; the rest is summed up, so that no feed of targets can flood a scraper.

8 series each: 200 of them and all others stay below 2,000.
"""
OTHERS: Final = "(others)"


class Connections(Protocol):
    """What the wire knows of its connections."""

    @property
    def open_connections(self) -> int:
        """How many are open, idle ones included."""

    @property
    def events(self) -> Mapping[ConnectionEvent, int]:
        """What happened to them."""


@dataclass(slots=True)
class _Fleet:
    """The checks of one deployment, at one instant."""

    healthy: int = 0
    unhealthy: int = 0
    unknown: int = 0
    oldest_age_s: float = 0.0
    overdue: int = 0

    def take(self, check: Check, now: float) -> None:
        since = check.ended_at or check.next_due  # never probed: as old as its first probe is late
        age_s = now - since
        self.oldest_age_s = max(self.oldest_age_s, age_s)
        self.overdue += age_s > 2 * check.interval_s + check.timeout_s
        if check.streak.healthy:
            self.healthy += 1
        elif check.evidence_at is None:
            self.unknown += 1
        else:
            self.unhealthy += 1


@dataclass(frozen=True, slots=True)
class Readings:
    """Reads one prober; an instance is what the exposition calls."""

    prober: Prober
    connections: Connections
    partitions: int
    version: str

    def __call__(self) -> Reading:
        """Read everything."""
        return {**self._probes(), **self._fleet(), **self._self(), **self._bus()}

    def _probes(self) -> Reading:
        sweep, ledger = self.prober.sweep, self.prober.ledger
        counters, scheduler = sweep.counters, sweep.scheduler
        duration = _buckets(counters.duration)
        return {
            "probe_failures_total": {
                (reason.value,): count
                for reason, count in counters.reasons.items()
                if reason is not Reason.OK
            },
            "probe_duration_seconds": {
                (): Buckets(duration.bounds, duration.counts, duration.total, ledger.notable)
            },
            "probe_phase_seconds": _by_name(ledger.phases),
            "schedule_lag_seconds": {(): _buckets(counters.lag)},
            "probes_in_flight": {(): sweep.in_flight},
            "probe_capacity": {(): sweep.max_in_flight},
            "probes_skipped_total": {
                ("overlap",): scheduler.overlapped,
                ("late",): scheduler.missed,
            },
            "health_transitions_total": ledger.transitions,
            "connections_open": {(): self.connections.open_connections},
            "connections_total": {
                (event.value,): count for event, count in self.connections.events.items()
            },
        }

    def _fleet(self) -> Reading:
        now = self.prober.clock()
        results = self.prober.sweep.counters.deployments
        shown = {name: name for name in islice(results, DEPLOYMENTS_MAX)}
        fleets = {shown.get(name, OTHERS): _Fleet() for name in results}
        for check in self.prober.sweep.scheduler:
            fleets[shown.get(check.target.deployment, OTHERS)].take(check, now)
        ages: Samples = {(name,): fleet.oldest_age_s for name, fleet in fleets.items()}
        overdue: Samples = {(name,): fleet.overdue for name, fleet in fleets.items()}
        states: Samples = {
            (name, state): float(getattr(fleet, state))
            for name, fleet in fleets.items()
            for state in ("healthy", "unhealthy", "unknown")
        }
        return {
            "probes_total": _outcomes(results, shown),
            "oldest_result_age_seconds": ages,
            "targets": states,
            "targets_overdue": overdue,
        }

    def _self(self) -> Reading:
        ledger = self.prober.ledger
        return {
            "loop_lag_seconds": {(): _buckets(ledger.loop_lag)},
            "stage_restarts_total": _counts(ledger.restarts),
            "partitions_owned": {(): self.partitions},
            "build_info": {(self.version, "prober"): 1},
        }

    def _bus(self) -> Reading:
        ledger = self.prober.ledger
        return {
            "statuses_written_total": {(): ledger.statuses_written},
            "results_dropped_total": {(): ledger.results_dropped},
            "targets_rejected_total": _counts(ledger.rejected),
            "bus_up": {(): int(self.prober.lifeline.up)},
            "bus_operation_seconds": _by_name(ledger.operations),
            "bus_errors_total": {(): ledger.bus_errors},
        }


def _outcomes(results: Mapping[str, Results], shown: Mapping[str, str]) -> Samples:
    totals: dict[tuple[str, ...], float | Buckets] = {}
    sums: dict[str, list[int]] = {}
    for name, result in results.items():
        row = sums.setdefault(shown.get(name, OTHERS), [0, 0, 0])
        for index, count in enumerate((result.passed, result.failed, result.errors)):
            row[index] += count
    kinds = (OutcomeKind.PASSED, OutcomeKind.FAILED, OutcomeKind.PROBE_ERROR)
    for name, row in sums.items():
        totals.update({(name, kind.value): count for kind, count in zip(kinds, row, strict=True)})
    return totals


def _buckets(histogram: Histogram) -> Buckets:
    return Buckets(histogram.bounds, histogram.counts, histogram.total)


def _by_name(histograms: Mapping[str, Histogram]) -> Samples:
    return {(name,): _buckets(histogram) for name, histogram in histograms.items()}


def _counts(counts: Mapping[str, int]) -> Samples:
    return {(name,): count for name, count in counts.items()}
