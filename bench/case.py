"""The nouns of the bench: what is run, what came of it, and what was promised about it.

Everything that leaves a run as JSON is declared here, so that tables, plots and pages are made
from the same shapes. Knows nothing of how anything is measured.
"""

from collections.abc import Iterable
from enum import StrEnum
from statistics import median
from typing import Final

import msgspec


class RoundFailed(Exception):  # noqa: N818 - reads as what it is
    """A prober did not do its work, so its cost says nothing."""


class Missing(Exception):  # noqa: N818 - reads as what it is
    """A round cannot be run here; its text says what is not there, or not enough."""


class Prober(StrEnum):
    """Who probes; a value is how it is called in tables."""

    FLOOR = "C floor"
    WIRE = "fleetpulse wire"
    PROBE = "fleetpulse probe"
    ENVOY = "Envoy"
    HAPROXY = "HAProxy"
    BLACKBOX = "blackbox_exporter"
    AIOHTTP = "aiohttp, shared session"
    AIOHTTP_EACH = "aiohttp, session per probe"
    HTTPX = "httpx, shared client"


class Regime(StrEnum):
    """What becomes of the connection after a probe."""

    KEPT = "kept"
    NEW = "new"


class Mix(StrEnum):
    """How the targets answer."""

    PASS = "all pass"  # noqa: S105 - no password
    FAIL = "all answer 503"
    FLAP = "200 and 503 in turn"
    FAULTS = "10 % hang, 10 % refuse"


class Scene(StrEnum):
    """What is watched."""

    STEADY = "steady"
    FLAT_OUT = "flat out"
    PICK_UP = "pick-up"
    START = "start"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to measure; equal cases are measured once, whoever asks for them."""

    prober: Prober
    regime: Regime
    targets: int
    interval_s: float = 1.0
    mix: Mix = Mix.PASS
    scene: Scene = Scene.STEADY
    workers: int = 1

    @property
    def wanted_per_s(self) -> float:
        """The probes a second that were asked for."""
        return self.targets / self.interval_s

    def __str__(self) -> str:
        more = "" if self.mix is Mix.PASS else f", {self.mix}"
        more += "" if self.workers == 1 else f", {self.workers} workers"
        more += "" if self.scene is Scene.STEADY else f", {self.scene}"
        return f"{self.prober}, {self.regime}, {self.targets:,} x {self.interval_s:g} s{more}"


Values = dict[str, float]
"""What a round found, by the names of `MEASURES`; each round has those that make sense for it."""

MEASURES: Final = {
    "of_asked": "probes a second over those asked for",
    "cpu_us": "user and system time of the process tree, per probe counted at the farm",
    "cpu_share": "the same per second of the clock: 1 is one core",
    "rss_bytes": "resident memory of the process tree at the end",
    "probes_per_s": "requests the farm has read",
    "connections_per_s": "connections the farm has accepted",
    "sockets": "connections open at the farm at the end",
    "fullest_100ms": "the fullest 100 ms over what the asked rate puts there",
    "late_p50_ms": "between two probes of one target, over or under the interval, at the farm",
    "late_p99_ms": "the same, of 99 in 100",
    "late_p999_ms": "the same, of 999 in 1,000",
    "failed_share": "probes of healthy targets that the prober called failed",
    "bus_cpu_us": "what the bus server spent, per probe",
    "bus_bytes_per_s": "bytes into and out of the bus server",
    "ended_per_s": "probes ended, as the prober counts them: refused ones too",
    "lag_p99_ms": "from due to start, bound of the prober's own bucket that holds 99 in 100",
    "lag_p999_ms": "the same, of 999 in 1,000",
    "pick_up_s": "the longest from a new target on the bus to its first probe",
    "pick_up_median_s": "the same, the median",
    "verdict_s": "the longest from the probe that changes a verdict to its status on the bus",
    "verdict_median_s": "the same, the median",
    "first_sweep_s": "from exec of the prober to the last target's status on the bus",
    "restart_fullest_100ms": "`fullest_100ms` from the first probe after a restart on",
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One case over all rounds."""

    case: Case
    median: Values = {}
    low: Values = {}
    high: Values = {}
    rounds: int = 0
    missing: str = ""
    """Why there is nothing to show, in a sentence."""
    failed: bool = False
    """It was run, and did not do its work."""


def row_of(case: Case, rounds: Iterable[Values], *, missing: str = "", failed: bool = False) -> Row:
    """Take medians and extremes over the rounds of a case."""
    done = list(rounds)
    names = [name for name in MEASURES if any(name in values for values in done)]
    found = {name: [values[name] for values in done if name in values] for name in names}
    return Row(
        case=case,
        median={name: median(of) for name, of in found.items()},
        low={name: min(of) for name, of in found.items()},
        high={name: max(of) for name, of in found.items()},
        rounds=len(done),
        missing=missing,
        failed=failed,
    )


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One number that was promised, beside the one that was found."""

    what: str
    limit: float
    value: float | None
    unit: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Tell whether the promise holds; None when there is no number."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one goal."""

    goal: str
    title: str
    checks: tuple[Check, ...]

    @property
    def met(self) -> bool | None:
        """Tell whether all checks hold; None when one of them has no number."""
        each = [check.met for check in self.checks]
        return False if False in each else None if None in each or not each else True


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one run found, as it goes into JSON."""

    size: str
    machine: str
    commit: str
    date: str
    load_before: tuple[float, float, float]
    load_after: tuple[float, float, float]
    took_s: float
    rounds: int
    seconds: float
    interval_s: float
    """Of all cases that do not say otherwise."""
    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...]
    not_shown: tuple[str, ...]
