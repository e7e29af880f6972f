"""The verbs of `fleetpulse rollout` that steer one: pause, resume, promote, retry, rollback.

All alike: a name, a reason, and what it came to; one that changed nothing says so and exits 0.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import click

from controller.cli.place import Place, place_options
from controller.cli.session import json_option, reason_option, run, said
from controller.db.applying import DeploymentApplied
from controller.verbs import Verbs

_Verb = Callable[[Verbs, str, str], Awaitable[DeploymentApplied]]


def _command(name: str, verb: _Verb, text: str) -> click.Command:
    @click.command(name, help=text)
    @click.argument("name")
    @reason_option
    @place_options
    @json_option
    def command(name: str, reason: str, place: Place, as_json: bool) -> None:  # noqa: FBT001
        _steer(verb, name, reason=reason, place=place, as_json=as_json)

    return command


def _steer(verb: _Verb, name: str, *, reason: str, place: Place, as_json: bool) -> None:
    async def work() -> None:
        async with place.verbs() as verbs:
            done = await verb(verbs, name, reason)
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
    _command(
        "pause",
        lambda verbs, name, reason: verbs.pause_rollout(name, reason=reason),
        "Stop the rollout in flight where it is, and its clocks.",
    ),
    _command(
        "resume",
        lambda verbs, name, reason: verbs.resume_rollout(name, reason=reason),
        "Let a paused rollout go on; the time it stood does not count.",
    ),
    _command(
        "promote",
        lambda verbs, name, reason: verbs.promote_rollout(name, reason=reason),
        "Give the new replicas all traffic now, once all are ready.",
    ),
    _command(
        "retry",
        lambda verbs, name, reason: verbs.retry_rollout(name, reason=reason),
        "Begin the rollout anew that failed, expired or was aborted.",
    ),
    _command(
        "rollback",
        lambda verbs, name, reason: verbs.rollback(name, reason=reason),
        "Abort the rollout in flight, or return to the revision before.",
    ),
)
