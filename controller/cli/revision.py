"""`fleetpulse revision`: the versions of a deployment, and where each one's values come from."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from controller.cli.deployment import file_option, read_file
from controller.cli.folders import local_folders
from controller.cli.place import Place, place_options
from controller.cli.session import (
    json_option,
    reason_option,
    run,
    said,
    show,
    show_one,
)
from controller.definition.resolve import values_of
from controller.model import RevisionSpec
from controller.model_definition import ModelDefinition


@click.group()
def revision() -> None:
    """Add, list and show revisions."""


@revision.command()
@click.argument("name")
@file_option
@click.option("--auto-activate", is_flag=True, help="Start the rollout to it at once.")
@reason_option
@place_options
@json_option
def add(
    name: str, *, path: Path, auto_activate: bool, reason: str, place: Place, as_json: bool
) -> None:
    """Add the revision that a deployment file holds, under the next number."""

    async def work() -> None:
        wanted = read_file(path).revision
        async with place.verbs() as verbs:
            added = await verbs.add_revision(
                name, wanted, auto_activate=auto_activate, reason=reason
            )
        then = "its rollout has started" if auto_activate else "not activated"
        row = {"name": name, "number": added.number, "id": added.id, "activated": auto_activate}
        said(f"{name}: revision {added.number}, {then}", row, as_json=as_json)

    run(work)


@revision.command(name="list")
@click.argument("name")
@place_options
@json_option
def list_(name: str, place: Place, as_json: bool) -> None:  # noqa: FBT001
    """List the revisions of a deployment, newest first."""

    async def work() -> None:
        async with place.verbs() as verbs:
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


@revision.command(name="show")
@click.argument("name")
@click.argument("number", type=int)
@place_options
@json_option
def show_(name: str, number: int, place: Place, as_json: bool) -> None:  # noqa: FBT001
    """Show what a revision runs, and which layer each value of its definition is from."""

    async def work() -> None:
        async with place.verbs() as verbs:
            found = await verbs.get_revision(name, number)
        head = {"name": name, "number": found.number, "id": found.id}
        _show(head, found.spec, found.definition, as_json=as_json)

    run(work)


@revision.command()
@file_option
@json_option
def resolve(path: Path, as_json: bool) -> None:  # noqa: FBT001
    """Show what a deployment file's revision would come to on this machine; write nothing."""

    async def work() -> None:
        wanted = read_file(path)
        found = await local_folders().resolve(wanted.revision)
        _show({"name": wanted.name}, found.spec, found.definition, as_json=as_json)

    run(work)


def _show(
    head: dict[str, object],
    spec: RevisionSpec,
    definition: ModelDefinition | None,
    *,
    as_json: bool,
) -> None:
    if as_json:
        resolved = {
            "spec": msgspec.to_builtins(spec),
            "definition": msgspec.to_builtins(definition),
        }
        show_one(head | resolved, as_json=True)
        return
    variant = None if definition is None else definition.variant
    environment = [f"{name}={value}" for name, value in spec.environment.items()]
    told = msgspec.to_builtins(spec) | {"environment": environment}
    show_one(head | {"variant": variant} | dict(_flat(told)), as_json=False)
    if definition is not None:
        click.echo()
        rows = [
            {"place": place, "from": source.value, "value": _plain(value)}
            for place, source, value in values_of(definition)
        ]
        show(rows, as_json=False, nothing="no definition")


def _flat(values: dict[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of nested tables, each under its whole name."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{before}{key} ")
        else:
            yield f"{before}{key}", _plain(value)


def _plain(value: object) -> object:
    """Return a list of words as one would type it."""
    return shlex.join(map(str, value)) if isinstance(value, list | tuple) else value
