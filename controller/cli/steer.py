"""The verbs of `fleetpulse rollout` that steer one: pause, resume, promote, retry, rollback, abort.

All alike: a name, a reason, and what it came to; one that changed nothing says so and exits 0.
"""

from typing import Final

import click

from controller.cli.place import Place, place_options
from controller.cli.session import json_option, reason_option, run, said
from controller.db.asker import RolloutVerb
from controller.model import Deployment


def _command(verb: RolloutVerb, text: str) -> click.Command:
    @click.command(verb.value, help=text)
    @click.argument("name")
    @reason_option
    @place_options
    @json_option
    def command(name: str, reason: str, place: Place, as_json: bool) -> None:  # noqa: FBT001
        _steer(verb, name, reason=reason, place=place, as_json=as_json)

    return command


def _steer(verb: RolloutVerb, name: str, *, reason: str, place: Place, as_json: bool) -> None:
    async def work() -> None:
        async with place.verbs() as verbs:
            done = await verbs.steer(name, verb, reason=reason)
        row, stands = _standing(done.deployment)
        did = ", ".join(done.changes) or "nothing changed, it was so already"
        row = {"name": name, "changes": list(done.changes)} | row
        said(f"{name}: {did}; {stands}", row, as_json=as_json)

    run(work)


@click.command()
@click.argument("name")
@reason_option
@place_options
@json_option
def abort(name: str, reason: str, place: Place, as_json: bool) -> None:  # noqa: FBT001
    """Turn the rollout in flight back to the current revision."""

    async def work() -> None:
        async with place.verbs() as verbs:
            row, stands = _standing(await verbs.abort(name, reason=reason))
        said(f"{name}: {stands}", {"name": name} | row, as_json=as_json)

    run(work)


def _standing(found: Deployment) -> tuple[dict[str, object], str]:
    """Return where a deployment stands, for programs and for people."""
    sub_step = found.sub_step and found.sub_step.value
    row = {"lifecycle": found.lifecycle.value, "sub_step": sub_step}
    stands = ", ".join(filter(None, row.values())).replace("_", " ")
    return {**row}, stands


COMMANDS: Final = (
    _command(RolloutVerb.PAUSE, "Stop the rollout in flight where it is, and its clocks."),
    _command(RolloutVerb.RESUME, "Let a paused rollout go on; the time it stood does not count."),
    _command(RolloutVerb.PROMOTE, "Give the new replicas all traffic now, once all are ready."),
    _command(RolloutVerb.RETRY, "Begin the rollout anew that failed, expired or was aborted."),
    _command(
        RolloutVerb.ROLLBACK, "Abort the rollout in flight, or return to the revision before."
    ),
    abort,
)
