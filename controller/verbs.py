"""The operator's verbs as the commands know them: on a database, or over HTTP; they cannot tell.

Implemented by `controller.service` and by `controller.client`. What each does and raises is said
there; who asks is known to the implementation, not to who calls it.
"""

from collections.abc import Collection
from typing import Protocol

from controller.db.asker import RolloutVerb
from controller.db.audit import AuditEntry
from controller.db.events import HistoryEntry
from controller.definition.request import RevisionRequest
from controller.model import (
    Deployment,
    Health,
    Policy,
    Revision,
    Rollout,
    RolloutId,
    Route,
    RouteId,
)
from controller.rollout.planned import RolloutPlan
from controller.rollout.progress import Progress
from controller.service import DeploymentApplied


class Verbs(Protocol):
    """What a person can ask for."""

    async def list_deployments(self) -> tuple[Deployment, ...]: ...  # noqa: D102
    async def get_deployment(self, name: str) -> Deployment: ...  # noqa: D102
    async def list_revisions(self, name: str) -> tuple[Revision, ...]: ...  # noqa: D102
    async def get_revision(self, name: str, number: int) -> Revision: ...  # noqa: D102
    async def list_rollouts(self, name: str, *, limit: int = 20) -> tuple[Rollout, ...]: ...  # noqa: D102
    async def rollout_progress(self, name: str) -> Progress: ...  # noqa: D102
    async def rollout_decisions(  # noqa: D102
        self, name: str, rollout_id: RolloutId, *, limit: int = 50
    ) -> tuple[HistoryEntry, ...]: ...
    async def list_routes(self, name: str | None = None) -> tuple[Route, ...]: ...  # noqa: D102
    async def get_route(self, route_id: RouteId) -> Route: ...  # noqa: D102
    async def list_audit(self, *, limit: int = 50) -> tuple[AuditEntry, ...]: ...  # noqa: D102
    async def history(self, name: str, *, limit: int = 50) -> tuple[HistoryEntry, ...]: ...  # noqa: D102
    async def route_history(  # noqa: D102
        self, route_id: RouteId, *, limit: int = 50
    ) -> tuple[HistoryEntry, ...]: ...

    async def apply_deployment(  # noqa: D102
        self,
        name: str,
        *,
        replicas: int,
        policy: Policy,
        cleanup_target_statuses: Collection[Health],
        revision: RevisionRequest,
        auto_activate: bool = True,
        reason: str = "",
        expected_version: int | None = None,
    ) -> DeploymentApplied: ...

    async def scale(  # noqa: D102
        self, name: str, replicas: int, *, reason: str = "", expected_version: int | None = None
    ) -> Deployment: ...

    async def force(  # noqa: D102
        self, name: str, *, for_s: float, reason: str, expected_version: int | None = None
    ) -> Deployment: ...

    async def delete(  # noqa: D102
        self, name: str, *, reason: str = "", expected_version: int | None = None
    ) -> Deployment: ...

    async def add_revision(  # noqa: D102
        self,
        name: str,
        revision: RevisionRequest,
        *,
        auto_activate: bool = False,
        reason: str = "",
        expected_version: int | None = None,
    ) -> Revision: ...

    async def activate(  # noqa: D102
        self, name: str, number: int, *, reason: str = "", expected_version: int | None = None
    ) -> Rollout: ...

    async def plan_rollout(  # noqa: D102
        self, name: str, number: int, *, starts_in_s: float | None = None
    ) -> RolloutPlan: ...

    async def steer(  # noqa: D102
        self,
        name: str,
        verb: RolloutVerb,
        *,
        reason: str = "",
        expected_version: int | None = None,
    ) -> DeploymentApplied: ...

    async def abort(  # noqa: D102
        self, name: str, *, reason: str = "", expected_version: int | None = None
    ) -> Deployment: ...

    async def register_route(  # noqa: D102
        self,
        name: str,
        *,
        host: str,
        port: int,
        reason: str = "",
        expected_version: int | None = None,
    ) -> Route: ...

    async def drain_route(  # noqa: D102
        self, route_id: RouteId, *, reason: str = "", expected_version: int | None = None
    ) -> Route: ...
