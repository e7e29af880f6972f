"""The prober's instruments, in one list, and how plain numbers become an exposition.

Nothing here counts: the hot path counts in plain ints, and `Exposition` asks for a `Reading` of
them at each scrape (a bound `inc` costs 0.3 us, an int slot 0.05). Label values come from closed
sets and deployments alone; a series ends with the entry it is read from (R-67). Knows neither
sweep nor bus: `probe.readings` makes the reading.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Final, NamedTuple, assert_never

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

PREFIX: Final = "fleetpulse_"


class Kind(StrEnum):
    """What an instrument measures with."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(StrEnum):
    """What a gauge of several workers comes to; counters and histograms are added up."""

    SUM = "sum"
    MOST = "most"
    LEAST = "least"


class Instrument(NamedTuple):
    """One metric, without its prefix; a counter's name ends in `_total`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    merge: Merge = Merge.SUM


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_MOST, _LEAST = Merge.MOST, Merge.LEAST

INSTRUMENTS: Final = (
    Instrument("probes_total", _C, "Probes ended.", ("deployment", "outcome")),
    Instrument("probe_failures_total", _C, "Probes that did not pass.", ("reason",)),
    Instrument("probe_duration_seconds", _H, "From start to end of passed and failed probes."),
    Instrument("probe_phase_seconds", _H, "Where the time of a probe went.", ("phase",)),
    Instrument("schedule_lag_seconds", _H, "From when a probe was due to its start."),
    Instrument("slot_wait_seconds", _H, "From when a probe was due until there was room for it."),
    Instrument("loop_lag_seconds", _H, "How late the event loop ran the ticker."),
    Instrument("probes_in_flight", _G, "Probes on the wire now."),
    Instrument("probe_capacity", _G, "Probes that may be on the wire at once."),
    Instrument("probes_skipped_total", _C, "Starts that never were.", ("cause",)),
    Instrument("probes_hastened_total", _C, "Extra probes at the edge of a verdict."),
    Instrument("targets_damped", _G, "Targets that changed too often to be called healthy yet."),
    Instrument("connections_open", _G, "Connections to replicas, idle ones included."),
    Instrument("connections_total", _C, "What happened to connections.", ("event",)),
    Instrument(
        "oldest_result_age_seconds", _G, "Age of the oldest last result.", ("deployment",), _MOST
    ),
    Instrument("targets", _G, "Targets by verdict.", ("deployment", "state")),
    Instrument(
        "targets_overdue",
        _G,
        "Targets without a result for two intervals and a timeout.",
        ("deployment",),
    ),
    Instrument(
        "certificate_expiry_timestamp_seconds",
        _G,
        "When the first of the verified certificates of a deployment's targets ends; Unix seconds.",
        ("deployment",),
        _LEAST,
    ),
    Instrument("health_transitions_total", _C, "Verdict changes.", ("from", "to")),
    Instrument("statuses_written_total", _C, "Statuses written to the bus."),
    Instrument("results_dropped_total", _C, "Results too old to be written."),
    Instrument("targets_rejected_total", _C, "Target entries that cannot be used.", ("reason",)),
    Instrument(
        "bus_up",
        _G,
        "1 while the bus answers, 0 while the prober goes on from memory.",
        merge=_LEAST,
    ),
    Instrument("bus_operation_seconds", _H, "Operations on the bus.", ("op",)),
    Instrument("bus_errors_total", _C, "Operations on the bus that failed."),
    Instrument("stage_restarts_total", _C, "Stages started again after a fault.", ("stage",)),
    Instrument("partitions_owned", _G, "Partitions this prober watches."),
    Instrument(
        "targets_adopted", _G, "Targets of another prober's partitions, watched as it does not."
    ),
    Instrument(
        "loop_busy_ratio", _G, "Share of time the event loop ran or waited for a CPU.", merge=_MOST
    ),
    Instrument("probe_demand_per_second", _G, "Probes a second that the targets ask for."),
    Instrument(
        "probes_per_second_possible",
        _G,
        "Probes a second that this CPU allows, by what one costs now; 0 while it is not known.",
    ),
    Instrument(
        "interval_stretch_ratio",
        _G,
        "What every interval is multiplied with; 1 is as asked.",
        merge=_MOST,
    ),
    Instrument(
        "prober_full", _G, "1 while no new target is taken on, for want of CPU.", merge=_MOST
    ),
    Instrument(
        "prober_sick",
        _G,
        "1 while the prober does not trust itself and writes nothing.",
        merge=_MOST,
    ),
    Instrument("self_tests_total", _C, "The prober's probes of itself.", ("outcome",)),
    Instrument("landmarks", _G, "Reference targets, by whether they answer.", ("state",), _MOST),
    Instrument(
        "network_cut_off",
        _G,
        "1 while our own network is gone and silence is no evidence.",
        merge=_MOST,
    ),
    Instrument("connections_kept_max", _G, "Connections that may be kept between probes."),
    Instrument("workers", _G, "Worker processes that this supervisor keeps."),
    Instrument("workers_reporting", _G, "Workers whose figures are in this answer."),
    Instrument("worker_restarts_total", _C, "Workers started again after they ended."),
    Instrument(
        "build_info", _G, "1; what runs here is in the labels.", ("version", "component"), _MOST
    ),
)


class Notable(NamedTuple):
    """The last probe worth a look in one bucket: shown as an exemplar, never as a label."""

    replica_id: str
    value_s: float
    at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """One histogram as it is read: counts per bound, the last one beyond every bound."""

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float
    notable: Mapping[int, Notable] | None = None
    """By the index of its count."""


Samples = Mapping[tuple[str, ...], float | Buckets]
"""Label values, in the instrument's order, to value."""
Reading = Mapping[str, Samples]
"""Instrument name to its samples."""


class Exposition(Collector):
    """Shows what `read` returns; reads it once per scrape."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def describe(self) -> Iterator[Metric]:
        """Name the instruments without reading them."""
        return (_family(instrument, {}) for instrument in INSTRUMENTS)

    def collect(self) -> Iterator[Metric]:
        """Read every instrument."""
        reading = self._read()
        return (_family(instrument, reading.get(instrument.name, {})) for instrument in INSTRUMENTS)


def registry_of(read: Callable[[], Reading]) -> CollectorRegistry:
    """Build the registry of one prober."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Exposition(read))
    return registry


def _family(instrument: Instrument, samples: Samples) -> Metric:
    name = PREFIX + instrument.name.removesuffix("_total")
    match instrument.kind:
        case Kind.HISTOGRAM:
            histogram = HistogramMetricFamily(name, instrument.help, labels=instrument.labels)
            for labels, buckets in samples.items():
                if isinstance(buckets, Buckets):
                    histogram.add_metric(labels, _cumulative(buckets), buckets.total)
            return histogram
        case Kind.COUNTER:
            family: Metric = CounterMetricFamily(name, instrument.help, labels=instrument.labels)
        case Kind.GAUGE:
            family = GaugeMetricFamily(name, instrument.help, labels=instrument.labels)
        case _:
            assert_never(instrument.kind)
    suffix = "_total" if instrument.kind is Kind.COUNTER else ""
    for labels, value in samples.items():
        if not isinstance(value, Buckets):
            family.add_sample(
                name + suffix, dict(zip(instrument.labels, labels, strict=True)), value
            )
    return family


def _cumulative(buckets: Buckets) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    bounds = [*map(str, buckets.bounds), "+Inf"]
    notable = buckets.notable or {}
    return [
        (bound, count, _exemplar(notable[index])) if index in notable else (bound, count)
        for index, (bound, count) in enumerate(zip(bounds, accumulate(buckets.counts), strict=True))
    ]


def _exemplar(notable: Notable) -> Exemplar:
    return Exemplar({"replica_id": notable.replica_id}, notable.value_s, notable.at)
