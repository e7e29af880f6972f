"""The operator's verbs over HTTP: what `controller.service` does on a database, asked of its API.

Used by the commands when a URL is given. Errors come back as what the service would have raised,
with the same sentence, so that a command cannot tell the two apart.
"""

import re
from collections.abc import Collection
from typing import Final, Self
from urllib.parse import quote

import httpx

from controller.api_calls import ApiCalls, Wish
from controller.db.asker import RolloutVerb
from controller.db.audit import AuditEntry
from controller.db.events import HistoryEntry
from controller.definition.request import RevisionRequest
from controller.explanation import Explanation
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

_ROUTE: Final = re.compile(r"\A[0-9a-f]{8}-[0-9a-f-]*\Z")


class ApiClient:
    """One controller's API. Every call raises ApiUnreachable if it does not answer."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        """Ask through `http`, whose base URL is the API's, and which knows the token."""
        self._http = http
        self._calls = ApiCalls(http)

    async def __aenter__(self) -> Self:
        """Be open until the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def list_deployments(self) -> tuple[Deployment, ...]:
        """Return every deployment that is not destroyed, oldest first."""
        return await self._calls.pages("/v1/deployments", Deployment)

    async def get_deployment(self, name: str) -> Deployment:
        """Return one deployment."""
        return await self._calls.get(_path(name), Deployment)

    async def list_revisions(self, name: str) -> tuple[Revision, ...]:
        """Return the revisions of a deployment, newest first."""
        return await self._calls.items(_path(name, "revisions"), Revision)

    async def get_revision(self, name: str, number: int) -> Revision:
        """Return one revision of a deployment."""
        return await self._calls.get(_path(name, "revisions", str(number)), Revision)

    async def list_rollouts(self, name: str, *, limit: int = 20) -> tuple[Rollout, ...]:
        """Return the newest rollouts of a deployment, newest first."""
        return await self._calls.items(_path(name, "rollout"), Rollout, limit=limit)

    async def rollout_progress(self, name: str) -> Progress:
        """Return how far the rollout in flight is, or how the last one ended."""
        return await self._calls.get(_path(name, "rollout", "progress"), Progress)

    async def rollout_decisions(
        self, name: str, rollout_id: RolloutId, *, limit: int = 50
    ) -> tuple[HistoryEntry, ...]:
        """Return what was decided in one rollout, newest first."""
        path = _path(name, "rollout", _quoted(rollout_id), "decisions")
        return await self._calls.items(path, HistoryEntry, limit=limit)

    async def list_routes(self, name: str | None = None) -> tuple[Route, ...]:
        """Return the routes that are not terminal, of one deployment or of all, oldest first."""
        of_one = {} if name is None else {"deployment": name}
        return await self._calls.pages("/v1/routes", Route, **of_one)

    async def get_route(self, route_id: RouteId) -> Route:
        """Return one route, also one that ended."""
        return await self._calls.get(f"/v1/routes/{_quoted(route_id)}", Route)

    async def list_audit(self, *, limit: int = 50) -> tuple[AuditEntry, ...]:
        """Return who asked for what last, newest first."""
        return await self._calls.items("/v1/audit", AuditEntry, limit=limit)

    async def history(self, name: str, *, limit: int = 50) -> tuple[HistoryEntry, ...]:
        """Return what happened to a deployment (not to its routes), newest first."""
        return await self._calls.items(_path(name, "history"), HistoryEntry, limit=limit)

    async def route_history(
        self, route_id: RouteId, *, limit: int = 50
    ) -> tuple[HistoryEntry, ...]:
        """Return what happened to a route, newest first."""
        path = f"/v1/routes/{_quoted(route_id)}/history"
        return await self._calls.items(path, HistoryEntry, limit=limit)

    async def explain(self, named: str) -> Explanation:
        """Tell why the deployment of that name, or the route of that id, is where it is."""
        kind = "routes" if _ROUTE.match(named) else "deployments"
        return await self._calls.get(f"/v1/{kind}/{_quoted(named)}/explain", Explanation)

    async def apply_deployment(
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
    ) -> DeploymentApplied:
        """Make the deployment what its file describes; repeating it changes nothing."""
        body = {
            "replicas": replicas,
            "policy": policy,
            "cleanup_target_statuses": sorted(cleanup_target_statuses),
            "revision": revision,
            "auto_activate": auto_activate,
        }
        wish = Wish(reason, expected_version, body)
        return await self._calls.ask("PUT", _path(name), DeploymentApplied, wish)

    async def scale(
        self, name: str, replicas: int, *, reason: str = "", expected_version: int | None = None
    ) -> Deployment:
        """Want another count of replicas than the one applied."""
        wish = Wish(reason, expected_version, {"replicas": replicas})
        return await self._calls.ask("PATCH", _path(name), Deployment, wish)

    async def force(
        self, name: str, *, for_s: float, reason: str, expected_version: int | None = None
    ) -> Deployment:
        """Let evictions here pass HOLD, breakers and second witnesses for a while."""
        wish = Wish(reason, expected_version, {"for_s": for_s})
        return await self._calls.ask("POST", _path(name, "force"), Deployment, wish)

    async def delete(
        self, name: str, *, reason: str = "", expected_version: int | None = None
    ) -> Deployment:
        """Let the deployment go, with all its replicas."""
        return await self._calls.ask(
            "DELETE", _path(name), Deployment, Wish(reason, expected_version)
        )

    async def add_revision(
        self,
        name: str,
        revision: RevisionRequest,
        *,
        auto_activate: bool = False,
        reason: str = "",
        expected_version: int | None = None,
    ) -> Revision:
        """Add a revision under the next number, and activate it in the same step when asked."""
        body = {"revision": revision, "auto_activate": auto_activate}
        wish = Wish(reason, expected_version, body)
        return await self._calls.ask("POST", _path(name, "revisions"), Revision, wish)

    async def activate(
        self, name: str, number: int, *, reason: str = "", expected_version: int | None = None
    ) -> Rollout:
        """Begin to make a revision current; a rollout in flight is superseded."""
        wish = Wish(reason, expected_version, {"number": number})
        return await self._calls.ask("POST", _path(name, "activate"), Rollout, wish)

    async def plan_rollout(
        self, name: str, number: int, *, starts_in_s: float | None = None
    ) -> RolloutPlan:
        """Tell what a rollout to a revision would do, if its replicas start in that time."""
        asked: dict[str, str | int] = {"revision": number}
        if starts_in_s is not None:
            asked["starts_in_s"] = repr(starts_in_s)
        return await self._calls.get(_path(name, "rollout", "plan"), RolloutPlan, asked)

    async def steer(
        self,
        name: str,
        verb: RolloutVerb,
        *,
        reason: str = "",
        expected_version: int | None = None,
    ) -> DeploymentApplied:
        """Do to a rollout what `verb` says."""
        wish = Wish(reason, expected_version)
        return await self._calls.ask("POST", _path(name, "rollout", verb), DeploymentApplied, wish)

    async def abort(
        self, name: str, *, reason: str = "", expected_version: int | None = None
    ) -> Deployment:
        """Turn the rollout in flight back; repeating it changes nothing."""
        wish = Wish(reason, expected_version)
        return await self._calls.ask("POST", _path(name, "rollout", "abort"), Deployment, wish)

    async def register_route(
        self,
        name: str,
        *,
        host: str,
        port: int,
        reason: str = "",
        expected_version: int | None = None,
    ) -> Route:
        """Add a replica that somebody else runs."""
        wish = Wish(reason, expected_version, {"host": host, "port": port})
        return await self._calls.ask("POST", _path(name, "routes"), Route, wish)

    async def drain_route(
        self, route_id: RouteId, *, reason: str = "", expected_version: int | None = None
    ) -> Route:
        """Take one replica out; repeating changes nothing."""
        path = f"/v1/routes/{_quoted(route_id)}/drain"
        return await self._calls.ask("POST", path, Route, Wish(reason, expected_version))


def _path(name: str, *below: str) -> str:
    return "/".join(("/v1/deployments", _quoted(name), *below))


def _quoted(text: str) -> str:
    return quote(text, safe="") or "-"
