"""`fleetpulse simulate`: a scenario in virtual time, by a seed; needs no server and no file."""

from pathlib import Path

import click
import msgspec

from controller.cli.session import json_option
from controller.errors import InvalidInput
from controller.simulate.chance import random_scenario
from controller.simulate.picture import svg
from controller.simulate.report import Run, run
from controller.simulate.scenario import Scenario, load

RANDOM = "random"
WRONG = 3
"""The exit code of a run that broke something, or came to something else than expected."""


@click.command()
@click.argument("named", metavar="SCENARIO")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="The chance.")
@click.option(
    "--svg",
    "picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the timeline as a picture to this file.",
)
@json_option
def simulate(named: str, *, seed: int, picture: Path | None, as_json: bool) -> None:
    """Run a scenario in virtual time: the real coordinator and rules, over a world in memory.

    SCENARIO is a TOML file, or `random` for one that the seed makes up. The same seed gives the
    same bytes. The exit code is 3 when an invariant broke or the run is not as the scenario
    expects.
    """
    done = run(_scenario(named, seed), seed=seed)
    if picture is not None:
        picture.write_text(svg(done))
    if as_json:
        click.echo(_json(done))
    else:
        for line in done.text:
            click.echo(line)
        for what in (*done.report.violations, *done.report.unexpected):
            click.echo(f"WRONG: {what}")
        click.echo(done.report.summary)
    if not done.report.good:
        raise SystemExit(WRONG)


def _scenario(named: str, seed: int) -> Scenario:
    if named == RANDOM:
        return random_scenario(seed)
    try:
        return load(Path(named))
    except InvalidInput as error:
        raise click.ClickException(str(error)) from error


def _json(done: Run) -> str:
    return msgspec.json.encode({"report": done.report, "timeline": done.lines}).decode()
