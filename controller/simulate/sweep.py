"""Many seeds of random scenarios: which break anything, and how fast it goes.

`python -m controller.simulate.sweep --seeds 5000` prints every seed that is wrong, and a line at
the end; its exit code says whether there was one.
"""

import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import click

from controller.simulate.chance import DURATION_S, random_scenario
from controller.simulate.report import Report, run

_CHUNK: Final = 8


def of_seed(seed: int) -> Report:
    """Run the random scenario of one seed."""
    return run(random_scenario(seed), seed=seed).report


def sweep(seeds: Iterable[int], *, processes: int = 1) -> Iterable[Report]:
    """Yield the report of each seed, in order."""
    if processes == 1:
        yield from map(of_seed, seeds)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(of_seed, seeds, chunksize=_CHUNK)


@click.command()
@click.option("--seeds", default=100, show_default=True, type=click.IntRange(1, 1_000_000))
@click.option("--first", default=0, show_default=True, type=click.IntRange(0))
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1, 64))
def main(*, seeds: int, first: int, processes: int) -> None:
    """Run random scenarios, one for each seed."""
    started, wrong, rollouts = time.perf_counter(), 0, 0
    for report in sweep(range(first, first + seeds), processes=processes):
        rollouts += sum(len(each.outcomes) for each in report.deployments.values())
        if not report.good:
            wrong += 1
            for what in (*report.violations, *report.unexpected):
                click.echo(f"seed {report.seed}: {what}")
    took_s = time.perf_counter() - started
    click.echo(
        f"{seeds} seeds of {DURATION_S:g} virtual seconds, {rollouts} rollouts, {wrong} seeds "
        f"wrong; {seeds / took_s:.2f} seeds per second"
    )
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
