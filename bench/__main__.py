"""`python -m bench`: what one kept-alive probe costs us, as a ratio to a floor written in C."""

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.build import CannotBuild, build
from bench.rounds import Round, RoundFailed, floor_round, our_round, wire_round
from controller.embedded import EmbeddedError

_SPARE_FILES = 200
"""Descriptors a process needs beside one for each target."""
_TARGETS_MAX = 100_000
_SECONDS_MAX = 600.0
_ROUNDS_MAX = 20
_NOT_SHOWN = (
    "loopback: no network, no loss, no distance; the prober has a core, farm and bus the others",
    "every target answers 200 at once on a kept connection: no new connections, TLS, or failures",
    "the floor has no deadlines, thresholds, statuses or metrics; fleetpulse probe has all these",
    "fleetpulse wire has deadlines, verdicts and counters, but no bus, statuses or metrics port",
    "one moderate rate: neither the most a core can do, nor how late a probe may be",
)


def main() -> int:
    """Measure and print; return 0, 1 if a prober failed, 2 for what cannot be asked."""
    arguments = _parser().parse_args()
    if arguments.smoke:
        arguments.targets, arguments.seconds, arguments.rounds = 50, 1.0, 1
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if arguments.targets + _SPARE_FILES > files:
        print(
            f"--targets {arguments.targets}: the limit of {files} open files allows "
            f"{files - _SPARE_FILES}; ask for fewer, or raise it (ulimit -Hn)",
            file=sys.stderr,
        )
        return 2
    try:
        rounds = _measured(arguments.targets, arguments.seconds, arguments.rounds)
    except CannotBuild as reason:
        print(f"skipped: {reason}", file=sys.stderr)
        return 0
    except (EmbeddedError, RoundFailed) as error:
        print(error, file=sys.stderr)
        return 1
    _tell(rounds, arguments)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--targets",
        type=lambda text: int(_bounded(text, _TARGETS_MAX)),
        default=10_000,
        help="replicas, each probed once a second",
    )
    parser.add_argument(
        "--seconds",
        type=lambda text: _bounded(text, _SECONDS_MAX),
        default=10.0,
        help="how long each prober is watched in each round",
    )
    parser.add_argument("--rounds", type=lambda text: int(_bounded(text, _ROUNDS_MAX)), default=3)
    parser.add_argument("--smoke", action="store_true", help="50 targets for 1 s: does it run?")
    parser.add_argument("--json", action="store_true", help="one object on stdout, no table")
    return parser


def _bounded(text: str, most: float) -> float:
    value = float(text)
    if not 1 <= value <= most:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {most:g}")
    return value


def _measured(targets: int, seconds: float, rounds: int) -> list[Round]:
    """Alternate the probers, so that a machine that drifts drifts for both."""
    done: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="fp") as directory:
        programs = build(Path(directory))
        for number in range(rounds):
            done.append(floor_round(programs, targets=targets, seconds=seconds))
            for measure in (wire_round, our_round):
                room = Path(directory, f"{measure.__name__}-{number}")
                done.append(measure(programs, room, targets=targets, seconds=seconds))
    return done


def _tell(rounds: list[Round], arguments: argparse.Namespace) -> None:
    rows = _rows(rounds)
    if arguments.json:
        summary = {
            "machine": _machine(),
            "targets": arguments.targets,
            "seconds": arguments.seconds,
            "probers": [asdict(row) for row in rows],
            "rounds": [asdict(one) for one in rounds],
            "not_shown": _NOT_SHOWN,
        }
        print(json.dumps(summary))
        return
    table = Table(
        title=f"kept-alive GET, {arguments.targets} targets x 1/s, "
        f"median of {arguments.rounds} x {arguments.seconds:g} s",
        caption=_machine(),
    )
    for column in ("prober", "CPU us/probe", "spread", "x floor", "probes/s", "RSS MB", "bus us"):
        table.add_column(column, justify="left" if column == "prober" else "right")
    for row in rows:
        table.add_row(
            row.prober,
            _shown(row.cpu_us_per_probe),
            " to ".join(f"{value:.1f}" for value in row.spread) or "-",
            _shown(row.ratio_to_floor, digits=2),
            f"{row.probes_per_second:.0f}",
            f"{row.rss_bytes / 1e6:.0f}",
            f"{row.bus_cpu_us_per_probe:.1f}",
        )
    console = Console(soft_wrap=True)
    console.print(table)
    console.print("What this does not show:")
    for sentence in _NOT_SHOWN:
        console.print(f"- {sentence}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One prober over all rounds: medians, the extremes of its cost, its largest memory."""

    prober: str
    cpu_us_per_probe: float | None
    spread: tuple[float, ...]
    ratio_to_floor: float | None
    probes_per_second: float
    rss_bytes: int
    bus_cpu_us_per_probe: float


def _rows(rounds: list[Round]) -> list[_Row]:
    rows: list[_Row] = []
    for name in dict.fromkeys(one.prober for one in rounds):
        mine = [one for one in rounds if one.prober == name]
        costs = [one.cpu_us_per_probe for one in mine if one.cpu_us_per_probe is not None]
        cost = median(costs) if costs else None
        floor = rows[0].cpu_us_per_probe if rows else cost
        rows.append(
            _Row(
                prober=name,
                cpu_us_per_probe=cost,
                spread=(min(costs), max(costs)) if costs else (),
                ratio_to_floor=cost / floor if cost and floor else None,
                probes_per_second=median(one.probes_per_second for one in mine),
                rss_bytes=max(one.rss_bytes for one in mine),
                bus_cpu_us_per_probe=median(one.bus_cpu_us_per_probe for one in mine),
            )
        )
    return rows


def _shown(value: float | None, *, digits: int = 1) -> str:
    return "too short" if value is None else f"{value:.{digits}f}"


def _machine() -> str:
    kernel, _, _ = platform.release().partition("-")
    return (
        f"{os.cpu_count()} cores {platform.machine()}, Linux {kernel}, "
        f"Python {platform.python_version()}"
    )


if __name__ == "__main__":
    sys.exit(main())
