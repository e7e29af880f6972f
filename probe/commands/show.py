"""What the prober's commands print: JSON Lines for programs, aligned text for people.

Called by `probe.cli`. Colours are for terminals; rich is imported only where a view is live.
Must not know where the rows come from.
"""

import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click
import msgspec

from probe.reasons import REASONS, OutcomeKind, Reason
from probe.wire import Phases, ReplicaHealthStatus, ReplicaId, ReplicaProbeTarget

if TYPE_CHECKING:
    from rich.table import Table

STATUS_COLUMNS = ("REPLICA", "VERDICT", "REASON", "HTTP", "LATENCY", "FAILURES", "AGE", "DETAIL")
TARGET_COLUMNS = ("REPLICA", "ADDRESS", "PATH", "EVERY", "DEPLOYMENT")
VERDICTS = ("unhealthy", "unknown", "healthy")
"""Worst first."""
_YIELDING = ("REPLICA", "DETAIL")
_COLOURS = {"healthy": "green", "unhealthy": "red", "unknown": "yellow"}

Row = Sequence[str]


def on_terminal() -> bool:
    """Tell whether a person watches."""
    return sys.stdout.isatty()


def line(value: object) -> None:
    """Print one JSON object on a line of its own."""
    click.echo(msgspec.json.encode(value))


def verdict(status: ReplicaHealthStatus | None) -> str:
    """Say what a status comes to; without evidence it is unknown."""
    if status is None:
        return "unknown"
    if status.healthy:
        return "healthy"
    failures, successes = status.consecutive_failures, status.consecutive_successes
    return "unhealthy" if failures or successes else "unknown"


def status_row(replica_id: ReplicaId, status: ReplicaHealthStatus | None, *, now_s: float) -> Row:
    """Lay out one status; `now_s` is the bus's time."""
    if status is None:
        return (replica_id, "unknown", "-", "-", "-", "-", "-", "no status on the bus")
    detail = "" if status.reason is Reason.OK else status.detail or sentence(status.reason)
    return (
        replica_id,
        verdict(status),
        status.reason.value,
        str(status.http_status or "-"),
        f"{status.latency_ms:.1f} ms",
        str(status.consecutive_failures),
        f"{max(0.0, now_s - status.last_check):.0f} s" if status.last_check else "-",
        detail,
    )


def target_row(target: ReplicaProbeTarget) -> Row:
    """Lay out one target."""
    host = f"[{target.replica_host}]" if ":" in target.replica_host else target.replica_host
    return (
        target.replica_id,
        f"{host}:{target.inference_port}",
        target.health_path,
        f"{target.interval_s:g} s",
        target.deployment or "-",
    )


def sentence(reason: Reason) -> str:
    """Say in words what a reason means."""
    return REASONS[reason].sentence


def phases_text(phases: Phases) -> str:
    """List the phases that happened.

    >>> phases_text(Phases(connect=0.21, first_byte=1.5))
    'connect 0.2 ms, first byte 1.5 ms'
    """
    names = ("slot_wait", "resolve", "connect", "tls", "first_byte", "transfer")
    spent = [(name.replace("_", " "), float(getattr(phases, name))) for name in names]
    return ", ".join(f"{name} {value:.1f} ms" for name, value in spent if value)


def mark(kind: OutcomeKind) -> str:
    """Return the word a finding starts with, coloured on a terminal."""
    words = {OutcomeKind.PASSED: ("passed", "green"), OutcomeKind.FAILED: ("FAILED", "red")}
    word, colour = words.get(kind, ("not probed", "yellow"))
    return click.style(word, fg=colour, bold=True)


def table(columns: Row, rows: Sequence[Row], *, nothing: str) -> None:
    """Print rows in columns, as wide as they are: ids are there to be copied.

    `nothing` says, beside the output, what no rows mean.
    """
    if not rows:
        click.echo(nothing, err=True)
        return
    listed = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    for number, row in enumerate(listed):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[-1] = cells[-1].rstrip()
        text = "  ".join(map(_coloured, cells)).rstrip()
        click.echo(text if number else click.style(text, bold=True))


def _coloured(cell: str) -> str:
    colour = _COLOURS.get(cell.rstrip())
    return click.style(cell, fg=colour) if colour else cell


def live_table(columns: Row, rows: Iterable[Row]) -> "Table":
    """Build a table that fits a terminal, one line a row: ids and details give way first."""
    from rich.table import Table  # noqa: PLC0415 - only where it is seen
    from rich.text import Text  # noqa: PLC0415 - cells are text, never markup

    built = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        built.add_column(column, no_wrap=column not in _YIELDING)
    one_line = partial(Text, no_wrap=True, overflow="ellipsis")
    for row in rows:
        built.add_row(*(one_line(cell, style=_COLOURS.get(cell, "")) for cell in row))
    return built
