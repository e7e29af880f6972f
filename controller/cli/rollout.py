"""`fleetpulse rollout`: move a deployment to another revision, and watch it move."""

import click

from controller.cli import steer
from controller.cli.place import Place, place_options
from controller.cli.plan import plan
from controller.cli.rollout_history import history
from controller.cli.session import (
    json_option,
    reason_option,
    run,
    said,
)
from controller.cli.watch import follow, watch
from controller.model import Rollout


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
        follow(name, place, as_json=as_json)


rollout.add_command(watch)
rollout.add_command(history)
rollout.add_command(plan)
