"""`python -m bench.report RUN.json`: a run as docs/benchmarks.md, its plots, and README's figures.

No figure on these pages is written by hand. People write the remarks, between their two marks:
why a goal is not met, and what was tried.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.case import MEASURES, Prober, Regime, Row, Run, Scene
from bench.peers import PEERS
from bench.plot import COST, GROWTH, draw, largest, plain
from bench.running import ROOT
from bench.table import told

PAGE: Final = ROOT / "docs" / "benchmarks.md"
PLOTS: Final = ROOT / "docs" / "plots"
README: Final = ROOT / "README.md"
BLOCK: Final = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end figures -->)", re.DOTALL)
REMARKS: Final = re.compile(r"<!-- remarks -->\n.*?<!-- end remarks -->\n", re.DOTALL)
"""The one part of the page that people write; kept as it is."""
NO_REMARKS: Final = "<!-- remarks -->\n<!-- end remarks -->\n"
_COLUMNS: Final = {
    "of asked": "probes that came, over those that were asked for: below 1 it fell behind",
    "cores": "CPU a second of the clock; 1 is one core",
    "late": "between two probes of one target, over or under the interval, as the farm saw it",
    "fullest 100 ms": "the probes in the fullest 100 ms over what the asked rate puts there",
    "lag": "from due to start, by the prober's own histogram: the bound of the bucket",
    "sockets": "connections open at the farm at the end",
    "bus server": "what Valkey spent a probe; it is not in the prober's CPU",
}
_WATCHED: Final = {Scene.STEADY, Scene.FLAT_OUT}
_MET: Final = {True: "met", False: "**not met**", None: "not measured"}

_PAGE: Final = """\
# What it costs

The prober beside a floor in C that writes a request and reads a reply and does nothing else, and
beside others that check health for a living. CPU is user and system time of the process tree, over
probes **as the farm counted them**; all take turns, so that a machine that drifts drifts for all.
Medians of {rounds} x {seconds:g} s, with the extremes beside them. Digits are this machine's;
ratios carry over.

## Goals

{goals}
## Kept connections

{kept}
## New connections

{new}
![CPU a probe]({plots}/{cost})

## Growth

{curve}
![CPU and memory by targets]({plots}/{growth})

## Faults, answers, capacity

`fleetpulse probe` alone.

{others}
## Moments

{moments}
## Who is who

{peers}

{columns}

`python -m bench --json` has everything that was measured, with the extremes.

{remarks}
## Where, when, and what it does not show

{machine}. Commit {commit}, {date}, {size} run of {took:.0f} s; load average {before:.2f} before and
{after:.2f} after.

{not_shown}

Again, on your machine: `make bench-docs` writes this page (half an hour; a C compiler, HAProxy and
blackbox_exporter from Debian), `make bench` prints a reduced run in three minutes.
"""
_README: Final = """
{targets:,} replicas, each probed once a second, beside a floor in C that writes a request and reads
a reply and does nothing else, and beside others ([docs/benchmarks.md](docs/benchmarks.md); {cores},
loopback; trust the ratios). CPU a probe, in us, and its ratio to the floor:

{table}
So {targets:,} replicas a second cost {share:.2f} cores and {memory:.0f} MB over kept connections.

"""
_IN_README: Final = (Prober.FLOOR, Prober.WIRE, Prober.PROBE, Prober.ENVOY, Prober.HAPROXY)


def page(run: Run, *, remarks: str) -> str:
    """Return the page of a run, with what people have to say about it."""
    fast = plain(run)
    by_regime = {
        regime: largest(row for row in fast if row.case.regime is regime) for regime in Regime
    }
    others = [
        row for row in run.rows if row not in fast and row.case.scene in _WATCHED and row.median
    ]
    return _PAGE.format(
        rounds=run.rounds,
        seconds=run.seconds,
        goals=_goals(run),
        kept=_costs(by_regime[Regime.KEPT]),
        new=_costs(by_regime[Regime.NEW]),
        curve=_curve(fast),
        others=_others(others),
        moments=_moments(row for row in run.rows if row.case.scene not in _WATCHED),
        plots=PLOTS.name,
        cost=COST,
        growth=GROWTH,
        peers=_list(f"**{name}**: {peer.what}" for name, peer in PEERS.items()),
        columns=_list(f"**{name}**: {what}" for name, what in _COLUMNS.items()),
        remarks=remarks,
        machine=run.machine,
        commit=run.commit,
        date=run.date,
        size=run.size,
        took=run.took_s,
        before=run.load_before[0],
        after=run.load_after[0],
        not_shown=_list((*run.not_shown, *_missing(run))),
    )


def figures(run: Run) -> str:
    """Return what README says of costs; every figure of it stands on the page too."""
    rows = {(row.case.prober, row.case.regime): row for row in largest_of_both(run)}
    ours = rows[Prober.PROBE, Regime.KEPT]
    table = [[prober, *(_cell(rows, prober, regime) for regime in Regime)] for prober in _IN_README]
    return _README.format(
        targets=ours.case.targets,
        cores=run.machine.partition(",")[0],
        table=_table(("", "kept connection", "new connection"), table),
        share=ours.median["cpu_share"],
        memory=ours.median["rss_bytes"] / 1e6,
    )


def largest_of_both(run: Run) -> list[Row]:
    """Return each prober's row with the most targets, in each regime."""
    fast = plain(run)
    return [
        row
        for regime in Regime
        for row in largest(row for row in fast if row.case.regime is regime)
    ]


def _cell(rows: dict[tuple[Prober, Regime], Row], prober: Prober, regime: Regime) -> str:
    row, floor = rows.get((prober, regime)), rows.get((Prober.FLOOR, regime))
    if row is None or floor is None:
        return "-"
    cost = row.median["cpu_us"]
    return f"{cost:.1f} (x {cost / floor.median['cpu_us']:.2f})"


def _goals(run: Run) -> str:
    rows = [
        [
            *((verdict.goal, verdict.title) if number == 0 else ("", "")),
            check.what,
            *told(check),
            _MET[check.met],
        ]
        for verdict in run.verdicts
        for number, check in enumerate(verdict.checks)
    ]
    return _table(("", "goal", "measured", "found", "promised", ""), rows, numbers={3, 4})


def _costs(rows: Sequence[Row]) -> str:
    floor = next((row for row in rows if row.case.prober is Prober.FLOOR), None)
    heads = ["prober", "targets", "CPU, us a probe", "from", "to", "x floor", "cores", "of asked"]
    heads += ["memory, MB", "late p99, ms", "fullest 100 ms", "bus server, us"]
    lines = [
        [
            row.case.prober,
            f"{row.case.targets:,}",
            *(f"{side['cpu_us']:.1f}" for side in (row.median, row.low, row.high)),
            f"{row.median['cpu_us'] / floor.median['cpu_us']:.2f}" if floor else "-",
            f"{row.median['cpu_share']:.2f}",
            f"{row.median['of_asked']:.2f}",
            f"{row.median['rss_bytes'] / 1e6:.0f}",
            f"{row.median['late_p99_ms']:.0f}",
            f"{row.median['fullest_100ms']:.2f}",
            f"{row.median['bus_cpu_us']:.1f}",
        ]
        for row in sorted(rows, key=lambda row: row.median["cpu_us"])
    ]
    return _table(heads, lines, numbers=set(range(1, len(heads))))


def _curve(rows: Sequence[Row]) -> str:
    counts = sorted({row.case.targets for row in rows if row.case.prober in _IN_README})
    costs = {(row.case.prober, row.case.regime, row.case.targets): row for row in rows}
    lines = []
    for prober in _IN_README:
        for regime in Regime:
            found = [costs.get((prober, regime, count)) for count in counts]
            if any(found):
                lines.append([f"{prober}, {regime}", *map(_both, found)])
    heads = ("CPU, us a probe; memory, MB", *(f"{count:,} targets" for count in counts))
    return _table(heads, lines, numbers=set(range(1, len(heads))))


def _both(row: Row | None) -> str:
    if row is None:
        return "-"
    return f"{row.median['cpu_us']:.1f}; {row.median['rss_bytes'] / 1e6:.0f}"


def _others(rows: Sequence[Row]) -> str:
    heads = ["case", "CPU, us a probe", "cores", "probes/s", "sockets", "bus, KB/s"]
    heads += ["lag p99, ms", "lag p99.9, ms", "memory, MB"]
    lines = [
        [
            str(row.case).removeprefix(f"{Prober.PROBE}, "),
            f"{row.median['cpu_us']:.1f}",
            f"{row.median['cpu_share']:.2f}",
            f"{row.median['probes_per_s']:,.0f}",
            f"{row.median['sockets']:,.0f}",
            *(
                f"{row.median[name] * factor:,.0f}" if name in row.median else "-"
                for name, factor in (
                    ("bus_bytes_per_s", 1e-3),
                    ("lag_p99_ms", 1),
                    ("lag_p999_ms", 1),
                    ("rss_bytes", 1e-6),
                )
            ),
        ]
        for row in rows
    ]
    return _table(heads, lines, numbers=set(range(1, len(heads))))


def _moments(rows: Iterable[Row]) -> str:
    lines = [
        [
            str(row.case).removeprefix(f"{Prober.PROBE}, "),
            MEASURES[name],
            *(f"{side[name]:.3f}" for side in (row.median, row.low, row.high)),
        ]
        for row in rows
        for name in row.median
    ]
    return _table(("case", "what", "median", "from", "to"), lines, numbers={2, 3, 4})


def _missing(run: Run) -> Iterable[str]:
    return (f"{row.case}: {row.missing.splitlines()[-1]}" for row in run.rows if row.missing)


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: set[int] | None = None
) -> str:
    marks = ["---:" if n in (numbers or ()) else "---" for n in range(len(heads))]
    lines = [heads, marks, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"* {item}" for item in items)


def main() -> None:
    """Write page, plots and figures of the run named on the command line."""
    run = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Run)
    draw(run, PLOTS)
    kept = REMARKS.search(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(page(run, remarks=kept[0] if kept else NO_REMARKS), encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    README.write_text(BLOCK.sub(lambda _: figures(run), readme), encoding="utf-8")


if __name__ == "__main__":
    main()
