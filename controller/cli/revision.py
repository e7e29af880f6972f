"""`fleetpulse revision`: the versions of a deployment."""

from pathlib import Path

import click

from controller.cli.deployment import file_option, read_file
from controller.cli.session import database_option, json_option, run, said, service, show


@click.group()
def revision() -> None:
    """Add and list revisions."""


@revision.command()
@click.argument("name")
@file_option
@click.option("--auto-activate", is_flag=True, help="Start the rollout to it at once.")
@database_option
@json_option
def add(name: str, path: Path, auto_activate: bool, database_url: str, as_json: bool) -> None:  # noqa: FBT001
    """Add the revision that a deployment file holds, under the next number."""

    async def work() -> None:
        spec = read_file(path).revision
        async with service(database_url) as verbs:
            added = await verbs.add_revision(name, spec, auto_activate=auto_activate)
        then = "its rollout has started" if auto_activate else "not activated"
        row = {"name": name, "number": added.number, "id": added.id, "activated": auto_activate}
        said(f"{name}: revision {added.number}, {then}", row, as_json=as_json)

    run(work)


@revision.command(name="list")
@click.argument("name")
@database_option
@json_option
def list_(name: str, database_url: str, as_json: bool) -> None:  # noqa: FBT001
    """List the revisions of a deployment, newest first."""

    async def work() -> None:
        async with service(database_url) as verbs:
            found = await verbs.get_deployment(name)
            revisions = await verbs.list_revisions(name)
        roles = {
            found.current and found.current.id: "current",
            found.deploying and found.deploying.id: "deploying",
        }
        rows = [
            {
                "number": one.number,
                "role": roles.get(one.id),
                "runs": " ".join(one.spec.command) or one.spec.image or None,
                "health_path": one.spec.health_check and one.spec.health_check.path,
                "id": one.id,
            }
            for one in revisions
        ]
        show(rows, as_json=as_json, nothing=f"{name} has no revisions")

    run(work)
