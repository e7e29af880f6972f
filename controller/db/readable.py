"""Rows that this version can read, told apart from those it cannot.

Used by `repository`. One row with a word of a newer version, or a value somebody broke by hand,
must not blind the controller to all others: its deployment is left alone as a whole, routes
included, because a deployment with half of its routes would be given new ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, RowMapping

from controller.db.rows import deployment_of, route_of
from controller.db.tables import deployments, routes
from controller.model import Deployment, DeploymentId, Route, RouteId

_Rows = Sequence[Row[*tuple[Any, ...]]]
_BROKEN = (ValueError, KeyError, TypeError)
"""What decoding raises: of a value, an unknown word, a null where none may be."""
_COLUMNS = [column.key for column in routes.c if column.key != "rollout_id"]
_ID, _DEPLOYMENT_ID = _COLUMNS.index("id"), _COLUMNS.index("deployment_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """What could be read, and what could not."""

    deployments: Mapping[DeploymentId, Deployment]
    routes: tuple[Route, ...]
    unreadable: Mapping[DeploymentId, str]
    """Why, by the deployments that are left alone."""
    left_alone: frozenset[RouteId]
    """Their routes."""


def readable(deployment_rows: Iterable[RowMapping], route_rows: _Rows) -> Readable:
    """Return everything that can be read; at rest that is all, at the price of nothing."""
    found: dict[DeploymentId, Deployment] = {}
    unreadable: dict[DeploymentId, str] = {}
    for values in deployment_rows:
        try:
            deployment = deployment_of(values)
        except _BROKEN as error:
            key, name = values[deployments.c.id], values[deployments.c.name]
            unreadable[DeploymentId(key)] = f"deployment {name!r}: {error}"
        else:
            found[deployment.id] = deployment
    if not unreadable:
        try:
            seen = tuple(map(route_of, route_rows))
        except _BROKEN:
            pass  # one by one, below
        else:
            return Readable(deployments=found, routes=seen, unreadable={}, left_alone=frozenset())
    kept: list[Route] = []
    for row in route_rows:
        try:
            kept.append(route_of(row))
        except _BROKEN as error:
            why = f"route {row[_ID]}: {type(error).__name__}: {error}"
            unreadable.setdefault(row[_DEPLOYMENT_ID], why)
    return Readable(
        deployments={key: each for key, each in found.items() if key not in unreadable},
        routes=tuple(route for route in kept if route.deployment_id not in unreadable),
        unreadable=unreadable,
        left_alone=frozenset(row[_ID] for row in route_rows if row[_DEPLOYMENT_ID] in unreadable),
    )
