"""`fleetpulse controller`: run the control plane's daemon."""

import os
from functools import partial
from pathlib import Path

import click

from controller.cli.session import require, run
from controller.daemon import Controller
from controller.settings import load
from probe import logs


@click.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="A TOML file with a table [controller].",
)
@click.option(
    "--database",
    "database_url",
    metavar="URL",
    help="Where the state lives: sqlite:///PATH or postgresql://…",
)
@click.option(
    "--redis", "redis_url", metavar="URL", help="The bus: redis://, rediss:// or unix://."
)
@click.option("--metrics", metavar="HOST:PORT", help="Where /metrics is; port 0 picks a free one.")
@click.option("--once", is_flag=True, help="Run every handler once, end.")
@click.option("--check-config", is_flag=True, help="Print the settings and their sources, end.")
def controller(
    file: Path | None,
    once: bool,  # noqa: FBT001 - click passes by name
    check_config: bool,  # noqa: FBT001
    **flags: str | None,
) -> None:
    """Lead the fleet: reconcile routes and rollouts, or stand by for the one that does."""

    async def work() -> None:
        given = {name: value for name, value in flags.items() if value is not None}
        effective = load(file, os.environ, flags=given)
        if check_config:
            for line in effective.lines():
                click.echo(line)
            return
        await require(effective.settings.database_url)
        logs.configure()
        await Controller(effective.settings, report=partial(click.echo)).run(once=once)

    run(work)
