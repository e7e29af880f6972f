"""What a proxy should know of one deployment, and when less of it must not be believed.

Called by sync_proxy, and by whoever shows the same table in another form. A route is in it while
it is RUNNING and ACTIVE; its health is the proxy's and the eviction's affair (R-07). Nothing here
knows how a table travels.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Final

import msgspec

from controller.model import (
    EXTERNAL_SESSION,
    Deployment,
    DeploymentId,
    HealthCheck,
    Route,
    RouteId,
    RouteStatus,
    Traffic,
)
from controller.route.evict import CATEGORY as EVICT
from controller.route.evict import HEALTH_POLICY
from controller.route.orphans import ORPHAN

SHRINK_PERCENT: Final = 25
"""A table may lose so much of itself without a word of why (S16)."""
SHRINK_MIN: Final = 2
"""And one route in any case: of three routes a single one is a third already."""


class Cause(StrEnum):
    """Why a table became what it is, the gravest first."""

    DESTROY = "destroy"
    """The deployment is going away, or has gone."""
    OPERATOR = "operator"
    """Somebody asked for it."""
    ROLLOUT = "rollout"
    """A revision makes way for another, forward or back."""
    SCALE_IN = "scale_in"
    """There were more replicas than wanted."""
    CONFIRMED_DEATH = "confirmed_death"
    """The provisioner says that the session is gone, or the safety rules let it go, for good or
    only out of traffic."""
    UNEXPLAINED = "unexplained"
    """No record says why; too few left to be refused."""
    GROWTH = "growth"
    """Nothing left it."""


class ProxyRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Where one replica serves, and its share of the traffic."""

    route_id: RouteId
    session_id: str
    host: str
    port: int
    ratio: float


class ProxyTable(msgspec.Struct, frozen=True, kw_only=True):
    """All that a proxy should know of one deployment."""

    app: str
    """The deployment's name: what runs behind it may change, this does not."""
    routes: tuple[ProxyRoute, ...]
    """By id, so that the same set always is the same table."""
    health_check: HealthCheck | None
    """How the replicas of the current revision are checked; None: they are not."""

    @property
    def route_ids(self) -> frozenset[RouteId]:
        """Return which routes it holds."""
        return frozenset(route.route_id for route in self.routes)


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """A table as it was committed."""

    deployment_id: DeploymentId
    epoch: int
    """Of the leader that committed it."""
    generation: int
    """Grows with every table of the deployment, whoever leads (R-50)."""
    table: ProxyTable

    @property
    def version(self) -> tuple[int, int]:
        """Return what orders it among the deployment's tables."""
        return self.epoch, self.generation


class _Entry(msgspec.Struct, frozen=True):
    """One replica, as connection info has it."""

    session_id: str
    route_id: str
    kernel_host: str
    kernel_port: int


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(ProxyTable)


def published(route: Route) -> bool:
    """Tell whether a proxy should know a route: the one filter, whoever asks (R-07)."""
    return (
        route.status is RouteStatus.RUNNING
        and route.traffic is Traffic.ACTIVE
        and route.host is not None
        and route.port is not None
    )


def table_of(deployment: Deployment, routes: Iterable[Route]) -> ProxyTable:
    """Return the table of one deployment, given its routes; those of others are not asked for."""
    revision = deployment.current or deployment.deploying
    entries = [
        ProxyRoute(
            route_id=route.id,
            session_id=_session_of(route),
            host=route.host or "",
            port=route.port or 0,
            ratio=route.traffic_ratio,
        )
        for route in routes
        if published(route)
    ]
    entries.sort(key=_by_id)
    return ProxyTable(
        app=deployment.name,
        routes=tuple(entries),
        health_check=None if revision is None else revision.spec.health_check,
    )


def _by_id(route: ProxyRoute) -> RouteId:
    return route.route_id


def _session_of(route: Route) -> str:
    """Return what tells its session from all others; one run by hand has no name of its own."""
    return route.id if route.session_id in (None, EXTERNAL_SESSION) else str(route.session_id)


def tables(
    deployments: Mapping[DeploymentId, Deployment], routes: Iterable[Route]
) -> dict[DeploymentId, ProxyTable]:
    """Return the table of every deployment, also of those without a route (R-47)."""
    of: dict[DeploymentId, list[Route]] = {key: [] for key in deployments}
    for route in routes:
        if published(route) and route.deployment_id in of:
            of[route.deployment_id].append(route)
    return {key: table_of(deployment, of[key]) for key, deployment in deployments.items()}


def emptied(table: ProxyTable) -> ProxyTable:
    """Return the last table of a deployment that is gone."""
    return ProxyTable(app=table.app, routes=(), health_check=None)


def encode(table: ProxyTable) -> str:
    """Write a table down, as it is kept and delivered; the same table is the same text."""
    return _encoder.encode(table).decode()


def decode(text: str) -> ProxyTable:
    """Read a table that `encode` wrote.

    Raises:
        msgspec.MsgspecError: if it did not.
    """
    return _decoder.decode(text)


def connection_info(table: ProxyTable, *, epoch: int, generation: int) -> str:
    """Write a table as connection info: the only place that does (R-46).

    The first member carries the version in its name and is an app without routes to a reader that
    does not look for it. No app is called so: names of deployments begin with a letter or digit.

    >>> connection_info(ProxyTable(app="a", routes=(), health_check=None), epoch=3, generation=7)
    '{"@3.7":[],"a":[]}'
    """
    entries = [
        _Entry(
            session_id=route.session_id,
            route_id=route.route_id,
            kernel_host=route.host,
            kernel_port=route.port,
        )
        for route in table.routes
    ]
    return _encoder.encode({f"@{epoch}.{generation}": [], table.app: entries}).decode()


# Why routes left, and whether that is enough (S16).

_BY_CATEGORY: Final[Mapping[str, Cause]] = {
    "deploying": Cause.ROLLOUT,
    "rolling_back": Cause.ROLLOUT,
    "check_replicas": Cause.SCALE_IN,
    "destroying": Cause.DESTROY,
    "check_running": Cause.CONFIRMED_DEATH,
    "classify_health": Cause.CONFIRMED_DEATH,
    "drain_route": Cause.OPERATOR,
}
"""What each category of history that takes a serving route out of traffic stands for."""
_BY_CODE: Final[Mapping[str, Cause]] = {
    ORPHAN: Cause.ROLLOUT,
    HEALTH_POLICY: Cause.CONFIRMED_DEATH,
}
"""What each error code of an eviction stands for."""


def cause_of(category: str, error_code: str) -> Cause | None:
    """Return why a route left, by the record of its leaving; None: it says nothing we know."""
    return _BY_CODE.get(error_code) if category == EVICT else _BY_CATEGORY.get(category)


def departed(before: ProxyTable, after: ProxyTable) -> frozenset[RouteId]:
    """Return the routes that left from one table to the next."""
    return before.route_ids - after.route_ids


def shrinks(
    before: ProxyTable, after: ProxyTable, *, explained: AbstractSet[RouteId] = frozenset()
) -> bool:
    """Tell whether `after` lost so much that it must not be believed (S16).

    Routes in `explained` left for a recorded cause, and are no loss.
    """
    lost = len(departed(before, after) - explained)
    if lost and not after.routes:
        return True
    return lost >= SHRINK_MIN and lost * 100 > SHRINK_PERCENT * len(before.routes)


def cause_among(departures: Mapping[RouteId, Cause | None]) -> Cause:
    """Return the one word for a change: the gravest reason that any route left for.

    >>> cause_among({})
    <Cause.GROWTH: 'growth'>
    """
    found = {cause or Cause.UNEXPLAINED for cause in departures.values()}
    return next((cause for cause in Cause if cause in found), Cause.GROWTH)
