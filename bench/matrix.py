"""What is measured: how large, how long, and which cases each goal and each table needs.

Sizes differ in numbers alone, so that the smallest run walks every path of the largest.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from bench.case import Case, Mix, Prober, Regime, Scene
from bench.steady import Pace

_FAST_S: Final = 0.1
"""The shortest interval there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a run is."""

    targets: int
    interval_s: float
    """Of most cases."""
    curve: tuple[int, ...]
    """Fewer targets, at the same interval: how cost grows."""
    many: int
    """Targets that together ask for as much as `targets` a second do, at a longer interval."""
    flood: Mapping[Regime, int]
    """Targets at the shortest interval: half as many again as one core can probe."""
    pace: Pace
    rounds: int
    peers: Mapping[Prober, int]
    """How many targets a peer can carry that cannot carry all; the others have `targets`."""

    def targets_of(self, prober: Prober) -> int:
        """Return how many targets this prober is given."""
        return min(self.targets, self.peers.get(prober, self.targets))


_CARRIED: Final = {
    Prober.AIOHTTP: 5000,
    Prober.AIOHTTP_EACH: 1000,
    Prober.BLACKBOX: 1000,
    Prober.HTTPX: 100,
}

SIZES: Final = {
    "full": Size(
        targets=10_000,
        interval_s=1.0,
        curve=(1000, 5000),
        many=100_000,
        flood={Regime.KEPT: 8000, Regime.NEW: 2500},
        pace=Pace(warm_up_s=2.0, seconds=10.0),
        rounds=3,
        peers=_CARRIED,
    ),
    "reduced": Size(
        targets=5000,
        interval_s=1.0,
        curve=(),
        many=15_000,
        flood={Regime.KEPT: 8000, Regime.NEW: 2500},
        pace=Pace(warm_up_s=0.5, seconds=2.0),
        rounds=1,
        peers=_CARRIED | {Prober.AIOHTTP: 2000, Prober.AIOHTTP_EACH: 500, Prober.BLACKBOX: 500},
    ),
    "smoke": Size(
        targets=40,
        interval_s=0.2,
        curve=(),
        many=80,
        flood={Regime.KEPT: 20, Regime.NEW: 20},
        pace=Pace(warm_up_s=0.1, seconds=0.3),
        rounds=1,
        peers={},
    ),
}

_PEERS: Final = (
    (Prober.ENVOY, Regime.KEPT),
    (Prober.AIOHTTP, Regime.KEPT),
    (Prober.HTTPX, Regime.KEPT),
    (Prober.HAPROXY, Regime.NEW),
    (Prober.ENVOY, Regime.NEW),
    (Prober.AIOHTTP_EACH, Regime.NEW),
    (Prober.BLACKBOX, Regime.NEW),
)
_CURVED: Final = (Prober.FLOOR, Prober.WIRE, Prober.PROBE, Prober.ENVOY, Prober.HAPROXY)


def steady(size: Size, prober: Prober, regime: Regime, *, workers: int = 1) -> Case:
    """Return the case of a prober at its usual size."""
    targets = size.targets_of(prober)
    return Case(
        prober=prober,
        regime=regime,
        targets=targets,
        interval_s=size.interval_s,
        workers=workers,
    )


def mixed(size: Size, mix: Mix) -> Case:
    """Return the case of our daemon where targets answer in some other way."""
    return Case(
        prober=Prober.PROBE,
        regime=Regime.KEPT,
        targets=size.targets,
        interval_s=size.interval_s,
        mix=mix,
    )


def many(size: Size) -> Case:
    """Return the case of many targets at the usual rate; no process may keep as many open."""
    interval_s = size.interval_s * size.many / size.targets
    return Case(prober=Prober.PROBE, regime=Regime.NEW, targets=size.many, interval_s=interval_s)


def flood(size: Size, regime: Regime) -> Case:
    """Return the case of more probes than one core can do."""
    return Case(
        prober=Prober.PROBE,
        regime=regime,
        targets=size.flood[regime],
        interval_s=_FAST_S,
        scene=Scene.FLAT_OUT,
    )


def scene(size: Size, which: Scene) -> Case:
    """Return the case of a scene, on our daemon."""
    return Case(
        prober=Prober.PROBE,
        regime=Regime.KEPT,
        targets=size.targets,
        interval_s=size.interval_s,
        scene=which,
    )


def goal_cases(size: Size) -> dict[str, tuple[Case, ...]]:
    """Return which cases each goal is judged by."""
    kept, new = Regime.KEPT, Regime.NEW
    floor, wire, probe = Prober.FLOOR, Prober.WIRE, Prober.PROBE
    clean = steady(size, probe, kept)
    return {
        "P1": tuple(steady(size, each, kept) for each in (floor, wire, Prober.ENVOY)),
        "P2": tuple(
            steady(size, each, new) for each in (floor, wire, Prober.HAPROXY, Prober.ENVOY)
        ),
        "P3": tuple(steady(size, each, kept) for each in (floor, probe)),
        "P4": tuple(steady(size, each, new) for each in (floor, probe)),
        "P5": (flood(size, kept), flood(size, new)),
        "P6": (clean, steady(size, probe, kept, workers=2)),
        "P7": (steady(size, probe, new), many(size)),
        "P8": (clean, mixed(size, Mix.FAULTS)),
        "P9": (clean, steady(size, probe, new), scene(size, Scene.START)),
        "P10": (clean, mixed(size, Mix.FAIL), mixed(size, Mix.FLAP)),
        "P11": (scene(size, Scene.PICK_UP),),
        "P12": (scene(size, Scene.START),),
    }


def peer_cases(size: Size) -> Iterator[Case]:
    """Yield the cases of every peer, and of growth, that no goal asks for."""
    for prober, regime in _PEERS:
        yield steady(size, prober, regime)
    for targets in size.curve:
        for regime in Regime:
            for prober in _CURVED:
                if (prober, regime) != (Prober.HAPROXY, Regime.KEPT):
                    yield Case(
                        prober=prober,
                        regime=regime,
                        targets=targets,
                        interval_s=size.interval_s,
                    )


def chosen(size: Size, only: frozenset[str]) -> list[Case]:
    """Return the cases of the goals named, each once; of everything when none is."""
    cases = [
        case
        for goal, those in goal_cases(size).items()
        if not only or goal in only
        for case in those
    ]
    return list(dict.fromkeys([*cases, *(() if only else peer_cases(size))]))
