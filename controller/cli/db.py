"""`fleetpulse db`: bring the schema up to date."""

import click

from controller.cli.session import database_option, json_option, require, run, said, show_one
from controller.db import migrate
from controller.errors import Conflict
from probe.layers import mask_url


@click.group()
def db() -> None:
    """Migrate the database's schema."""


@db.command()
@database_option
@json_option
def upgrade(database_url: str, as_json: bool) -> None:  # noqa: FBT001 - click passes by name
    """Create the schema, or bring it up to date; safe to repeat."""
    needed = migrate.head()

    async def work() -> tuple[str | None, str | None]:
        before = await migrate.current(database_url)
        if before is not None and before > needed:  # they are counted, with leading zeros
            raise Conflict(
                f"the schema of {mask_url(database_url)} is {before}, this program knows {needed} "
                "as the newest: use the release that made it, there is no way back"
            )
        await migrate.upgrade(database_url)
        return before, await migrate.current(database_url)

    before, after = run(work)
    sentence = f"already at {after}" if before == after else f"{before or 'empty'} -> {after}"
    said(sentence, {"before": before, "after": after}, as_json=as_json)


@db.command()
@database_option
@json_option
def current(database_url: str, as_json: bool) -> None:  # noqa: FBT001
    """Show the schema's version, and the one this program needs; exit 1 where they differ."""

    async def work() -> str | None:
        await require(database_url)
        return await migrate.current(database_url)

    found = run(work)
    show_one({"current": found, "needed": migrate.head()}, as_json=as_json)
    if found != migrate.head():
        raise SystemExit(1)
