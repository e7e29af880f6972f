"""The operator's verbs on single routes; `controller.service` adds those on deployments."""

from controller.db import draining, registration
from controller.db.asker import Asker
from controller.db.audit import note_verb
from controller.db.named import OPERATOR, changeable
from controller.db.reads import Reads
from controller.model import Route, RouteId


class RouteVerbs(Reads):
    """Each is one transaction; all raise DatabaseUnreachable when the database does not answer."""

    async def register_route(
        self,
        name: str,
        *,
        host: str,
        port: int,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> Route:
        """Add a replica that somebody else runs; it is probed, and serves once it is healthy.

        It belongs to the revision being rolled out; without one, or on the way back, to the
        current one.

        Raises:
            InvalidInput: if host or port cannot be dialled.
            NotFound: if there is no such deployment.
            Conflict: if the deployment runs its own replicas, has no revision to join, is being
                deleted, or has a replica at that address already.
        """
        registration.check_address(host, port)
        async with self._database.write(epoch=None) as write:
            seen = await changeable(write, name, expected_version=expected_version)
            route = await registration.register(write, seen, host=host, port=port, actor=actor)
            await note_verb(
                write,
                "register",
                Asker(actor=actor, reason=reason),
                deployment_id=seen.id,
                route_id=route.id,
                detail={"host": host, "port": port},
            )
            return route

    async def drain_route(
        self,
        route_id: RouteId,
        *,
        actor: str = OPERATOR,
        reason: str = "",
        expected_version: int | None = None,
    ) -> Route:
        """Take one replica out: no traffic from here on, then its end; repeating changes nothing.

        One of our own is replaced, an external one is not.

        Raises:
            NotFound: if there never was such a route.
            Conflict: if it has ended.
        """
        async with self._database.write(epoch=None) as write:
            by = Asker(actor=actor, reason=reason)
            return await draining.drain(write, route_id, by, expected_version=expected_version)
