"""`python -m bench --json | python -m bench.report > docs/benchmarks.md`: a run, as a page."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_HEAD = """# What it costs

The prober beside a floor: {floor_lines} lines of C that write a request and read a reply by epoll,
and do nothing else. CPU is user and system time of the process tree, over probes as the farm
counted them; the probers take turns, so that a machine that drifts drifts for all.

Kept-alive GET, {targets:,} targets once a second each, median of {rounds} x {seconds:g} s.

| prober | CPU, us a probe | from | to | x floor | probes/s | memory, MB | bus server, us a probe |
|---|---:|---:|---:|---:|---:|---:|---:|
"""
_TAIL = """
* **C floor**: what the kernel takes for one request and one reply on a kept connection.
* **fleetpulse wire**: schedule, deadlines, HTTP, verdicts and counters; no bus, no metrics port.
* **fleetpulse probe**: the daemon, from the target on the bus to the status on the bus.

Machine: {machine}. Commit: {commit}.

What this does not show:

{not_shown}

Again, on your machine: `make bench`. It needs a C compiler, takes three minutes, and
`python -m bench --json | python -m bench.report` writes this page.
"""


def page(run: dict[str, Any], *, commit: str, floor_lines: int) -> str:
    """Return the page of one run, as `python -m bench --json` printed it."""
    rows = "".join(_row(row) for row in run["probers"])
    head = _HEAD.format(
        floor_lines=floor_lines,
        targets=run["targets"],
        rounds=len(run["rounds"]) // len(run["probers"]),
        seconds=run["seconds"],
    )
    tail = _TAIL.format(
        machine=run["machine"],
        commit=commit,
        not_shown="\n".join(f"* {sentence}" for sentence in run["not_shown"]),
    )
    return head + rows + tail


def _row(row: dict[str, Any]) -> str:
    """Return one line of the table; a run too short for the clock has no cost to show."""
    cost, ratio = row["cpu_us_per_probe"], row["ratio_to_floor"]
    low, high = row["spread"] or (None, None)
    cells = [
        row["prober"],
        *("too short" if value is None else f"{value:.1f}" for value in (cost, low, high)),
        "-" if ratio is None else f"{ratio:.2f}",
        f"{row['probes_per_second']:,.0f}",
        f"{row['rss_bytes'] / 1e6:.0f}",
        f"{row['bus_cpu_us_per_probe']:.1f}",
    ]
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    """Read a run on standard input, write its page on standard output."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
    ).stdout.strip()
    source = Path(__file__).with_name("floor") / "floor.c"
    floor_lines = sum(1 for line in source.read_text().splitlines() if line.strip())
    sys.stdout.write(page(json.load(sys.stdin), commit=commit, floor_lines=floor_lines))


if __name__ == "__main__":
    main()
