"""Runs the cases, round by round, and gathers what they found.

In each round every case has its turn, so that a machine that drifts drifts for all. A case that
fails is told and does not keep the others from running; one that cannot be run is not tried again.
"""

import datetime as dt
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.build import Programs, build
from bench.case import Case, Missing, RoundFailed, Row, Run, Scene, Values, row_of
from bench.goals import judged
from bench.machine import described
from bench.matrix import Size, chosen
from bench.onset import pick_up, start
from bench.peers import PEERS
from bench.running import ROOT
from bench.steady import steady

NOT_SHOWN = (
    "loopback: no network, no loss, no distance; the prober has a core, farm and bus the others",
    "targets that answer at once, without TLS or names, but for the mixes that say otherwise",
    "the floor has no deadlines, thresholds, statuses or metrics; fleetpulse probe has all these",
    "peers check health as their makers thought right: features differ, the farm's count does not",
    "fleetpulse probe may not stretch intervals here, as it would by itself when a core is full",
    "two workers share the prober's core here: what they cost is shown, not how far they scale",
    "the most targets are probed over new connections: few machines let one process keep so many",
)

_SCENES = {Scene.STEADY: steady, Scene.FLAT_OUT: steady, Scene.PICK_UP: pick_up, Scene.START: start}
Advance = Callable[[str], None]
"""Called with the name of each case before it runs."""


def run(size_name: str, size: Size, only: frozenset[str]) -> Run:
    """Measure everything that is asked for.

    Raises:
        CannotBuild: if there is no floor to stand on.
    """
    cases = chosen(size, only)
    load_before, began = os.getloadavg(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fp") as directory:
        programs = build(Path(directory))
        with _progress(len(cases) * size.rounds) as advance:
            rows = _rows(cases, size, programs, Path(directory), advance)
    return Run(
        size=size_name,
        machine=described(),
        commit=_commit(),
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        load_before=load_before,
        load_after=os.getloadavg(),
        took_s=round(time.monotonic() - began, 1),
        rounds=size.rounds,
        seconds=size.pace.seconds,
        interval_s=size.interval_s,
        rows=tuple(rows),
        verdicts=tuple(judged(rows, size, only)),
        not_shown=NOT_SHOWN,
    )


def _rows(
    cases: Sequence[Case], size: Size, programs: Programs, directory: Path, advance: Advance
) -> list[Row]:
    found: defaultdict[Case, list[Values]] = defaultdict(list)
    missing: dict[Case, str] = {}
    failed: dict[Case, str] = {}
    for turn in range(size.rounds):
        for number, case in enumerate(cases):
            advance(str(case))
            if case in missing:
                continue
            try:
                _need(case)
                room = directory / f"{turn}-{number}"
                found[case].append(_SCENES[case.scene](case, programs, room, size.pace))
            except Missing as reason:
                missing[case] = str(reason)
            except RoundFailed as error:
                failed[case] = str(error)
    return [
        row_of(
            case,
            found[case],
            missing=missing.get(case) or failed.get(case, ""),
            failed=case in failed,
        )
        for case in cases
    ]


def _need(case: Case) -> None:
    reason = PEERS[case.prober].missing()
    if reason is not None:
        raise Missing(reason)


@contextmanager
def _progress(rounds: int) -> Iterator[Advance]:
    """Show how far it is on a terminal; elsewhere say nothing."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns,
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task("", total=rounds, completed=-1)

        def advance(name: str) -> None:
            progress.update(task, advance=1, description=name)

        yield advance


def _commit() -> str:
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            cwd=ROOT,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()
