"""What the prober's instruments say right now, read from the plain counts at scrape time.

Called by the exposition once per scrape. Its cost follows the number of deployments and not that
of checks (but for those with TLS: 250 ns each): the sweep counts standings as they change, the
census finds ages a few at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from probe.http.pool import ConnectionEvent
from probe.metrics import Buckets, Reading, Samples
from probe.reasons import OutcomeKind, Reason
from probe.schedule.census import Ages, Census
from probe.schedule.counters import Histogram, Standing
from probe.stages import Prober

DEPLOYMENTS_MAX: Final = 180
"""Shown by name; the rest is summed up, so that no feed of targets can flood a scraper.

9 series each: 180 of them, all others and 300 of its own stay below 2,000.
"""
OTHERS: Final = "(others)"
_ONE_WORKER: Final[Reading] = {
    "workers": {(): 1},
    "workers_reporting": {(): 1},
    "worker_restarts_total": {(): 0},
}
"""A prober is one worker of its own; several are added up by their supervisor."""
_NO_AGES: Final = Ages()
_OUTCOMES: Final = tuple(
    kind.value for kind in (OutcomeKind.PASSED, OutcomeKind.FAILED, OutcomeKind.PROBE_ERROR)
)
_STATES: Final = tuple(standing.name.lower() for standing in Standing)
# The columns of a deployment: outcomes, standings, and two of its ages.
_OLDEST: Final = len(_OUTCOMES) + len(_STATES)
_OVERDUE: Final = _OLDEST + 1
_WIDTH: Final = _OVERDUE + 1


class Connections(Protocol):
    """What the wire knows of its connections."""

    @property
    def open_connections(self) -> int:
        """How many are open, idle ones included."""

    @property
    def max_kept(self) -> int:
        """How many of them may be kept between probes."""

    @property
    def events(self) -> Mapping[ConnectionEvent, int]:
        """What happened to them."""

    def certificate_ends(self) -> Mapping[str, float]:
        """Return by deployment when the first of its certificates ends."""


@dataclass(frozen=True, slots=True)
class Readings:
    """Reads one prober; an instance is what the exposition calls."""

    prober: Prober
    connections: Connections
    census: Census
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
            "slot_wait_seconds": {(): _buckets(counters.slot_wait)},
            "probes_in_flight": {(): sweep.in_flight},
            "probe_capacity": {(): sweep.max_in_flight},
            "probes_skipped_total": {
                ("overlap",): scheduler.overlapped,
                ("late",): scheduler.missed,
                ("rested",): scheduler.rested,
            },
            "probes_hastened_total": {(): scheduler.hastened},
            "targets_damped": {(): scheduler.damped},
            "health_transitions_total": ledger.transitions,
            "connections_open": {(): self.connections.open_connections},
            "connections_kept_max": {(): self.connections.max_kept},
            "connections_total": {
                (event.value,): count for event, count in self.connections.events.items()
            },
        }

    def _fleet(self) -> Reading:
        results = self.prober.sweep.counters.deployments
        shown = frozenset(islice(results, DEPLOYMENTS_MAX))
        rows: dict[str, list[float]] = {}
        for name, result in results.items():
            row = rows.setdefault(name if name in shown else OTHERS, [0.0] * _WIDTH)
            ages = self.census.last.ages.get(name, _NO_AGES)
            row[_OLDEST] = max(row[_OLDEST], ages.oldest_s)
            row[_OVERDUE] += ages.overdue
            counts = (result.passed, result.failed, result.errors, *result.standings)
            for index, value in enumerate(counts):
                row[index] += value
        ends: dict[tuple[str, ...], float] = {}
        for name, ends_at in self.connections.certificate_ends().items():
            label = (name if name in shown else OTHERS,)
            ends[label] = min(ends.get(label, ends_at), ends_at)
        return {
            "probes_total": _labelled(rows, _OUTCOMES, 0),
            "targets": _labelled(rows, _STATES, len(_OUTCOMES)),
            "oldest_result_age_seconds": {(name,): row[_OLDEST] for name, row in rows.items()},
            "targets_overdue": {(name,): row[_OVERDUE] for name, row in rows.items()},
            "certificate_expiry_timestamp_seconds": ends,
        }

    def _self(self) -> Reading:
        ledger, vitals = self.prober.ledger, self.prober.vitals
        return {
            "loop_lag_seconds": {(): _buckets(ledger.loop_lag)},
            "loop_busy_ratio": {(): vitals.busy},
            "probe_demand_per_second": {(): self.prober.sweep.scheduler.rate_per_s},
            "probes_per_second_possible": {(): vitals.possible_per_s},
            "interval_stretch_ratio": {(): vitals.stretch},
            "prober_full": {(): int(vitals.full)},
            "prober_sick": {(): int(self.prober.sick is not None)},
            "self_tests_total": _counts(vitals.selftests),
            "landmarks": {("up",): vitals.landmarks_up, ("down",): vitals.landmarks_down},
            "network_cut_off": {(): int(vitals.cut_off)},
            "stage_restarts_total": _counts(ledger.restarts),
            "partitions_owned": {(): self.prober.vitals.partitions_owned},
            "targets_adopted": {(): self.prober.vitals.targets_adopted},
            **_ONE_WORKER,
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


def _labelled(rows: Mapping[str, list[float]], labels: Sequence[str], start: int) -> Samples:
    return {
        (name, label): row[index]
        for name, row in rows.items()
        for index, label in enumerate(labels, start)
    }


def _buckets(histogram: Histogram) -> Buckets:
    return Buckets(histogram.bounds, histogram.counts, histogram.total)


def _by_name(histograms: Mapping[str, Histogram]) -> Samples:
    return {(name,): _buckets(histogram) for name, histogram in histograms.items()}


def _counts(counts: Mapping[str, int]) -> Samples:
    return {(name,): count for name, count in counts.items()}
