"""A run as tables on a terminal."""

from collections.abc import Mapping
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.case import Check, Row, Run, Scene

COLUMNS: Final[Mapping[str, tuple[str, float, int]]] = {
    "cores": ("cpu_share", 1, 2),
    "probes/s": ("probes_per_s", 1, 0),
    "of asked": ("of_asked", 1, 2),
    "dials/s": ("connections_per_s", 1, 0),
    "MB": ("rss_bytes", 1e-6, 0),
    "late p99": ("late_p99_ms", 1, 0),
    "fullest": ("fullest_100ms", 1, 2),
    "bus us": ("bus_cpu_us", 1, 1),
}
"""Head to measure, its factor, and digits."""
_MET: Final = {True: "[green]met[/]", False: "[red]not met[/]", None: "not measured"}


def shown(row: Row, name: str, factor: float, digits: int) -> str:
    """Return a median as text; a dash where there is none."""
    value = row.median.get(name)
    return "-" if value is None else f"{value * factor:,.{digits}f}"


def spread(row: Row) -> str:
    """Return what a probe cost, with its extremes where there is more than one round."""
    if "cpu_us" not in row.median:
        return "-"
    more = f" ({row.low['cpu_us']:.1f} to {row.high['cpu_us']:.1f})" if row.rounds > 1 else ""
    return f"{row.median['cpu_us']:,.1f}{more}"


def told(check: Check) -> tuple[str, str]:
    """Return what was found and what was promised, as text."""
    unit = f" {check.unit}" if check.unit else ""
    digits = 0 if check.limit >= 1000 else 2
    sign = ">=" if check.at_least else "<="
    value = "-" if check.value is None else f"{check.value:,.{digits}f}{unit}"
    return value, f"{sign} {check.limit:,.{digits}f}{unit}"


def tell(run: Run, console: Console) -> None:
    """Print goals, rows, and what they do not show."""
    console.print(_goals(run))
    console.print(_rows(run))
    console.print(
        f"{run.machine}; commit {run.commit}; {run.date}; load {run.load_before[0]:.2f} before, "
        f"{run.load_after[0]:.2f} after; {run.took_s:.0f} s"
    )
    console.print("What this does not show:")
    for sentence in run.not_shown:
        console.print(f"- {sentence}")


def _goals(run: Run) -> Table:
    small = run.size == "smoke"
    title = "a smoke run shows that it runs, and nothing else" if small else f"{run.size} run"
    table = Table(title=title)
    for head in ("", "goal", "measured", "found", "promised", ""):
        table.add_column(head, justify="right" if head in {"found", "promised"} else "left")
    for verdict in run.verdicts:
        for number, check in enumerate(verdict.checks):
            first = (verdict.goal, verdict.title) if number == 0 else ("", "")
            table.add_row(*first, check.what, *told(check), "" if small else _MET[check.met])
    return table


def _rows(run: Run) -> Table:
    table = Table(title=f"median of {run.rounds} x {run.seconds:g} s")
    table.add_column("case", no_wrap=True)
    for head in ("CPU, us a probe", *COLUMNS):
        table.add_column(head, justify="right")
    for row in run.rows:
        if row.missing and not row.rounds:
            table.add_row(str(row.case), "failed" if row.failed else "not run")
        elif row.case.scene in {Scene.STEADY, Scene.FLAT_OUT}:
            cells = (shown(row, *column) for column in COLUMNS.values())
            table.add_row(str(row.case), spread(row), *cells)
    return table
