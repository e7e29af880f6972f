"""What the commands share: exit codes, errors in one line, and how rows are shown."""

import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn, TypeVar

import anyio
import click

from controller.db.session import open_database
from controller.errors import ControllerError, InvalidInput, LeaseLost, Unreachable
from probe.errors import BusError, FleetpulseError, SettingsError

EXIT_BAD: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_LEASE_LOST: Final = 4

_Result = TypeVar("_Result")


def _named(ctx: click.Context, _param: click.Parameter, url: str | None) -> str:
    if not url:
        raise click.UsageError(
            "no database is named: pass --database sqlite:///fleetpulse.db, or set "
            "FLEETPULSE_DATABASE_URL.",
            ctx,
        )
    return url


database_option = click.option(
    "--database",
    "database_url",
    envvar="FLEETPULSE_DATABASE_URL",
    metavar="URL",
    callback=_named,
    help="Where the state lives: sqlite:///PATH or postgresql://…  "
    "[required; env: FLEETPULSE_DATABASE_URL]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
reason_option = click.option("--reason", default="", help="Kept in the audit log.")


def run(work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run one command's work; what goes wrong on purpose ends as in `plainly`."""
    with plainly():
        return anyio.run(work)


@contextmanager
def plainly() -> Iterator[None]:
    """Turn what is raised on purpose into one sentence and its exit code."""
    try:
        yield
    except (InvalidInput, SettingsError) as error:
        fail(str(error), EXIT_USAGE)
    except (Unreachable, BusError) as error:
        fail(str(error), EXIT_UNREACHABLE)
    except LeaseLost as error:
        fail(str(error), EXIT_LEASE_LOST)
    except (ControllerError, FleetpulseError) as error:
        fail(str(error), EXIT_BAD)


def fail(message: str, code: int) -> NoReturn:
    """Print one sentence on stderr and exit with `code`."""
    click.echo(f"fleetpulse: {message}", err=True)
    sys.exit(code)


async def require(database_url: str) -> None:
    """Refuse a path where no database is, before asking for its version would create one.

    Raises:
        InvalidInput: if `database_url` cannot be used.
        DatabaseUnreachable: if there is no database.
    """
    database = open_database(database_url)
    try:
        async with database.read():
            pass
    finally:
        await database.close()


def show(rows: Sequence[Mapping[str, object]], *, as_json: bool, nothing: str) -> None:
    """Print rows as JSON Lines or in columns; `nothing` says what no rows mean.

    Nothing is cut to the width of a terminal: ids are there to be copied, lines to be searched.
    """
    if as_json:
        for row in rows:
            click.echo(json.dumps(dict(row)))
        return
    if not rows:
        click.echo(nothing, err=True)
        return
    head = [name.replace("_", " ").upper() for name in rows[0]]
    lines = [head, *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo(text.rstrip() if number else click.style(text.rstrip(), bold=True))


def show_one(row: Mapping[str, object], *, as_json: bool) -> None:
    """Print one thing as a JSON object or as lines."""
    if as_json:
        click.echo(json.dumps(dict(row)))
        return
    width = max(len(name) for name in row)
    for name, value in row.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {_cell(value)}")


def said(sentence: str, row: Mapping[str, object], *, as_json: bool) -> None:
    """Print what a verb did: a sentence for people, an object for programs."""
    click.echo(json.dumps(dict(row)) if as_json else sentence)


def _cell(value: object) -> str:
    """Return a value on one line; what a replica said may hold anything, a terminal's codes too."""
    if value is None or value == "":
        return "-"
    return "".join(letter if letter.isprintable() else " " for letter in str(value))
