"""`python -m bench`: what the prober costs beside a floor and its peers, and what it keeps.

Without options it runs everything at full size, for half an hour; `--reduced` takes three
minutes, `--smoke` shows only that everything runs.
"""

import argparse
import os
import sys
from dataclasses import replace

import msgspec
from rich.console import Console

from bench.build import CannotBuild
from bench.case import Missing, Run
from bench.farm import TARGETS_MAX
from bench.goals import TITLES
from bench.machine import need_files, raise_file_limit
from bench.matrix import SIZES, Size
from bench.run import run
from bench.table import tell
from controller.embedded import EmbeddedError

_SECONDS_MAX = 600.0
_ROUNDS_MAX = 20
_WIDTH = 150


def main() -> int:
    """Measure and print; return 0, 1 if something failed, 2 for what cannot be asked."""
    arguments = _parser().parse_args()
    name = "smoke" if arguments.smoke else "reduced" if arguments.reduced else "full"
    raise_file_limit()
    try:
        if arguments.targets is not None:
            need_files(arguments.targets)
        done = run(name, _sized(SIZES[name], arguments), arguments.only)
    except Missing as reason:
        print(f"--targets {arguments.targets}: {reason}", file=sys.stderr)
        return 2
    except CannotBuild as reason:
        print(f"skipped: {reason}", file=sys.stderr)
        return int(_ci())
    except EmbeddedError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        print(msgspec.json.encode(done).decode())
    else:
        tell(done, _console())
    return _complained(done)


def _console() -> Console:
    """Return a console wide enough for the tables where no terminal says how wide it is."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH)


def _complained(done: Run) -> int:
    """Tell what was not measured; return 1 if something failed, or is missing where it must not."""
    complaints = [row for row in done.rows if row.missing]
    for row in complaints:
        print(f"{row.case}: {row.missing.splitlines()[-1]}", file=sys.stderr)
    return int(any(row.failed for row in complaints) or (bool(complaints) and _ci()))


def _ci() -> bool:
    return os.environ.get("CI") == "true"


def _sized(size: Size, arguments: argparse.Namespace) -> Size:
    changed = {
        name: getattr(arguments, name)
        for name in ("targets", "rounds")
        if getattr(arguments, name) is not None
    }
    if arguments.seconds is not None:
        changed["pace"] = replace(size.pace, seconds=arguments.seconds)
    return replace(size, **changed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--reduced", action="store_true", help="smaller, shorter, once")
    how.add_argument("--smoke", action="store_true", help="as small as can be: does it run?")
    parser.add_argument("--only", type=_goals, default=frozenset(), help="goals, as P1,P3")
    parser.add_argument("--json", action="store_true", help="one object on stdout, no tables")
    parser.add_argument("--targets", type=_number(TARGETS_MAX), help="replicas, where all can")
    parser.add_argument("--rounds", type=_number(_ROUNDS_MAX), help="turns of each case")
    parser.add_argument("--seconds", type=_seconds, help="how long each case is watched")
    return parser


def _goals(text: str) -> frozenset[str]:
    named = frozenset(text.upper().split(","))
    unknown = named - TITLES.keys()
    if unknown:
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))} is no goal: choose among {', '.join(TITLES)}"
        )
    return named


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= _SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and {_SECONDS_MAX:g}")
    return value


class _number:  # noqa: N801 - reads as the function it is
    """Takes a whole number from 1 to `most`."""

    def __init__(self, most: int) -> None:
        self._most = most

    def __call__(self, text: str) -> int:
        value = int(text)
        if not 1 <= value <= self._most:
            raise argparse.ArgumentTypeError(f"{text} is not between 1 and {self._most}")
        return value


if __name__ == "__main__":
    sys.exit(main())
