"""`fleetpulse rollout`: move a deployment to another revision, and watch it move."""

from collections.abc import Sequence
from typing import Self

import anyio
import click

from controller.cli import steer
from controller.cli.place import Place, place_options
from controller.cli.session import (
    EXIT_BAD,
    fail,
    json_option,
    reason_option,
    run,
    said,
    show_one,
)
from controller.errors import Unreachable
from controller.model import Deployment, Lifecycle, Outcome, Rollout, Route
from controller.rollout.strategies import bounds_of
from controller.verbs import Verbs

WATCH_S = 0.5


@click.group()
def rollout() -> None:
    """Start, watch and steer rollouts."""


for _verb in steer.COMMANDS:
    rollout.add_command(_verb)


@rollout.command()
@click.argument("name")
@click.argument("number", type=int)
@reason_option
@place_options
@click.option("--watch", "watching", is_flag=True, help="Stay until it ends.")
@json_option
def start(
    name: str,
    number: int,
    *,
    reason: str,
    place: Place,
    watching: bool,
    as_json: bool,
) -> None:
    """Make revision NUMBER current; a rollout in flight is superseded.

    With --watch exits 1 unless it is promoted.
    """

    async def work() -> Rollout:
        async with place.verbs() as verbs:
            return await verbs.activate(name, number, reason=reason)

    started = run(work)
    row = {"name": name, "number": number, "rollout": started.id}
    said(f"{name}: rollout to revision {number} started", row, as_json=as_json)
    if watching:
        _watch(name, place, as_json=as_json)


@rollout.command()
@click.argument("name")
@place_options
@json_option
def watch(name: str, place: Place, as_json: bool) -> None:  # noqa: FBT001
    """Follow the rollout in flight, or show how the last one ended; exit 1 unless promoted."""
    _watch(name, place, as_json=as_json)


@rollout.command()
@click.argument("name")
@reason_option
@place_options
@json_option
def abort(name: str, reason: str, place: Place, as_json: bool) -> None:  # noqa: FBT001
    """Turn the rollout in flight back to the current revision."""

    async def work() -> None:
        async with place.verbs() as verbs:
            found = await verbs.abort(name, reason=reason)
        sub_step = found.sub_step and found.sub_step.value
        row = {"name": name, "lifecycle": found.lifecycle.value, "sub_step": sub_step}
        steps = ", ".join(filter(None, (found.lifecycle.value, sub_step))).replace("_", " ")
        said(f"{name}: {steps}", row, as_json=as_json)

    run(work)


def _watch(name: str, place: Place, *, as_json: bool) -> None:
    async def work() -> Rollout | None:
        async with place.verbs() as verbs:
            return await _follow(verbs, name, quiet=as_json)

    try:
        ended = run(work)
    except KeyboardInterrupt:
        again = f"`fleetpulse rollout watch {name}`"
        fail(f"not watching any more; the rollout goes on, {again} follows it", EXIT_BAD)
    if ended is None:
        fail(f"{name} has had no rollout yet: start one with `fleetpulse rollout start`", EXIT_BAD)
    row = {
        "rollout": ended.id,
        "outcome": ended.outcome and ended.outcome.value,
        "seconds": ((ended.ended_at_ms or ended.started_at_ms) - ended.started_at_ms) / 1000,
        "message": ended.message,
    }
    show_one(row, as_json=as_json)
    if ended.outcome is not Outcome.PROMOTED:
        raise SystemExit(EXIT_BAD)


async def _follow(verbs: Verbs, name: str, *, quiet: bool) -> Rollout | None:
    """Show the rollout in flight until it ends; return the newest one."""
    deployment = await verbs.get_deployment(name)  # away now: a mistyped path; later: an outage
    with _Screen(quiet=quiet) as screen:
        while deployment.lifecycle is Lifecycle.DEPLOYING:
            try:
                screen.show(deployment, await verbs.list_routes(name))
                await anyio.sleep(WATCH_S)
                deployment = await verbs.get_deployment(name)
            except Unreachable as error:
                screen.say(f"waiting: {error}")
                await anyio.sleep(WATCH_S)
    newest = await verbs.list_rollouts(name, limit=1)
    return newest[0] if newest else None


class _Screen:
    """Progress bars on a terminal, one line per change elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console  # noqa: PLC0415 - 40 ms other commands need not pay
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

        console = Console(stderr=True, quiet=quiet)
        self._live = console.is_terminal and not quiet
        self._quiet = quiet
        self._last = ""
        self._bars = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not self._live,
        )
        self._new = self._bars.add_task("new, ready", total=None, note="")
        self._old = self._bars.add_task("old, still active", total=None, note="")
        self._floor = self._bars.add_task("ready, all", total=None, note="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line once."""
        if text != self._last and not self._quiet:
            self._last = text
            click.echo(text, err=True)

    def show(self, deployment: Deployment, routes: Sequence[Route]) -> None:
        """Draw where the rollout stands."""
        if deployment.rollout is None:
            return
        target = deployment.target_count
        floor = bounds_of(deployment.rollout.policy, target).min_avail
        wanted = deployment.rollout.revision_id
        new = sum(r.ready for r in routes if r.revision_id == wanted)
        old = sum(r.active for r in routes if r.revision_id != wanted)
        ready = sum(r.ready for r in routes)
        step = deployment.sub_step.value if deployment.sub_step else ""
        if not self._live:
            self.say(
                f"{deployment.name}: {step}, new {new}/{target} ready, {old} old active, "
                f"{ready} ready (floor {floor})"
            )
            return
        self._bars.update(self._new, completed=new, total=target, note=step)
        self._bars.update(self._old, completed=old, total=max(old, target), note="")
        self._bars.update(self._floor, completed=ready, total=target, note=f"floor {floor}")
