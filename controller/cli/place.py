"""Where a command's verbs are carried out: on a database, or by the API of a controller.

What is typed goes before what the environment says. Both typed is refused; with both in the
environment it is the API, as the database is then usually out of reach and the controller's own.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from controller.cli.folders import local_folders
from controller.db.session import open_database
from controller.service import Service
from controller.verbs import Verbs

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database, or an API; one of the two addresses is empty."""

    database_url: str = ""
    api_url: str = ""
    token_file: Path | None = None
    ca_file: Path | None = None

    @asynccontextmanager
    async def verbs(self) -> AsyncIterator[Verbs]:
        """Open the verbs there, and close them afterwards.

        Raises:
            InvalidInput: if the address, the token or the authorities cannot be used.
        """
        if self.api_url:
            from controller.cli.remote import client_of  # noqa: PLC0415 - 50 ms others need not pay

            async with client_of(
                self.api_url, token_file=self.token_file, ca_file=self.ca_file
            ) as client:
                yield client
            return
        database = open_database(self.database_url)
        try:
            yield Service(database, folders=local_folders())
        finally:
            await database.close()


_OPTIONS: Final = (
    click.option(
        "--database",
        "database_url",
        envvar="FLEETPULSE_DATABASE_URL",
        metavar="URL",
        help="Where the state lives: sqlite:///PATH or postgresql://…",
    ),
    click.option(
        "--api",
        "api_url",
        envvar="FLEETPULSE_API_URL",
        metavar="URL",
        help="A controller to ask instead: https://HOST:9156.",
    ),
    click.option(
        "--token-file",
        envvar="FLEETPULSE_API_TOKEN_FILE",
        type=click.Path(path_type=Path),
        help="Holds the token for the API; else FLEETPULSE_API_TOKEN.",
    ),
    click.option(
        "--ca-file",
        envvar="FLEETPULSE_API_CA_FILE",
        type=click.Path(path_type=Path),
        help="Authorities that sign the API's certificate.",
    ),
)


def api_options(command: _Command) -> _Command:
    """Give a command the options of the API alone: `api_url`, `token_file` and `ca_file`."""
    wrapped: Any = command
    for option in reversed(_OPTIONS[1:]):
        wrapped = option(wrapped)
    found: _Command = wrapped
    return found


def place_options(command: _Command) -> _Command:
    """Give a command the options that say where, as one argument `place`."""

    @wraps(command)
    def at_place(
        *arguments: Any,  # noqa: ANN401 - whatever the command takes
        database_url: str | None,
        api_url: str | None,
        token_file: Path | None,
        ca_file: Path | None,
        **options: Any,  # noqa: ANN401
    ) -> object:
        context = click.get_current_context()
        place = _place(context, database_url, api_url, token_file, ca_file)
        return command(*arguments, place=place, **options)

    wrapped: Any = at_place
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    found: _Command = wrapped
    return found


def _place(
    context: click.Context,
    database_url: str | None,
    api_url: str | None,
    token_file: Path | None,
    ca_file: Path | None,
) -> Place:
    typed = [
        name
        for name in ("database_url", "api_url")
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if len(typed) > 1:
        raise click.UsageError("--database and --api are two places: give one of them.", context)
    if not (database_url or api_url):
        raise click.UsageError(
            "no database is named: pass --database sqlite:///fleetpulse.db, or set "
            "FLEETPULSE_DATABASE_URL; or name a controller with --api.",
            context,
        )
    if api_url and typed != ["database_url"]:
        return Place(api_url=api_url, token_file=token_file, ca_file=ca_file)
    return Place(database_url=database_url or "")
