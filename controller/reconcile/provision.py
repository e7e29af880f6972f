"""The handlers that talk to the provisioner: start, look after, and end what routes stand for.

A provisioner that cannot tell raises, or leaves routes out of its answer, and these stay as they
are: not knowing whether a session lives is not knowing that it died.
"""

from collections.abc import Sequence
from dataclasses import replace

import structlog

from controller.errors import ProvisionError
from controller.model import (
    Health,
    Note,
    Revision,
    Route,
    RouteChange,
    RouteId,
    RouteStatus,
    Stage,
)
from controller.model_definition import PORT_MAX
from controller.provision.port import Order, Provisioner, Session, SessionState
from controller.reconcile.handler import Plan, RouteHandler, Schedule, World
from controller.route.guard.evidence import may_still_serve
from controller.route.leave import leave

log = structlog.get_logger()


def revision_of(world: World, route: Route) -> Revision | None:
    """Return the revision a route runs, when its deployment still points to it."""
    deployment = world.snapshot.deployments.get(route.deployment_id)
    if deployment is None:
        return None
    for revision in (deployment.deploying, deployment.current):
        if revision is not None and revision.id == route.revision_id:
            return revision
    return None


def in_stage(world: World, stage: Stage) -> list[Route]:
    """Return the routes that stand in `stage`."""
    return [route for route in world.snapshot.routes if route.stage is stage]


def lost(route: Route, session: Session, *, category: str) -> RouteChange:
    """Send a route away whose session is gone: what was known of its health is void."""
    why = f": {session.exit_reason}" if session.exit_reason else ""
    change = leave(
        route,
        category=category,
        message=f"the session is {session.state}{why}",
        error_code="SESSION_LOST",
    )
    return replace(change, health=Health.NOT_CHECKED)


class Provision(RouteHandler):
    """PENDING -> STARTING, or FAILED_TO_START with the provisioner's reason.

    What nobody answers for in time leaves by way of DRAINING: it may have been started all the
    same, and only a stop makes sure that it was not.
    """

    name = "provision"

    def __init__(self, provisioner: Provisioner, schedule: Schedule, *, timeout_s: float) -> None:
        self._provisioner = provisioner
        self._timeout_s = timeout_s
        super().__init__(schedule)

    def select(self, world: World) -> Sequence[Route]:
        """Select the routes nobody has started."""
        return in_stage(world, Stage.PENDING)

    async def decide(self, world: World, routes: Sequence[Route]) -> Plan:
        """Order all sessions at once; one that is refused stops no other."""
        changes: list[RouteChange] = []
        orders: list[Order] = []
        for route in routes:
            revision = revision_of(world, route)
            if revision is None:
                changes.append(self._orphaned(route))
            elif (pending_s := world.stood_ms(route) / 1000) > self._timeout_s:
                changes.append(self._expired(route, pending_s))
            else:
                orders.append(Order(route=route, revision=revision))
        try:
            sessions = await self._provisioner.start(orders) if orders else {}
        except ProvisionError:
            if not changes:
                raise
            sessions = {}
        changes += [
            self._started(order.route, sessions[order.route.id])
            for order in orders
            if order.route.id in sessions
        ]
        return Plan(changes=tuple(changes))

    def _started(self, route: Route, session: str | ProvisionError) -> RouteChange:
        if isinstance(session, ProvisionError):
            return RouteChange(
                route=route,
                category=self.name,
                message=f"the provisioner refused: {session}",
                error_code="PROVISION_REFUSED",
                status=RouteStatus.FAILED_TO_START,
            )
        return RouteChange(
            route=route,
            category=self.name,
            message=f"handed to the provisioner as session {session}",
            status=RouteStatus.PROVISIONING,
            stage=Stage.STARTING,
            session_id=session,
        )

    def _expired(self, route: Route, pending_s: float) -> RouteChange:
        return leave(
            route,
            category=self.name,
            message=f"the provisioner has not answered for {pending_s:.0f} s "
            f"(limit starting_timeout_s {self._timeout_s:g})",
            error_code="PENDING_EXPIRED",
        )

    def _orphaned(self, route: Route) -> RouteChange:
        return leave(
            route,
            category=self.name,
            message="never started: its revision is neither current nor deploying",
            error_code="ORPHAN_REVISION",
        )


class CheckStarting(RouteHandler):
    """STARTING -> WARMING_UP once the session has an address; given up when it never gets one."""

    name = "check_starting"

    def __init__(self, provisioner: Provisioner, schedule: Schedule, *, timeout_s: float) -> None:
        self._provisioner = provisioner
        self._timeout_s = timeout_s
        super().__init__(schedule)

    def select(self, world: World) -> Sequence[Route]:
        """Select the routes that wait for an address."""
        return in_stage(world, Stage.STARTING)

    async def decide(self, world: World, routes: Sequence[Route]) -> Plan:
        """Ask for all sessions at once; soon again while one of them has no address."""
        sessions = await self._provisioner.inspect(routes)
        changes = [
            change
            for route in routes
            if route.id in sessions
            and (change := self._decide(world, route, sessions[route.id])) is not None
        ]
        pending = any(one.state is SessionState.PENDING for one in sessions.values())
        return Plan(changes=tuple(changes), look_again=pending)

    def _decide(self, world: World, route: Route, session: Session) -> RouteChange | None:
        if session.state is SessionState.PENDING:
            return self._expired(route, world.stood_ms(route) / 1000)
        if session.state is not SessionState.RUNNING:
            return lost(route, session, category=self.name)
        if not session.host or session.port is None or not 1 <= session.port <= PORT_MAX:
            return leave(
                route,
                category=self.name,
                message="the session runs without a host or port to probe: the provisioner "
                f"reports {session.host} and {session.port}",
                error_code="NO_ADDRESS",
            )
        return RouteChange(
            route=route,
            category=self.name,
            message=f"running at {session.host}:{session.port}, warming up",
            status=RouteStatus.PROVISIONING,
            stage=Stage.WARMING_UP,
            host=session.host,
            port=session.port,
        )

    def _expired(self, route: Route, pending_s: float) -> RouteChange | None:
        if pending_s <= self._timeout_s:
            return None
        return leave(
            route,
            category=self.name,
            message=f"the session has had no address for {pending_s:.0f} s "
            f"(limit starting_timeout_s {self._timeout_s:g})",
            error_code="STARTING_EXPIRED",
        )


class CheckRunning(RouteHandler):
    """RUNNING or WARMING_UP -> DRAINING when the session is gone.

    Warming up, too: a replica that crashes while it loads is the failure seen most, and its
    grace of half an hour is no reason to wait for it. Who is only unknown to the provisioner, as
    all are to one that asks with another's account, stays while a probe still says that it
    serves, and while no probe can be read.
    """

    name = "check_running"

    def __init__(self, provisioner: Provisioner, schedule: Schedule) -> None:
        self._provisioner = provisioner
        self._doubted: frozenset[RouteId] = frozenset()
        super().__init__(schedule)

    def select(self, world: World) -> Sequence[Route]:
        """Select the routes whose session had an address."""
        return [
            route
            for route in world.snapshot.routes
            if route.status is RouteStatus.RUNNING or route.stage is Stage.WARMING_UP
        ]

    async def decide(self, world: World, routes: Sequence[Route]) -> Plan:
        """Ask for all sessions at once; what is gone leaves."""
        sessions = await self._provisioner.inspect(routes)
        gone: list[RouteChange] = []
        doubted: list[Route] = []
        for route in routes:
            match sessions.get(route.id):
                case Session(state=SessionState.MISSING) if may_still_serve(route, world.view):
                    doubted.append(route)
                case Session(state=SessionState.EXITED | SessionState.MISSING) as session:
                    gone.append(lost(route, session, category=self.name))
                case _:
                    pass
        new = [route for route in doubted if route.id not in self._doubted]
        self._doubted = frozenset(route.id for route in doubted)
        if new:
            log.warning("sessions_unknown", routes=len(doubted), consequence="they stay")
        return Plan(changes=tuple(gone), notes=tuple(_unknown(route) for route in new))


def _unknown(route: Route) -> Note:
    return Note(
        deployment_id=route.deployment_id,
        route_id=route.id,
        category=CheckRunning.name,
        message="the provisioner knows no such session; it stays until a probe says that it fails",
        result="waiting",
        error_code="SESSION_UNKNOWN",
    )
