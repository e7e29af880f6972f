"""The database's rows in memory: what there is, and how a transaction gets a copy of its own."""

from collections import defaultdict
from copy import copy
from dataclasses import dataclass, field
from typing import Final

from controller.db.events import HistoryEntry
from controller.db.outbox import Effect
from controller.model import (
    Deployment,
    DeploymentId,
    HoldSpan,
    Lifecycle,
    Revision,
    Rollout,
    RolloutId,
    Route,
    RouteId,
    RouteStatus,
)
from controller.route.table import Publication

TERMINAL: Final = (RouteStatus.TERMINATED, RouteStatus.FAILED_TO_START)
LOST: Final = (*TERMINAL, RouteStatus.TERMINATING)
"""Where a replica that a rollout made is none any more."""


@dataclass(slots=True)
class Tables:
    """All rows."""

    deployments: dict[DeploymentId, Deployment] = field(default_factory=dict)
    """In order of creation, the destroyed ones included; the rollout's own row counts."""
    revisions: dict[DeploymentId, tuple[Revision, ...]] = field(default_factory=dict)
    """Oldest first."""
    rollouts: dict[RolloutId, Rollout] = field(default_factory=dict)
    routes: dict[RouteId, Route] = field(default_factory=dict)
    """Those that are not terminal."""
    ended: dict[RouteId, Route] = field(default_factory=dict)
    made_by: dict[RouteId, RolloutId] = field(default_factory=dict)
    history: list[HistoryEntry] = field(default_factory=list)
    newest: dict[tuple[str, str], int] = field(default_factory=dict)
    """Of each subject and category, the place in the history."""
    faults: defaultdict[DeploymentId, list[tuple[RouteId, int, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    departures: dict[RouteId, tuple[str, str]] = field(default_factory=dict)
    holds: list[HoldSpan] = field(default_factory=list)
    evictions: list[tuple[DeploymentId, str, int]] = field(default_factory=list)
    """Whose, why and when."""
    publications: dict[DeploymentId, Publication] = field(default_factory=dict)
    outbox: dict[str, Effect] = field(default_factory=dict)


def is_gone(deployment: Deployment) -> bool:
    """Tell whether nothing is left of a deployment but its record."""
    return deployment.lifecycle is Lifecycle.DESTROYED


def copied(tables: Tables) -> Tables:
    """Return tables that can be written without those of before; rows themselves never change."""
    mine = copy(tables)
    for name in Tables.__slots__:
        setattr(mine, name, copy(getattr(tables, name)))
    mine.faults = defaultdict(list, {key: [*each] for key, each in tables.faults.items()})
    return mine
