"""The figures of several workers as one: what a supervisor shows on its only port.

Pure; the supervisor brings the snapshots, the exposition asks for the sum. Counters and
histograms never run backwards: what a worker had counted when it ended, or when it gave a
deployment up, is kept for as long as anybody counts on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final, assert_never

import msgspec

from probe.metrics import INSTRUMENTS, Buckets, Instrument, Kind, Merge, Notable, Reading
from probe.readings import DEPLOYMENTS_MAX, OTHERS

REMEMBERED_S: Final = 300.0
"""How long the count of an ended series is kept: its targets may be on the way between workers."""

Labels = tuple[str, ...]
_Series = tuple[str, Labels]
_Values = dict[_Series, float | Buckets]


class Snapshot(msgspec.Struct, frozen=True):
    """What one worker says of itself at one moment."""

    reading: Reading
    dead: str | None = None
    """Why it should be restarted, if it should."""
    idle: str | None = None
    """Why it should not be counted on now, if it should not."""


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Snapshot).decode


@dataclass(slots=True)
class _Kept:
    """What ended workers, or such that let a series go, had counted of it."""

    value: float | Buckets
    wanted_at: float


class Gathering:
    """The workers' figures; each worker is known by its number."""

    def __init__(self) -> None:
        self._last: dict[int, _Values] = {}
        self._gauges: dict[int, _Values] = {}
        self._kept: dict[_Series, _Kept] = {}
        self._shown: set[str] = set()

    def heard(self, worker: int, reading: Reading, *, now: float) -> None:
        """Take a worker's newest figures; `now` is monotonic seconds."""
        before, after = self._last.get(worker, {}), dict(_series(reading, counted=True))
        for series, value in before.items():
            if series not in after or _less(after[series], value):
                self._keep(series, value, now)
        self._last[worker] = after
        self._gauges[worker] = dict(_series(reading, counted=False))

    def silent(self, worker: int) -> None:
        """Leave out the gauges of one that does not answer: they would be of another moment."""
        self._gauges.pop(worker, None)

    def ended(self, worker: int, *, now: float) -> None:
        """Keep what a worker that ended had counted."""
        self.silent(worker)
        for series, value in self._last.pop(worker, {}).items():
            self._keep(series, value, now)

    def reading(self, *, now: float) -> dict[str, dict[Labels, float | Buckets]]:
        """Return the figures of all workers together."""
        counted: _Values = {}
        for values in self._last.values():
            _fold(counted, values, Merge.SUM)
        for series, kept in list(self._kept.items()):
            if series in counted:
                kept.wanted_at = now
                counted[series] = _merged(counted[series], kept.value, Merge.SUM)
            elif now - kept.wanted_at > REMEMBERED_S:
                del self._kept[series]
        for values in self._gauges.values():
            for series, value in values.items():
                _fold(counted, {series: value}, _INSTRUMENTS[series[0]].merge)
        return self._within_budget(counted)

    def _keep(self, series: _Series, value: float | Buckets, now: float) -> None:
        kept = self._kept.get(series)
        if kept is not None:
            value = _merged(kept.value, value, Merge.SUM)
        self._kept[series] = _Kept(value, now)

    def _within_budget(self, values: _Values) -> dict[str, dict[Labels, float | Buckets]]:
        """Sum up the deployments beyond the first so many, and always the same ones.

        Each worker keeps to the limit, but not all of them to the same deployments.
        """
        named = {labels[0] for (name, labels) in values if _has_deployment(name)}
        self._shown &= named
        for name in sorted(named - self._shown):
            if len(self._shown) < DEPLOYMENTS_MAX or name == OTHERS:
                self._shown.add(name)
        reading: dict[str, dict[Labels, float | Buckets]] = {}
        for (name, labels), value in values.items():
            shown = labels
            if _has_deployment(name) and labels[0] not in self._shown:
                shown = (OTHERS, *labels[1:])
            samples = reading.setdefault(name, {})
            there = samples.get(shown)
            rule = _INSTRUMENTS[name].merge
            samples[shown] = value if there is None else _merged(there, value, rule)
        return reading


_INSTRUMENTS: Final[Mapping[str, Instrument]] = {each.name: each for each in INSTRUMENTS}


def _has_deployment(name: str) -> bool:
    return _INSTRUMENTS[name].labels[:1] == ("deployment",)


def _series(reading: Reading, *, counted: bool) -> Iterator[tuple[_Series, float | Buckets]]:
    """Yield what is counted, or else what is gauged; names that we do not know are left out."""
    for name, samples in reading.items():
        instrument = _INSTRUMENTS.get(name)
        if instrument is not None and (instrument.kind is not Kind.GAUGE) is counted:
            for labels, value in samples.items():
                yield (name, labels), value


def _fold(into: _Values, values: Mapping[_Series, float | Buckets], rule: Merge) -> None:
    for series, value in values.items():
        into[series] = _merged(into[series], value, rule) if series in into else value


def _merged(one: float | Buckets, other: float | Buckets, rule: Merge) -> float | Buckets:
    if isinstance(one, Buckets) and isinstance(other, Buckets):
        counts = [a + b for a, b in zip_longest(one.counts, other.counts, fillvalue=0)]
        return Buckets(one.bounds, counts, one.total + other.total, _newest(one, other))
    if isinstance(one, Buckets) or isinstance(other, Buckets):
        return one  # never: both are of one instrument
    match rule:
        case Merge.SUM:
            return one + other
        case Merge.MOST:
            return max(one, other)
        case Merge.LEAST:
            return min(one, other)
        case _:
            assert_never(rule)


def _newest(one: Buckets, other: Buckets) -> dict[int, Notable]:
    newest: dict[int, Notable] = dict(one.notable or {})
    for bucket, notable in (other.notable or {}).items():
        if bucket not in newest or newest[bucket].at < notable.at:
            newest[bucket] = notable
    return newest


def _less(value: float | Buckets, than: float | Buckets) -> bool:
    """Tell whether a count fell: then it began anew."""
    return _total(value) < _total(than)


def _total(value: float | Buckets) -> float:
    return sum(value.counts) if isinstance(value, Buckets) else value
