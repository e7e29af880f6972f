"""What can be asked of the database: the reading half of the operator's verbs.

Each question is one transaction, so that what it answers is of one moment.
"""

from functools import partial

import anyio.to_thread
from sqlalchemy.sql import ColumnElement

from controller.db import planning
from controller.db.audit import AuditEntry, audit_of
from controller.db.deployments import find_deployments, numbered, revisions_of
from controller.db.events import HistoryEntry
from controller.db.history import history_of
from controller.db.named import living
from controller.db.progress import all_in_flight, decisions_of, progress_of
from controller.db.rollouts import rollouts_of
from controller.db.rows import route_of, select_routes
from controller.db.session import Database
from controller.db.tables import LIVE, routes
from controller.errors import NotFound
from controller.model import Deployment, Revision, Rollout, RolloutId, Route, RouteId
from controller.rollout.planned import RolloutPlan
from controller.rollout.progress import Progress


class Reads:
    """The questions, to one database. All raise DatabaseUnreachable when it does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_deployments(self) -> tuple[Deployment, ...]:
        """Return every deployment that is not destroyed, oldest first."""
        async with self._database.read() as connection:
            return await find_deployments(connection)

    async def get_deployment(self, name: str) -> Deployment:
        """Return one deployment.

        Raises:
            NotFound: if there is none of that name.
        """
        async with self._database.read() as connection:
            return await living(connection, name)

    async def list_revisions(self, name: str) -> tuple[Revision, ...]:
        """Return the revisions of a deployment, newest first.

        Raises:
            NotFound: if there is no such deployment.
        """
        async with self._database.read() as connection:
            found = await living(connection, name)
            return await revisions_of(connection, found.id)

    async def get_revision(self, name: str, number: int) -> Revision:
        """Return one revision of a deployment.

        Raises:
            NotFound: if there is no such deployment or revision.
        """
        return numbered(await self.list_revisions(name), name=name, number=number)

    async def list_rollouts(self, name: str, *, limit: int = 20) -> tuple[Rollout, ...]:
        """Return the newest rollouts of a deployment, newest first.

        Raises:
            NotFound: if there is no such deployment.
        """
        async with self._database.read() as connection:
            found = await living(connection, name)
            return await rollouts_of(connection, found.id, limit=limit)

    async def rollout_progress(self, name: str) -> Progress:
        """Return how far the rollout in flight is, or how the last one ended.

        Raises:
            NotFound: if there is no such deployment, or it has had no rollout.
        """
        async with self._database.read() as connection:
            return await progress_of(connection, await living(connection, name))

    async def rollouts_in_flight(self, *, limit: int) -> tuple[Progress, ...]:
        """Return how far the rollouts in flight are, without their decisions."""
        async with self._database.read() as connection:
            return await all_in_flight(connection, limit=limit)

    async def rollout_decisions(
        self, name: str, rollout_id: RolloutId, *, limit: int = 50
    ) -> tuple[HistoryEntry, ...]:
        """Return what was decided in one rollout, newest first.

        Raises:
            NotFound: if there is no such deployment, or it has had no such rollout.
        """
        async with self._database.read() as connection:
            found = await living(connection, name)
            return await decisions_of(connection, found, rollout_id, limit=limit)

    async def plan_rollout(
        self, name: str, number: int, *, starts_in_s: float | None = None
    ) -> RolloutPlan:
        """Tell what a rollout to a revision would do, if its replicas start in that time.

        Raises:
            InvalidInput: if the time cannot be, or there are too many steps.
            NotFound: if there is no such deployment or revision.
            Conflict: if it is current already, or the deployment is being deleted.
        """
        async with self._database.read() as connection:
            found = await planning.material(connection, name, number)
        work = partial(planning.planned, *found, starts_in=starts_in_s)
        return await anyio.to_thread.run_sync(work)  # seconds of work must not stop a leader

    async def list_routes(self, name: str | None = None) -> tuple[Route, ...]:
        """Return the routes that are not terminal, of one deployment or of all, oldest first.

        Raises:
            NotFound: if there is no such deployment.
        """
        async with self._database.read() as connection:
            conditions: list[ColumnElement[bool]] = [routes.c.status.in_(LIVE)]
            if name is not None:
                found = await living(connection, name)
                conditions.append(routes.c.deployment_id == found.id)
            return tuple(map(route_of, await connection.execute(select_routes(*conditions))))

    async def get_route(self, route_id: RouteId) -> Route:
        """Return one route, also one that ended.

        Raises:
            NotFound: if there never was such a route.
        """
        async with self._database.read() as connection:
            query = select_routes(routes.c.id == route_id)
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotFound(f"there is no route {route_id!r}; see `fleetpulse route list`")
        return route_of(row)

    async def list_audit(self, *, limit: int = 50) -> tuple[AuditEntry, ...]:
        """Return who asked for what last, newest first."""
        async with self._database.read() as connection:
            return await audit_of(connection, limit=limit)

    async def history(self, name: str, *, limit: int = 50) -> tuple[HistoryEntry, ...]:
        """Return what happened to a deployment (not to its routes), newest first.

        Raises:
            NotFound: if there is no such deployment.
        """
        async with self._database.read() as connection:
            found = await living(connection, name)
            return await history_of(connection, found.id, limit=limit)

    async def route_history(
        self, route_id: RouteId, *, limit: int = 50
    ) -> tuple[HistoryEntry, ...]:
        """Return what happened to a route, newest first.

        Raises:
            NotFound: if there never was such a route.
        """
        async with self._database.read() as connection:
            entries = await history_of(connection, route_id, limit=limit)
        if not entries:
            raise NotFound(f"there is no route {route_id!r}; see `fleetpulse route list`")
        return entries
