"""The verbs of `fleetpulse rollout` that steer one: pause, resume, promote, retry, rollback.

All alike: a name, a reason, and what it came to; one that changed nothing says so and exits 0.
"""

from typing import Final

import click

from controller.cli.place import Place, place_options
from controller.cli.session import json_option, reason_option, run, said
from controller.db.asker import RolloutVerb


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
        found = done.deployment
        sub_step = found.sub_step and found.sub_step.value
        steps = ", ".join(filter(None, (found.lifecycle.value, sub_step))).replace("_", " ")
        row = {
            "name": name,
            "changes": list(done.changes),
            "lifecycle": found.lifecycle.value,
            "sub_step": sub_step,
        }
        did = ", ".join(done.changes) or "nothing changed, it was so already"
        said(f"{name}: {did}; {steps}", row, as_json=as_json)

    run(work)


COMMANDS: Final = (
    _command(RolloutVerb.PAUSE, "Stop the rollout in flight where it is, and its clocks."),
    _command(RolloutVerb.RESUME, "Let a paused rollout go on; the time it stood does not count."),
    _command(RolloutVerb.PROMOTE, "Give the new replicas all traffic now, once all are ready."),
    _command(RolloutVerb.RETRY, "Begin the rollout anew that failed, expired or was aborted."),
    _command(
        RolloutVerb.ROLLBACK, "Abort the rollout in flight, or return to the revision before."
    ),
)
