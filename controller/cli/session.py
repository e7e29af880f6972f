"""What the commands share: the service on a database, exit codes, and how rows are shown."""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NoReturn, TypeVar

import anyio
import click

from controller.db.session import open_database
from controller.errors import (
    Conflict,
    ControllerError,
    DatabaseUnreachable,
    InvalidInput,
)
from controller.service import Service
from probe.errors import BusError, FleetpulseError, SettingsError

EXIT_BAD: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3

_Result = TypeVar("_Result")

database_option = click.option(
    "--database",
    "database_url",
    envvar="FLEETPULSE_DATABASE_URL",
    metavar="URL",
    required=True,
    help="Where the state lives: sqlite:///PATH.  [env: FLEETPULSE_DATABASE_URL]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")


def run(work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run one command's work; a mistake of the user ends in one sentence and its exit code."""
    try:
        return anyio.run(work)
    except (InvalidInput, SettingsError) as error:
        fail(str(error), EXIT_USAGE)
    except (DatabaseUnreachable, BusError) as error:
        fail(str(error), EXIT_UNREACHABLE)
    except (Conflict, ControllerError, FleetpulseError) as error:
        fail(str(error), EXIT_BAD)


def fail(message: str, code: int) -> NoReturn:
    """Print one sentence on stderr and exit with `code`."""
    click.echo(f"fleetpulse: {message}", err=True)
    sys.exit(code)


@asynccontextmanager
async def service(database_url: str) -> AsyncIterator[Service]:
    """Open the service on a database, and close it afterwards."""
    database = open_database(database_url)
    try:
        yield Service(database)
    finally:
        await database.close()


def show(rows: Sequence[Mapping[str, object]], *, as_json: bool, nothing: str) -> None:
    """Print rows as JSON Lines or as a table; `nothing` says what no rows mean."""
    if as_json:
        for row in rows:
            click.echo(json.dumps(dict(row)))
        return
    if not rows:
        click.echo(nothing, err=True)
        return
    from rich.console import Console  # noqa: PLC0415 - 40 ms that --json need not pay
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    Console().print(table)


def show_one(row: Mapping[str, object], *, as_json: bool) -> None:
    """Print one thing as a JSON object or as lines."""
    if as_json:
        click.echo(json.dumps(dict(row)))
        return
    width = max(len(name) for name in row)
    for name, value in row.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {'-' if value is None else value}")
