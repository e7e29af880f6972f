"""What was promised of the prober, and whether a run keeps it.

Each goal is one function from the medians of a run to its checks: numbers beside their limits.
A number whose case was not run is None, and then the goal is neither met nor missed.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from bench.case import Case, Check, Mix, Prober, Regime, Row, Scene, Verdict
from bench.matrix import Size, flood, goal_cases, many, mixed, scene, steady

_FLOOR, _WIRE, _PROBE = Prober.FLOOR, Prober.WIRE, Prober.PROBE
_KEPT, _NEW = Regime.KEPT, Regime.NEW

TITLES: Final = {
    "P1": "wire, kept connections",
    "P2": "wire, new connections",
    "P3": "whole prober, kept connections",
    "P4": "whole prober, new connections",
    "P5": "capacity of one worker on one core",
    "P6": "two workers at the rate of one",
    "P7": "growth: ten times the targets at the same rate",
    "P8": "schedule lag, without faults and with",
    "P9": "spread within 100 ms, also after a restart",
    "P10": "the same work, whatever the targets go on answering",
    "P11": "pick-up of targets and verdicts",
    "P12": "first full sweep after start",
}


class Found:
    """The medians of a run, by case."""

    def __init__(self, rows: Iterable[Row], size: Size) -> None:
        self.size = size
        self._medians = {row.case: row.median for row in rows}

    def value(self, case: Case, name: str) -> float | None:
        """Return one number; None when it was not found."""
        return self._medians.get(case, {}).get(name)

    def ratio(self, name: str, above: Case, below: Case) -> float | None:
        """Return one number over another."""
        top, bottom = self.value(above, name), self.value(below, name)
        return top / bottom if top is not None and bottom else None

    def at(self, prober: Prober, regime: Regime) -> Case:
        """Return the case of a prober at its usual size."""
        return steady(self.size, prober, regime)


def _cost(found: Found, one: Prober, other: Prober, regime: Regime, limit: float) -> Check:
    value = found.ratio("cpu_us", found.at(one, regime), found.at(other, regime))
    return Check(what=f"CPU a probe, x {other}", limit=limit, value=value)


def _p1(found: Found) -> list[Check]:
    return [
        _cost(found, _WIRE, _FLOOR, _KEPT, 1.25),
        _cost(found, _WIRE, Prober.ENVOY, _KEPT, 0.55),
    ]


def _p2(found: Found) -> list[Check]:
    return [
        _cost(found, _WIRE, _FLOOR, _NEW, 1.25),
        _cost(found, _WIRE, Prober.HAPROXY, _NEW, 1.0),
        _cost(found, _WIRE, Prober.ENVOY, _NEW, 1.0),
    ]


def _p3(found: Found) -> list[Check]:
    return [_cost(found, _PROBE, _FLOOR, _KEPT, 1.8)]


def _p4(found: Found) -> list[Check]:
    return [_cost(found, _PROBE, _FLOOR, _NEW, 1.35)]


def _p5(found: Found) -> list[Check]:
    return [
        Check(
            what=f"probes a second, {regime}",
            limit=limit,
            value=found.value(flood(found.size, regime), "probes_per_s"),
            at_least=True,
        )
        for regime, limit in ((_KEPT, 45_000.0), (_NEW, 17_000.0))
    ]


def _p6(found: Found) -> list[Check]:
    two = steady(found.size, _PROBE, _KEPT, workers=2)
    value = found.ratio("cpu_us", two, found.at(_PROBE, _KEPT))
    return [Check(what="CPU a probe, x one worker", limit=1.15, value=value)]


def _p7(found: Found) -> list[Check]:
    few, more = found.at(_PROBE, _NEW), many(found.size)
    small, large = found.value(few, "rss_bytes"), found.value(more, "rss_bytes")
    each = None
    if small is not None and large is not None:
        each = (large - small) / (more.targets - few.targets) / 1000
    return [
        Check(
            what=f"CPU a probe, x {few.targets:,} targets",
            limit=1.25,
            value=found.ratio("cpu_us", more, few),
        ),
        Check(what="memory for one more target", unit="KB", limit=6.0, value=each),
    ]


def _p8(found: Found) -> list[Check]:
    return [
        Check(what=f"{name}, {case.mix}", unit="ms", limit=limit, value=found.value(case, key))
        for case in (found.at(_PROBE, _KEPT), mixed(found.size, Mix.FAULTS))
        for name, key, limit in (("p99", "lag_p99_ms", 10.0), ("p99.9", "lag_p999_ms", 50.0))
    ]


def _p9(found: Found) -> list[Check]:
    restart = scene(found.size, Scene.START)
    return [
        *(
            Check(
                what=f"fullest 100 ms, x mean, {regime}",
                limit=1.3,
                value=found.value(found.at(_PROBE, regime), "fullest_100ms"),
            )
            for regime in (_KEPT, _NEW)
        ),
        Check(
            what="fullest 100 ms, x mean, from a restart on",
            limit=1.3,
            value=found.value(restart, "restart_fullest_100ms"),
        ),
    ]


def _p10(found: Found) -> list[Check]:
    clean = found.at(_PROBE, _KEPT)
    measures = (("cpu_share", "CPU"), ("bus_bytes_per_s", "bus bytes"), ("sockets", "sockets"))
    return [
        Check(
            what=f"{what}, {mix}, over or under all pass",
            limit=1.1,
            value=_apart(found.ratio(name, mixed(found.size, mix), clean)),
        )
        for name, what in measures
        for mix in (Mix.FAIL, Mix.FLAP)
    ]


def _apart(ratio: float | None) -> float | None:
    """Return how far a ratio is from 1, whichever is the larger."""
    return max(ratio, 1 / ratio) if ratio else ratio


def _p11(found: Found) -> list[Check]:
    case = scene(found.size, Scene.PICK_UP)
    return [
        Check(
            what="new target to its first probe, worst",
            unit="s",
            limit=1.0,
            value=found.value(case, "pick_up_s"),
        ),
        Check(
            what="probe to changed status on the bus, worst",
            unit="s",
            limit=0.25,
            value=found.value(case, "verdict_s"),
        ),
    ]


def _p12(found: Found) -> list[Check]:
    value = found.value(scene(found.size, Scene.START), "first_sweep_s")
    return [Check(what="exec to the last status", unit="s", limit=3.0, value=value)]


_GOALS: Final[Mapping[str, Callable[[Found], list[Check]]]] = {
    "P1": _p1,
    "P2": _p2,
    "P3": _p3,
    "P4": _p4,
    "P5": _p5,
    "P6": _p6,
    "P7": _p7,
    "P8": _p8,
    "P9": _p9,
    "P10": _p10,
    "P11": _p11,
    "P12": _p12,
}


def judged(rows: Iterable[Row], size: Size, only: frozenset[str]) -> list[Verdict]:
    """Judge the goals named, or all."""
    found = Found(rows, size)
    return [
        Verdict(goal=goal, title=TITLES[goal], checks=tuple(_GOALS[goal](found)))
        for goal in goal_cases(size)
        if not only or goal in only
    ]
