"""The figures of several workers, added up."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from probe.metrics import INSTRUMENTS, Buckets, Kind, Merge, Notable, Reading
from probe.readings import DEPLOYMENTS_MAX, OTHERS
from probe.workers.gather import REMEMBERED_S, Gathering, Snapshot, decode, encode

PROBES: Final = "probes_total"
WRITTEN: Final = "statuses_written_total"
BLUE, GREEN = ("blue", "passed"), ("green", "passed")


def written(gathering: Gathering, *, now: float = 0.0) -> float:
    value = gathering.reading(now=now)[WRITTEN][()]
    assert isinstance(value, float | int)
    return value


def test_counters_are_added_up() -> None:
    gathering = Gathering()
    gathering.heard(0, {PROBES: {BLUE: 3, GREEN: 1}}, now=0.0)
    gathering.heard(1, {PROBES: {BLUE: 4}}, now=0.0)
    assert gathering.reading(now=0.0) == {PROBES: {BLUE: 7, GREEN: 1}}


def test_a_gauge_is_merged_as_its_instrument_says() -> None:
    gathering = Gathering()
    for worker, (open_connections, stretch, up) in enumerate([(10, 1.0, 1), (5, 2.5, 0)]):
        gathering.heard(
            worker,
            {
                "connections_open": {(): open_connections},
                "interval_stretch_ratio": {(): stretch},
                "bus_up": {(): up},
            },
            now=0.0,
        )
    assert gathering.reading(now=0.0) == {
        "connections_open": {(): 15},
        "interval_stretch_ratio": {(): 2.5},
        "bus_up": {(): 0},
    }


def test_only_what_can_be_added_up_is() -> None:
    """A ratio, an age or a flag of two workers is not the sum of both."""
    for instrument in INSTRUMENTS:
        if instrument.kind is Kind.GAUGE:
            no_sum = instrument.name.endswith(("_ratio", "_age_seconds", "_up", "_info"))
            assert (instrument.merge is not Merge.SUM) >= no_sum, instrument.name
        else:
            assert instrument.merge is Merge.SUM


def test_histograms_are_added_up_and_the_newest_exemplar_is_kept() -> None:
    gathering = Gathering()
    old, new = Notable("old", 1.5, at=10.0), Notable("new", 1.6, at=20.0)
    gathering.heard(
        0, {"probe_duration_seconds": {(): Buckets((1.0,), [1, 2], 3.0, {1: new})}}, now=0.0
    )
    gathering.heard(
        1, {"probe_duration_seconds": {(): Buckets((1.0,), [4, 8], 9.0, {1: old, 0: old})}}, now=0.0
    )
    assert gathering.reading(now=0.0) == {
        "probe_duration_seconds": {(): Buckets((1.0,), [5, 10], 12.0, {1: new, 0: old})}
    }


def test_what_a_dead_worker_counted_is_kept_and_its_gauges_are_not() -> None:
    gathering = Gathering()
    for worker in (0, 1):
        gathering.heard(worker, {WRITTEN: {(): 100}, "connections_open": {(): 7}}, now=0.0)
    gathering.ended(1, now=0.0)
    assert gathering.reading(now=0.0) == {WRITTEN: {(): 200}, "connections_open": {(): 7}}
    gathering.heard(1, {WRITTEN: {(): 3}, "connections_open": {(): 1}}, now=1.0)
    assert gathering.reading(now=1.0) == {WRITTEN: {(): 203}, "connections_open": {(): 8}}


def test_a_worker_that_began_anew_unnoticed_loses_nothing() -> None:
    gathering = Gathering()
    gathering.heard(0, {WRITTEN: {(): 100}}, now=0.0)
    gathering.heard(0, {WRITTEN: {(): 2}}, now=1.0)
    assert written(gathering) == 102


def test_a_silent_worker_is_left_out_of_the_gauges_and_stays_in_the_counts() -> None:
    gathering = Gathering()
    reading: Reading = {WRITTEN: {(): 5}, "workers_reporting": {(): 1}}
    for worker in (0, 1, 2):
        gathering.heard(worker, reading, now=0.0)
    gathering.silent(2)
    assert gathering.reading(now=0.0) == {WRITTEN: {(): 15}, "workers_reporting": {(): 2}}
    gathering.heard(2, reading, now=1.0)
    assert gathering.reading(now=0.0)["workers_reporting"] == {(): 3}


def test_a_deployment_on_its_way_between_workers_keeps_its_count() -> None:
    gathering = Gathering()
    gathering.heard(0, {PROBES: {BLUE: 50}}, now=0.0)
    gathering.heard(0, {PROBES: {}}, now=1.0)  # its partitions were given up
    assert gathering.reading(now=1.0) == {}
    gathering.heard(1, {PROBES: {BLUE: 2}}, now=10.0)
    assert gathering.reading(now=10.0) == {PROBES: {BLUE: 52}}


def test_a_series_ends_with_its_deployment() -> None:
    """R-67."""
    gathering = Gathering()
    gathering.heard(0, {PROBES: {BLUE: 50, GREEN: 1}}, now=0.0)
    gathering.heard(0, {PROBES: {GREEN: 2}}, now=1.0)
    gathering.reading(now=1.0 + REMEMBERED_S + 1)
    gathering.heard(0, {PROBES: {GREEN: 2, BLUE: 1}}, now=1000.0)
    assert gathering.reading(now=1000.0) == {PROBES: {GREEN: 2, BLUE: 1}}


def test_deployments_beyond_the_budget_are_summed_up_as_others() -> None:
    """Each worker shows as many as one may, and none of them the same."""
    gathering = Gathering()
    for worker in (0, 1):
        names = [f"w{worker}-{number}" for number in range(DEPLOYMENTS_MAX)]
        gathering.heard(worker, {PROBES: {(name, "passed"): 1 for name in names}}, now=0.0)
    first = gathering.reading(now=0.0)[PROBES]
    assert len(first) == DEPLOYMENTS_MAX + 1
    assert first[OTHERS, "passed"] == DEPLOYMENTS_MAX
    gathering.heard(0, {PROBES: {("aaa", "passed"): 1}}, now=1.0)
    assert first.keys() - gathering.reading(now=1.0)[PROBES].keys() == first.keys() & {
        (f"w0-{number}", "passed") for number in range(DEPLOYMENTS_MAX)
    }


def test_of_a_deployments_certificates_the_first_to_end_is_shown() -> None:
    """Whichever worker has seen it; and among the others, too."""
    name, gathering = "certificate_expiry_timestamp_seconds", Gathering()
    gathering.heard(0, {name: {("blue",): 2e9, ("green",): 3e9}}, now=0.0)
    gathering.heard(1, {name: {("blue",): 1e9}}, now=0.0)
    assert gathering.reading(now=0.0) == {name: {("blue",): 1e9, ("green",): 3e9}}
    gathering.heard(
        1, {name: {(f"d{n:03}",): 5e9 + n for n in range(DEPLOYMENTS_MAX + 1)}}, now=1.0
    )
    assert gathering.reading(now=1.0)[name][OTHERS,] == 5e9 + DEPLOYMENTS_MAX - 2


def test_a_name_that_this_program_does_not_know_is_left_out() -> None:
    gathering = Gathering()
    gathering.heard(0, {"of_a_later_version_total": {(): 1}}, now=0.0)
    assert gathering.reading(now=0.0) == {}


def test_a_snapshot_is_read_back_as_it_was_written() -> None:
    notable = {1: Notable("r", 1.0, 2.0)}
    reading: Reading = {PROBES: {BLUE: 3.0}, "x": {(): Buckets([1.0], [1, 2], 2.5, notable)}}
    snapshot = Snapshot(reading, idle="the targets have not been read yet")
    assert decode(encode(snapshot)) == snapshot


events = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["count", "restart", "silent"]), st.integers(0, 9))
)


@given(events)
def test_no_count_ever_runs_backwards(happened: list[tuple[int, str, int]]) -> None:
    gathering = Gathering()
    own = dict.fromkeys(range(4), 0)
    truth = last = 0.0
    for worker in own:
        gathering.heard(worker, {WRITTEN: {(): 0}}, now=0.0)
    for worker, event, more in happened:
        if event == "restart":
            gathering.ended(worker, now=0.0)
            own[worker] = 0
        elif event == "silent":
            gathering.silent(worker)
        else:
            own[worker] += more
            truth += more
        if event != "silent":
            gathering.heard(worker, {WRITTEN: {(): own[worker]}}, now=0.0)
        assert written(gathering) >= last
        last = written(gathering)
    assert last == truth
