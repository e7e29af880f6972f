"""Replicas that somebody else runs, entered as routes by hand.

Used by `controller.service`, inside its transaction. Such a route begins where a started one
would be once it has an address: warming up, without traffic.
"""

import re
import uuid
from typing import Final

from sqlalchemy import insert, select

from controller.db.deployments import move_deployment
from controller.db.events import route_created
from controller.db.history import write_events
from controller.db.rows import route_values
from controller.db.session import Write
from controller.db.tables import GONE, LIVE, deployments, routes
from controller.errors import Conflict, InvalidInput
from controller.model import (
    EXTERNAL_SESSION,
    Deployment,
    Health,
    Revision,
    Route,
    RouteId,
    RouteStatus,
    Stage,
    SubStep,
    Traffic,
)
from controller.model_definition import PORT_MAX

_HOST: Final = re.compile(r"[0-9A-Za-z._:-]{1,253}\Z")


def check_address(host: str, port: int) -> None:
    """Refuse what the prober could never dial.

    Raises:
        InvalidInput: if host or port is not one.
    """
    if not _HOST.match(host):
        raise InvalidInput(f"host {host!r}: give a host name or an address, without a port")
    if not 1 <= port <= PORT_MAX:
        raise InvalidInput(f"port {port}: give a number from 1 to {PORT_MAX}")


async def register(write: Write, seen: Deployment, *, host: str, port: int, actor: str) -> Route:
    """Write the route; the deployment's version moves, as its routes are what it is decided on.

    Raises:
        Conflict: if the deployment takes no such replica, or has one there already.
    """
    revision = _revision_to_join(seen)
    there = select(routes.c.id).where(
        routes.c.deployment_id == seen.id,
        routes.c.host == host,
        routes.c.port == port,
        routes.c.status.in_(LIVE),
    )
    known = (await write.connection.execute(there)).scalars().first()
    if known is not None:
        raise Conflict(f"deployment {seen.name!r} has {host}:{port} already, as route {known}")
    await move_deployment(write, seen, {}, conditions=(deployments.c.lifecycle.not_in(GONE),))
    route = _warming_up(revision, host=host, port=port, now_ms=write.now_ms, actor=actor)
    ours = seen.rollout is not None and seen.rollout.revision_id == revision.id
    rollout_id = seen.rollout.id if seen.rollout is not None and ours else None
    row = route_values(route, rollout_id=rollout_id)
    await write.connection.execute(insert(routes), [row])
    await write_events(write, [route_created(route, rollout_id, category="register")])
    return route


def _revision_to_join(seen: Deployment) -> Revision:
    going_back = seen.sub_step is SubStep.ROLLING_BACK
    revision = seen.current if going_back else seen.deploying or seen.current
    if revision is None:
        raise Conflict(
            f"deployment {seen.name!r} has no revision to join; "
            "begin one with `fleetpulse rollout start`"
        )
    if not revision.spec.external:
        raise Conflict(
            f"deployment {seen.name!r} runs its own replicas; "
            "set `external` in its revision to register them by hand"
        )
    return revision


def _warming_up(revision: Revision, *, host: str, port: int, now_ms: int, actor: str) -> Route:
    return Route(
        id=RouteId(str(uuid.uuid4())),
        deployment_id=revision.deployment_id,
        revision_id=revision.id,
        status=RouteStatus.PROVISIONING,
        stage=Stage.WARMING_UP,
        health=Health.NOT_CHECKED,
        traffic=Traffic.INACTIVE,
        traffic_ratio=0.0,
        health_check=revision.spec.health_check,
        session_id=EXTERNAL_SESSION,
        host=host,
        port=port,
        created_at_ms=now_ms,
        entered_at_ms=now_ms,
        ready_since_ms=None,
        version=1,
        reason=f"{actor} registered it",
    )
