"""What the database knows of one deployment's newest rollout, in one look.

For `rollout watch` and the API, which ask often: it reads that deployment and no other, and writes
nothing. HOLD is told as the leader recorded it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.cycles import cycles
from controller.db import holds
from controller.db.bulk import chunks
from controller.db.deployments import find_deployments, revisions_of
from controller.db.events import HistoryEntry, deployment_state
from controller.db.history import rollout_history
from controller.db.rollouts import lost_of, rollouts_of
from controller.db.rows import route_of, select_routes
from controller.db.session import now_ms
from controller.db.tables import LIVE, deployments, rollouts, routes
from controller.errors import NotFound
from controller.model import (
    Deployment,
    Lifecycle,
    RolloutId,
    Route,
    Snapshot,
)
from controller.rollout.cycle import Cycle
from controller.rollout.progress import Decided, Progress, in_flight, newest

DECISIONS: Final = 6
"""The last ones, which fit on a screen."""


async def progress_of(connection: AsyncConnection, deployment: Deployment) -> Progress:
    """Return how far the newest rollout of a deployment is.

    Raises:
        NotFound: if it has had none.
    """
    rollout = deployment.rollout or next(
        iter(await rollouts_of(connection, deployment.id, limit=1)), None
    )
    if rollout is None:
        raise NotFound(
            f"{deployment.name} has had no rollout yet: start one with `fleetpulse rollout start`"
        )
    told = await rollout_history(connection, deployment.id, rollout.id, limit=DECISIONS)
    decisions = tuple(map(_decided, reversed(told)))
    state = deployment_state(deployment)
    for cycle in await _cycles(connection, [deployment]):
        return in_flight(cycle, state=state, decisions=decisions)
    found = await _routes(connection, [deployment])
    return newest(
        deployment,
        rollout,
        found,
        now_ms=(await connection.execute(select(now_ms()))).scalar_one(),
        numbers={one.id: one.number for one in await revisions_of(connection, deployment.id)},
        state=state,
        decisions=decisions,
    )


async def decisions_of(
    connection: AsyncConnection, deployment: Deployment, rollout_id: RolloutId, *, limit: int
) -> tuple[HistoryEntry, ...]:
    """Return what was decided in one rollout of a deployment, newest first.

    Raises:
        NotFound: if it has had no such rollout.
    """
    query = select(rollouts.c.id).where(
        rollouts.c.id == rollout_id, rollouts.c.deployment_id == deployment.id
    )
    if (await connection.execute(query)).scalar_one_or_none() is None:
        raise NotFound(
            f"{deployment.name} has had no rollout {rollout_id!r}; see `fleetpulse rollout history "
            f"{deployment.name}`"
        )
    return await rollout_history(connection, deployment.id, rollout_id, limit=limit)


async def all_in_flight(connection: AsyncConnection, *, limit: int) -> tuple[Progress, ...]:
    """Return how far the rollouts in flight are, without their decisions, oldest deployment first.

    One whose strategy fails is left out, and keeps no other from being told. A handful of queries
    for all of them: a page that is looked at again and again asks for it.
    """
    moving = await find_deployments(
        connection, deployments.c.lifecycle == Lifecycle.DEPLOYING.value
    )
    cycles = await _cycles(connection, moving[:limit], skip_failing=True)
    return tuple(in_flight(cycle, state=deployment_state(cycle.deployment)) for cycle in cycles)


async def _cycles(
    connection: AsyncConnection, among: Sequence[Deployment], *, skip_failing: bool = False
) -> list[Cycle]:
    """Return what the rules see of those that have a rollout in flight."""
    moving = {
        each.id: each
        for each in among
        if each.lifecycle is Lifecycle.DEPLOYING and each.rollout is not None
    }
    if not moving:
        return []
    in_flight_now = [each.rollout for each in moving.values() if each.rollout is not None]
    found = await _routes(connection, list(moving.values()))
    failed = await _failed(connection, [rollout.id for rollout in in_flight_now])
    clocks = [each.phase_entered_at_ms for each in moving.values()]
    clocks += [rollout.started_at_ms for rollout in in_flight_now]
    spans = await holds.spans(connection, since_ms=min(clocks))
    snapshot = Snapshot(
        now_ms=(await connection.execute(select(now_ms()))).scalar_one(),
        deployments=moving,
        routes=found,
        failed_counts=failed,
        holds=spans,
    )
    return list(cycles(snapshot, skip_failing=skip_failing))


async def _routes(connection: AsyncConnection, of: Sequence[Deployment]) -> tuple[Route, ...]:
    found: list[Route] = []
    for ids in chunks(each.id for each in of):
        query = select_routes(routes.c.deployment_id.in_(ids), routes.c.status.in_(LIVE))
        found += map(route_of, await connection.execute(query))
    return tuple(found)


async def _failed(
    connection: AsyncConnection, rollout_ids: Sequence[RolloutId]
) -> Mapping[RolloutId, int]:
    found: dict[RolloutId, int] = {}
    for ids in chunks(rollout_ids):
        found |= await lost_of(connection, ids)
    return found


def _decided(entry: HistoryEntry) -> Decided:
    return Decided(
        at_ms=entry.updated_at_ms,
        rule=entry.rule or "",
        category=entry.category,
        state=entry.to_state,
        result=entry.result,
        attempts=entry.attempts,
        message=entry.message,
    )
