"""`fleetpulse rollout history`: every rollout of a deployment, and what was decided in one."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import click

from controller.cli.place import Place, place_options
from controller.cli.session import json_option, run, show
from controller.db.events import HistoryEntry
from controller.errors import InvalidInput, NotFound
from controller.model import RevisionId, Rollout, RolloutId
from controller.verbs import Verbs
from controller.wording import span

LOOKED_THROUGH: Final = 1000
"""Rollouts among which an id's beginning is looked for."""
_Row = dict[str, object]


@click.command()
@click.argument("name")
@click.option("--rollout", "beginning", default="", help="Its decisions; the id, or its beginning.")
@click.option(
    "-n",
    "limit",
    type=click.IntRange(1, LOOKED_THROUGH),
    default=20,
    show_default=True,
    help="How many at most, the newest.",
)
@place_options
@json_option
def history(name: str, *, beginning: str, limit: int, place: Place, as_json: bool) -> None:
    """List the rollouts of a deployment, or with --rollout what was decided in one."""

    async def work() -> None:
        async with place.verbs() as verbs:
            if beginning:
                chosen = await _chosen(verbs, name, beginning)
                found = await verbs.rollout_decisions(name, chosen, limit=limit)
                rows = [_decision(entry, as_json=as_json) for entry in reversed(found)]
                show(rows, as_json=as_json, nothing="nothing was decided in it yet")
                return
            numbers = {one.id: one.number for one in await verbs.list_revisions(name)}
            ended = await verbs.list_rollouts(name, limit=limit)
        rows = [_rollout(one, numbers, as_json=as_json) for one in ended]
        show(rows, as_json=as_json, nothing=f"{name} has had no rollout yet")

    run(work)


async def _chosen(verbs: Verbs, name: str, beginning: str) -> RolloutId:
    known = [one.id for one in await verbs.list_rollouts(name, limit=LOOKED_THROUGH)]
    found = [one for one in known if one.startswith(beginning.strip().lower())]
    if not found:
        raise NotFound(
            f"{name} has had no rollout {beginning!r}; see `fleetpulse rollout history {name}`"
        )
    if len(found) > 1:
        raise InvalidInput(f"{len(found)} rollouts of {name} begin with {beginning!r}; write more")
    return found[0]


def _rollout(rollout: Rollout, numbers: Mapping[RevisionId, int], *, as_json: bool) -> _Row:
    origin, ended_at_ms = rollout.from_revision_id, rollout.ended_at_ms
    took_s = None if ended_at_ms is None else (ended_at_ms - rollout.started_at_ms) / 1000
    row: _Row = {
        "id": rollout.id,
        "from": None if origin is None else numbers.get(origin),
        "to": numbers.get(rollout.revision_id),
        "strategy": rollout.policy.strategy,
        # An abort is written when it is asked for, before the way back has ended.
        "outcome": None if ended_at_ms is None else rollout.outcome,
        "by": rollout.actor,
    }
    if as_json:
        times: _Row = {"started_at_ms": rollout.started_at_ms, "seconds": took_s}
        return row | times | {"message": rollout.message}
    took = "in flight" if took_s is None else span(took_s)
    times = {"started": _at(rollout.started_at_ms), "took": took}
    return row | times | {"message": rollout.message}


def _decision(entry: HistoryEntry, *, as_json: bool) -> _Row:
    """Return one decision; what no rule made has the category of who did."""
    if as_json:
        return {
            "at_ms": entry.updated_at_ms,
            "first_at_ms": entry.created_at_ms,
            "rule": entry.rule,
            "category": entry.category,
            "from_state": entry.from_state,
            "to_state": entry.to_state,
            "result": entry.result,
            "error_code": entry.error_code,
            "attempts": entry.attempts,
            "message": entry.message,
        }
    moved = entry.from_state != entry.to_state
    return {
        "at": _at(entry.updated_at_ms),
        "rule": entry.rule or entry.category,
        "step": f"{entry.from_state or 'new'} -> {entry.to_state}" if moved else entry.to_state,
        "result": entry.result,
        "times": entry.attempts,
        "message": entry.message,
    }


def _at(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"
