"""`fleetpulse rollout plan`: what a rollout will do, before it does anything."""

from dataclasses import replace
from pathlib import Path

import click
import msgspec

from controller.cli.deployment import as_seconds, read_file
from controller.cli.folders import local_folders
from controller.cli.place import Place, place_options
from controller.cli.session import EXIT_BAD, json_option, run, show, show_one
from controller.db.planning import planned
from controller.definition.deployment_file import DeploymentFile
from controller.errors import NotFound
from controller.model import (
    Deployment,
    DeploymentId,
    Lifecycle,
    Revision,
    RevisionId,
    Route,
)
from controller.rollout import strategies
from controller.rollout.planned import RolloutPlan
from controller.verbs import Verbs

_MINUTE_S = 60
_HOUR_S = 3600


@click.command()
@click.argument("name", required=False)
@click.argument("number", type=int, required=False)
@click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(path_type=Path, allow_dash=True),
    help="What `deployment apply` would roll out, instead of NAME NUMBER.",
)
@click.option(
    "--starts-in",
    "starts_in",
    metavar="TIME",
    callback=as_seconds,
    help="When a new replica is ready: 90s, 5m. Default: the initial_delay_s of its check.",
)
@place_options
@json_option
def plan(
    name: str | None,
    number: int | None,
    *,
    path: Path | None,
    starts_in: float | None,
    place: Place,
    as_json: bool,
) -> None:
    """Tell step by step what a rollout to revision NUMBER would do; change nothing.

    Exits 1 when it would not be promoted.
    """
    if (path is None) == (name is None) or (name is None) != (number is None):
        raise click.UsageError("name a deployment and a revision's number, or a file with -f.")

    async def work() -> RolloutPlan:
        async with place.verbs() as verbs:
            if path is not None:
                return await _of_file(verbs, read_file(path), starts_in)
            assert name is not None, "seen above"  # noqa: S101
            assert number is not None, "seen above"  # noqa: S101
            return await verbs.plan_rollout(name, number, starts_in_s=starts_in)

    found = run(work)
    if as_json:
        show_one(msgspec.to_builtins(found), as_json=True)
    else:
        show_plan(found)
    if found.deadlock is not None:
        raise SystemExit(EXIT_BAD)


async def _of_file(verbs: Verbs, wanted: DeploymentFile, starts_in: float | None) -> RolloutPlan:
    """Plan what applying a file would roll out, over the replicas there are."""
    strategies.check(wanted.policy)
    spec = (await local_folders().resolve(wanted.revision)).spec
    seen: tuple[Route, ...] = ()
    newest = 0
    try:
        found = await verbs.get_deployment(wanted.name)
    except NotFound:
        found = _unborn(wanted)
    else:
        seen = await verbs.list_routes(wanted.name)
        newest = (await verbs.list_revisions(wanted.name))[0].number
    revision = Revision(
        id=RevisionId("planned"),
        deployment_id=found.id,
        number=newest + 1,
        spec=spec,
        definition=None,
    )
    applied = replace(found, replicas=wanted.replicas, desired_replicas=None, policy=wanted.policy)
    return planned(applied, revision, seen, starts_in=starts_in)


def _unborn(wanted: DeploymentFile) -> Deployment:
    return Deployment(
        id=DeploymentId("planned"),
        name=wanted.name,
        lifecycle=Lifecycle.PENDING,
        sub_step=None,
        replicas=wanted.replicas,
        desired_replicas=None,
        policy=wanted.policy,
        cleanup_target_statuses=frozenset(wanted.cleanup_target_statuses),
        current=None,
        deploying=None,
        rollout=None,
        version=1,
        phase_entered_at_ms=0,
    )


def show_plan(found: RolloutPlan) -> None:
    """Print a plan as a person reads it."""
    came = "the first revision" if found.from_revision is None else f"from {found.from_revision}"
    each = f"{found.target} replicas, each new one ready after {_time(found.starts_in_s)}"
    click.echo(
        f"{found.deployment}: {found.strategy} update to revision {found.revision}, {came}; "
        f"{each if found.target else 'scaled to 0: nothing will be verified'}"
    )
    click.echo()
    stuck = found.deadlock.cycle if found.deadlock else None
    rows = [
        {
            "at": _time(step.at_s),
            "until": _time(step.until_s) if step.cycles > 1 else None,
            "rule": step.rule + (" (stuck)" if step.cycle == stuck else ""),
            "creates": step.creates or None,
            "drains": step.drains or None,
            "new_traffic": f"{step.share_percent} %",
            "ready": step.ready,
            "active": step.active,
            "leaving": step.leaving or None,
        }
        for step in found.steps
    ]
    show(rows, as_json=False, nothing="")
    click.echo()
    show_one(_summary(found), as_json=False)


def _summary(found: RolloutPlan) -> dict[str, object]:
    told: dict[str, object] = {
        "ends": f"{found.outcome.value}, {_time(found.worst_case_s)} after it began at the latest",
        "floor": f"{found.floor} ready at least; the policy wants {found.min_avail}",
        "peak": f"{found.peak} active at most, the policy allows {found.max_total}; "
        f"{found.peak_with_leaving} with those that leave",
        "cycle": f"every {_time(found.period_s)} at the latest; often earlier",
    }
    if found.waits_for_operator_at_s is not None:
        at = _time(found.waits_for_operator_at_s)
        told["operator"] = (
            f"waits from {at} on for `fleetpulse rollout promote`, here given at once"
        )
    if found.kept_for_s and found.deadlock is None:
        told["afterwards"] = f"the replicas before are kept for {_time(found.kept_for_s)}"
    if found.deadlock is not None:
        told["deadlock"] = f"rule {found.deadlock.rule}: {found.deadlock.reason}"
        told["remedy"] = found.deadlock.remedy
    return told


def _time(seconds: float) -> str:
    """Return a time as one writes it.

    >>> _time(90), _time(3600), _time(0.5), _time(7290)
    ('1m30s', '1h', '0.5s', '2h1m30s')
    """
    hours, rest = divmod(seconds, _HOUR_S)
    minutes, left = divmod(rest, _MINUTE_S)
    parts = [f"{hours:.0f}h" if hours else "", f"{minutes:.0f}m" if minutes else ""]
    return "".join((*parts, f"{left:g}s" if left or seconds == 0 else ""))
