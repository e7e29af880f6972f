"""What the database knows of one deployment's newest rollout, in one look.

For `rollout watch` and the API, which ask often: it reads that deployment and no other, and writes
nothing. HOLD is told as the leader recorded it.
"""

from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.db import holds
from controller.db.deployments import revisions_of
from controller.db.history import HistoryEntry, deployment_state, rollout_history
from controller.db.rollouts import rollouts_of
from controller.db.rows import route_of, select_routes
from controller.db.session import now_ms
from controller.db.tables import LIVE, TERMINAL, rollouts, routes
from controller.errors import NotFound
from controller.model import Deployment, Lifecycle, RolloutId, Route, RouteStatus
from controller.rollout import machine
from controller.rollout.cycle import Cycle
from controller.rollout.outlook import nobody
from controller.rollout.progress import Decided, Progress, in_flight, newest
from controller.route.guard.clocks import stood_still_ms

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
    mine = select_routes(routes.c.deployment_id == deployment.id, routes.c.status.in_(LIVE))
    found = tuple(map(route_of, await connection.execute(mine)))
    told = await rollout_history(connection, deployment.id, rollout.id, limit=DECISIONS)
    decisions = tuple(map(_decided, reversed(told)))
    state = deployment_state(deployment)
    cycle = await _cycle(connection, deployment, found)
    if cycle is not None:
        return in_flight(cycle, state=state, decisions=decisions)
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


async def _cycle(
    connection: AsyncConnection, deployment: Deployment, found: tuple[Route, ...]
) -> Cycle | None:
    rollout = deployment.rollout
    if deployment.lifecycle is not Lifecycle.DEPLOYING or rollout is None:
        return None
    since_ms = min(rollout.started_at_ms, deployment.phase_entered_at_ms)
    spans = await holds.spans(connection, since_ms=since_ms)
    failed = await _failed(connection, rollout.id)
    held = any(span.to_ms is None and span.deployment_id in (None, deployment.id) for span in spans)
    return machine.look(
        deployment,
        found,
        (await connection.execute(select(now_ms()))).scalar_one(),
        failed=failed,
        fresh=nobody(),
        held=held,
        still=lambda since_ms, until_ms: stood_still_ms(
            spans, deployment.id, since_ms=since_ms, until_ms=until_ms
        ),
    )


async def _failed(connection: AsyncConnection, rollout_id: RolloutId) -> int:
    lost = (*TERMINAL, RouteStatus.TERMINATING.value)
    query = select(func.count()).where(routes.c.rollout_id == rollout_id, routes.c.status.in_(lost))
    return int((await connection.execute(query)).scalar_one())


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
