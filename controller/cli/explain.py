"""`fleetpulse explain`: why a replica or deployment is where it is, and what happens next."""

import os
from pathlib import Path

import click
import msgspec

from controller.bus import BusFiles, ControlBus, connect
from controller.cli.place import api_options
from controller.cli.session import json_option, run
from controller.db.session import open_database
from controller.explaining import explain as gather
from controller.explanation import Explanation
from controller.settings import Settings, load
from probe.wire import Keys


@click.command()
@click.argument("named", metavar="ID")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="The controller's TOML file: its bus, its database, its periods.",
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
@api_options
@json_option
def explain(
    named: str,
    *,
    file: Path | None,
    database_url: str | None,
    redis_url: str | None,
    api_url: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    as_json: bool,
) -> None:
    """Tell why a route or deployment is in its state, which rule fired, and what happens next.

    ID is a route's id, how it begins, or a deployment's name.
    """
    here = bool(database_url or redis_url or file)
    source = click.get_current_context().get_parameter_source("api_url")
    if here and source is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--api and --config, --database or --redis are two places.")

    async def work() -> Explanation:
        if api_url and not (database_url or file):
            from controller.cli.remote import client_of  # noqa: PLC0415 - as in `place`

            async with client_of(api_url, token_file=token_file, ca_file=ca_file) as client:
                return await client.explain(named)
        flags = {"database_url": database_url, "redis_url": redis_url}
        given = {name: value for name, value in flags.items() if value is not None}
        return await _gather(named, load(file, os.environ, flags=given).settings)

    told = run(work)
    click.echo(msgspec.json.encode(told).decode() if as_json else told.text)


async def _gather(named: str, settings: Settings) -> Explanation:
    database = open_database(settings.database_url)
    client = connect(settings.redis_url, files=BusFiles.of(settings))
    bus = ControlBus(client, Keys(settings.key_prefix))
    try:
        return await gather(database, bus, named, settings=settings)
    finally:
        await bus.aclose()
        await database.close()
