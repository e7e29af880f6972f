"""What the database knows around one route or deployment, for those who explain it.

Also finds it by what a person types: a deployment's name, a route's id, or how that id begins.
"""

import re
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.db.deployments import find_deployments
from controller.db.events import HistoryEntry
from controller.db.history import history_of
from controller.db.rows import route_of, select_routes
from controller.db.session import Database, now_ms
from controller.db.tables import deployments, evictions, history, holds, revisions, routes
from controller.errors import InvalidInput, NotFound
from controller.model import Deployment, DeploymentId, Health, Route, RouteId

HISTORY_ROWS: Final = 20
"""So far back is looked for the change that led to where it stands."""
LOOKED_THROUGH: Final = 2_000
"""Rows of history in which the newly unhealthy of the last minute are counted."""
WINDOW_MS: Final = 60_000
MATCHES_SHOWN: Final = 5
_BEGINNING: Final = re.compile(r"[0-9a-f-]{1,36}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A route or a deployment, and what the database knows of it."""

    route: Route | None
    """None: it is the deployment that was asked for."""
    deployment: Deployment | None
    """None: it is destroyed."""
    name: str
    """The deployment's."""
    revision: int
    """The number of the route's; 0 for a deployment."""
    history: tuple[HistoryEntry, ...]
    """The newest first."""
    spent: tuple[tuple[int, DeploymentId], ...]
    """The health evictions of the last minute."""
    newly_unhealthy: int
    """Routes that became so within the last minute."""
    held: frozenset[str] = frozenset()
    """Why the leader holds the fleet: the causes it began with, as it recorded them."""
    hold_over_ms: int | None = None
    """When its last HOLD of the fleet ended."""
    breaker_over_ms: int | None = None
    """When the last HOLD of the deployment alone ended."""


async def find(database: Database, named: str) -> Found:
    """Find what a person named.

    Raises:
        NotFound: if there is no such deployment or route.
        InvalidInput: if several routes begin so.
        DatabaseUnreachable: if the database does not answer.
    """
    async with database.read() as connection:
        deployment = next(
            iter(await find_deployments(connection, deployments.c.name == named)), None
        )
        route = None if deployment is not None else await _route(connection, named)
        if route is not None:
            mine = await find_deployments(connection, deployments.c.id == route.deployment_id)
            deployment = next(iter(mine), None)
        name, revision = await _words(connection, route, deployment)
        subject = RouteId(named) if deployment is None else deployment.id
        held, hold_over_ms = await _held(connection)
        owner = None if deployment is None else deployment.id
        return Found(
            route=route,
            deployment=deployment,
            name=name,
            revision=revision,
            history=await history_of(
                connection, route.id if route else subject, limit=HISTORY_ROWS
            ),
            spent=await _spent(connection),
            newly_unhealthy=await _newly_unhealthy(connection),
            held=held,
            hold_over_ms=hold_over_ms,
            breaker_over_ms=await _over(connection, holds.c.deployment_id == owner),
        )


async def _route(connection: AsyncConnection, named: str) -> Route:
    beginning = named.strip().lower()
    found = []
    if _BEGINNING.fullmatch(beginning):
        query = select_routes(routes.c.id.like(f"{beginning}%")).limit(MATCHES_SHOWN + 1)
        found = [route_of(row) for row in await connection.execute(query)]
    if not found:
        raise NotFound(
            f"there is no deployment and no route {named!r}; see `fleetpulse deployment list` and "
            "`fleetpulse route list`"
        )
    if len(found) > 1:
        more = ", …" if len(found) > MATCHES_SHOWN else ""
        ids = ", ".join(route.id for route in found[:MATCHES_SHOWN])
        raise InvalidInput(f"more than one route begins with {named!r}: {ids}{more}; write more")
    return found[0]


async def _words(
    connection: AsyncConnection, route: Route | None, deployment: Deployment | None
) -> tuple[str, int]:
    if route is None:
        return "" if deployment is None else deployment.name, 0
    query = (
        select(deployments.c.name, revisions.c.number)
        .join(revisions, revisions.c.deployment_id == deployments.c.id)
        .where(revisions.c.id == route.revision_id)
    )
    name, number = (await connection.execute(query)).one()
    return name, number


async def _spent(connection: AsyncConnection) -> tuple[tuple[int, DeploymentId], ...]:
    query = select(evictions.c.at_ms, evictions.c.deployment_id).where(
        evictions.c.at_ms > now_ms() - WINDOW_MS
    )
    return tuple((at_ms, DeploymentId(owner)) for at_ms, owner in await connection.execute(query))


async def _held(connection: AsyncConnection) -> tuple[frozenset[str], int | None]:
    """Return the causes of the HOLD that lasts, and when the last one ended."""
    fleet = holds.c.deployment_id.is_(None)
    lasts = select(holds.c.causes).where(fleet, holds.c.to_ms.is_(None))
    causes = (await connection.execute(lasts)).scalars().all()
    return frozenset(",".join(causes).split(",")) - {""}, await _over(connection, fleet)


async def _over(connection: AsyncConnection, whose: ColumnElement[bool]) -> int | None:
    """Return when the last HOLD of somebody ended."""
    ended = await connection.execute(select(func.max(holds.c.to_ms)).where(whose))
    over_ms: int | None = ended.scalar_one()
    return over_ms


async def _newly_unhealthy(connection: AsyncConnection) -> int:
    """Count in the newest rows alone: history has no index by time, and needs none for this."""
    since = (await connection.execute(select(now_ms()))).scalar_one() - WINDOW_MS
    newest = (
        select(history.c.subject, history.c.to_state, history.c.created_at_ms)
        .order_by(history.c.id.desc())
        .limit(LOOKED_THROUGH)
    )
    became = f"health:{Health.UNHEALTHY}"
    return sum(
        at_ms > since and became in to_state.split()
        for _, to_state, at_ms in await connection.execute(newest)
    )
