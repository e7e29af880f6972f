"""`fleetpulse db`: bring the schema up to date."""

import click

from controller.cli.session import database_option, json_option, run, show_one
from controller.db import migrate


@click.group()
def db() -> None:
    """Migrate the database's schema."""


@db.command()
@database_option
def upgrade(database_url: str) -> None:
    """Create the schema, or bring it up to date; safe to repeat."""
    before = run(lambda: migrate.current(database_url))
    run(lambda: migrate.upgrade(database_url))
    after = run(lambda: migrate.current(database_url))
    click.echo(f"already at {after}" if before == after else f"{before or 'empty'} -> {after}")


@db.command()
@database_option
@json_option
def current(database_url: str, as_json: bool) -> None:  # noqa: FBT001 - click passes by name
    """Show the schema's version, and the one this program needs."""
    found = run(lambda: migrate.current(database_url))
    show_one({"current": found, "needed": migrate.head()}, as_json=as_json)
