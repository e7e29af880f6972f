"""`fleetpulse deployment`: what should run, and how many of it."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from controller.cli.place import Place, place_options
from controller.cli.session import (
    json_option,
    reason_option,
    run,
    said,
    show,
    show_one,
)
from controller.db.events import HistoryEntry
from controller.definition.deployment_file import (
    SIZE_MAX_CHARS,
    DeploymentFile,
    Syntax,
    parse,
    syntax_of,
)
from controller.errors import InvalidInput
from controller.model import Deployment, Route

file_option = click.option(
    "-f",
    "--file",
    "path",
    required=True,
    type=click.Path(path_type=Path, allow_dash=True),
    help="TOML, YAML or JSON; - reads JSON from standard input.",
)


@click.group()
def deployment() -> None:
    """Create, show and scale deployments."""


@deployment.command()
@file_option
@reason_option
@place_options
@json_option
def apply(path: Path, reason: str, place: Place, as_json: bool) -> None:  # noqa: FBT001 - click
    """Make a deployment what a file says; repeating it changes nothing."""

    async def work() -> None:
        wanted = read_file(path)
        async with place.verbs() as verbs:
            applied = await verbs.apply_deployment(
                wanted.name,
                replicas=wanted.replicas,
                policy=wanted.policy,
                cleanup_target_statuses=wanted.cleanup_target_statuses,
                revision=wanted.revision,
                auto_activate=wanted.auto_activate,
                reason=reason,
            )
            routes = await verbs.list_routes()
        said(
            f"{wanted.name}: {'; '.join(applied.changes) or 'unchanged'}",
            describe(applied.deployment, routes) | {"changes": applied.changes},
            as_json=as_json,
        )

    run(work)


@deployment.command(name="list")
@place_options
@json_option
def list_(place: Place, as_json: bool) -> None:  # noqa: FBT001
    """List deployments with their replicas."""

    async def work() -> None:
        async with place.verbs() as verbs:
            found = await verbs.list_deployments()
            routes = await verbs.list_routes()
        show([describe(d, routes) for d in found], as_json=as_json, nothing="no deployments")

    run(work)


@deployment.command(name="show")
@click.argument("name")
@place_options
@json_option
def show_(name: str, place: Place, as_json: bool) -> None:  # noqa: FBT001
    """Show one deployment and what happened to it last."""

    async def work() -> None:
        async with place.verbs() as verbs:
            found = await verbs.get_deployment(name)
            routes = await verbs.list_routes(name)
            history = await verbs.history(name, limit=10)
        if as_json:
            events = [{"at_ms": entry.updated_at_ms} | _event(entry) for entry in history]
            show_one(describe(found, routes) | {"history": events}, as_json=True)
            return
        show_one(describe(found, routes), as_json=False)
        click.echo()
        told = [{"at": _utc(entry.updated_at_ms)} | _event(entry) for entry in history]
        show(told, as_json=False, nothing="no history")

    run(work)


@deployment.command(context_settings={"ignore_unknown_options": True})  # -1 is a number, too
@click.argument("name")
@click.argument("replicas", type=int)
@reason_option
@place_options
@json_option
def scale(name: str, replicas: int, reason: str, place: Place, as_json: bool) -> None:  # noqa: FBT001
    """Want another count of replicas, until another count is applied."""

    async def work() -> None:
        async with place.verbs() as verbs:
            found = await verbs.scale(name, replicas, reason=reason)
            routes = await verbs.list_routes()
        sentence = f"{found.name}: {found.target_count} replicas wanted"
        said(sentence, describe(found, routes), as_json=as_json)

    run(work)


def as_seconds(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> float | None:
    """Return a time as people write it, 90s, 10m or 1h, in seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,5})([smh]?)", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no time; write for example 90s, 10m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


@deployment.command()
@click.argument("name")
@click.option(
    "--for",
    "for_s",
    required=True,
    metavar="TIME",
    callback=as_seconds,
    help="How long, up to 1h: 90s, 10m; 0 ends it.",
)
@click.option("--reason", required=True, help="Why; it goes into the audit log.")
@place_options
@json_option
def force(name: str, for_s: float, reason: str, place: Place, as_json: bool) -> None:  # noqa: FBT001
    """Let evictions here pass HOLD and breakers for a while; budgets and the floor stay."""

    async def work() -> None:
        async with place.verbs() as verbs:
            found = await verbs.force(name, for_s=for_s, reason=reason)
            routes = await verbs.list_routes()
        until_ms = found.forced_until_ms
        until = "not forced" if until_ms is None else f"forced until {_utc(until_ms)}"
        said(f"{found.name}: {until}", describe(found, routes), as_json=as_json)

    run(work)


@deployment.command()
@click.argument("name")
@reason_option
@place_options
@json_option
def delete(name: str, reason: str, place: Place, as_json: bool) -> None:  # noqa: FBT001
    """Drain every replica, then forget the deployment."""

    async def work() -> None:
        async with place.verbs() as verbs:
            found = await verbs.delete(name, reason=reason)
            routes = await verbs.list_routes()  # of all: this one may be gone already
        sentence = f"{found.name}: {found.lifecycle}"
        said(sentence, describe(found, routes), as_json=as_json)

    run(work)


def describe(deployment: Deployment, routes: tuple[Route, ...]) -> dict[str, object]:
    """Return one deployment as a row."""
    mine = [route for route in routes if route.deployment_id == deployment.id]
    return {
        "name": deployment.name,
        "lifecycle": deployment.lifecycle.value,
        "sub_step": deployment.sub_step and deployment.sub_step.value,
        "wanted": deployment.target_count,
        "ready": sum(route.ready for route in mine),
        "active": sum(route.active for route in mine),
        "current": deployment.current and deployment.current.number,
        "deploying": deployment.deploying and deployment.deploying.number,
    }


def _event(entry: HistoryEntry) -> dict[str, object]:
    return {
        "category": entry.category,
        "result": entry.result,
        "attempts": entry.attempts,
        "message": entry.message,
    }


def _utc(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%SZ}"


def read_file(path: Path) -> DeploymentFile:
    """Read a deployment file; - is JSON on standard input.

    Raises:
        InvalidInput: if it cannot be read, or says what cannot be; names the file.
    """
    try:
        if str(path) == "-":
            return parse(sys.stdin.read(SIZE_MAX_CHARS + 1), syntax=Syntax.JSON)
        syntax = syntax_of(path.name)
        with path.open(encoding="utf-8") as file:
            return parse(file.read(SIZE_MAX_CHARS + 1), syntax=syntax)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8: {error.reason}, byte {error.start}") from error
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error
