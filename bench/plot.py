"""A run as two pictures: what a probe costs beside the others, and how cost and memory grow.

Deterministic: the same run gives the same bytes, so that a picture changes in the history only
when its figures do.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from bench.case import Mix, Prober, Regime, Row, Run, Scene

COST: Final = "cost.svg"
GROWTH: Final = "growth.svg"
_OURS: Final = {Prober.WIRE, Prober.PROBE}
_BLUE, _GREY, _BLACK = "#1f6feb", "#9aa4af", "#24292f"
_STYLES: Final = {
    Prober.FLOOR: (_BLACK, ":"),
    Prober.WIRE: ("#79b8ff", "-"),
    Prober.PROBE: (_BLUE, "-"),
    Prober.ENVOY: ("#a371f7", "--"),
    Prober.HAPROXY: ("#bf8700", "--"),
}


def draw(run: Run, directory: Path) -> None:
    """Write both pictures into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "fleetpulse", "svg.fonttype": "none", "font.size": 9}):
        _save(_cost(run), directory / COST)
        _save(_growth(run), directory / GROWTH)


def plain(run: Run) -> list[Row]:
    """Return the rows where all do the same: one worker, all targets pass, the usual interval."""
    return [
        row
        for row in run.rows
        if row.median
        and row.case.scene is Scene.STEADY
        and row.case.mix is Mix.PASS
        and row.case.workers == 1
        and row.case.interval_s == run.interval_s
    ]


def largest(rows: Iterable[Row]) -> list[Row]:
    """Return each prober's row with the most targets."""
    most: dict[Prober, Row] = {}
    for row in rows:
        before = most.get(row.case.prober)
        if before is None or row.case.targets > before.case.targets:
            most[row.case.prober] = row
    return list(most.values())


def _cost(run: Run) -> Figure:
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, regime in zip(figure.subplots(1, 2), Regime, strict=True):
        rows = largest(row for row in plain(run) if row.case.regime is regime)
        rows.sort(key=lambda row: row.median["cpu_us"], reverse=True)
        _bars(axes, rows)
        axes.set_title(f"{regime} connections", loc="left")
        axes.set_xlabel("CPU, us a probe")
    return figure


def _bars(axes: Axes, rows: Sequence[Row]) -> None:
    costs = [row.median["cpu_us"] for row in rows]
    errors = [
        [row.median["cpu_us"] - row.low["cpu_us"] for row in rows],
        [row.high["cpu_us"] - row.median["cpu_us"] for row in rows],
    ]
    names = [f"{row.case.prober} ({row.case.targets:,})" for row in rows]
    colours = [_BLUE if row.case.prober in _OURS else _GREY for row in rows]
    axes.barh(names, costs, xerr=errors, color=colours, ecolor=_BLACK, height=0.6)
    for place, cost in enumerate(costs):
        axes.annotate(
            f"{cost:,.1f}", (cost, place), xytext=(6, 0), textcoords="offset points", va="center"
        )
    axes.set_xscale("log")
    axes.set_xlim(left=1)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _growth(run: Run) -> Figure:
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    cost, memory = figure.subplots(1, 2)
    for axes, name, factor in ((cost, "cpu_us", 1.0), (memory, "rss_bytes", 1e-6)):
        for prober, (colour, line) in _STYLES.items():
            for regime, marker in zip(Regime, "os", strict=True):
                points = sorted(
                    (row.case.targets, row.median[name] * factor)
                    for row in plain(run)
                    if row.case.prober is prober and row.case.regime is regime
                )
                if points:
                    label = f"{prober}, {regime}" if name == "cpu_us" else None
                    x, y = zip(*points, strict=True)
                    axes.plot(x, y, line, color=colour, marker=marker, ms=4, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:,g}")
            axis.set_minor_formatter("")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.set_xlabel(f"targets, every {run.interval_s:g} s")
        axes.spines[["top", "right"]].set_visible(False)
    _slow(memory, run)
    cost.set_title("CPU a probe, us")
    memory.set_title("memory, MB")
    figure.legend(loc="outside right center", frameon=False, fontsize=7)
    return figure


def _slow(axes: Axes, run: Run) -> None:
    """Mark the most targets, which are probed at a longer interval."""
    most = max(run.rows, key=lambda row: row.case.targets, default=None)
    if most is None or not most.median or most in plain(run):
        return
    x, y = most.case.targets, most.median["rss_bytes"] / 1e6
    axes.plot([x], [y], "*", color=_BLUE, ms=9)
    axes.annotate(
        f"every {most.case.interval_s:g} s",
        (x, y),
        xytext=(-6, 6),
        textcoords="offset points",
        ha="right",
    )


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    text = path.read_text()
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")
