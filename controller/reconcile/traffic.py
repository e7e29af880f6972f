"""The handlers of a route's last steps: out of traffic, grace for what is in flight, the end."""

from collections.abc import Sequence

import structlog

from controller.bus import ControlBus
from controller.model import Health, Note, Route, RouteChange, RouteStatus, Stage
from controller.provision.port import Provisioner
from controller.reconcile.handler import Plan, RouteHandler, Schedule, World
from controller.reconcile.provision import in_stage
from controller.reconcile.registry import Registry
from probe.errors import BusError
from probe.wire import ReplicaId

log = structlog.get_logger()


class Drain(RouteHandler):
    """DRAINING -> COOLING_DOWN once proxies are told: from here on it gets no new requests.

    A proxy that cannot be told keeps nobody for ever: after a bound the route goes on to its grace
    period, while sync goes on telling (R-48).
    """

    name = "drain"

    def __init__(self, schedule: Schedule, registry: Registry, *, timeout_s: float) -> None:
        super().__init__(schedule)
        self._registry = registry
        self._timeout_s = timeout_s

    def select(self, world: World) -> Sequence[Route]:
        """Select the routes that are to leave."""
        return in_stage(world, Stage.DRAINING)

    async def decide(self, world: World, routes: Sequence[Route]) -> Plan:
        """Let those go on to their grace period whom no proxy knows any more."""
        changes = (self._decide(route, world.stood_ms(route)) for route in routes)
        return Plan(changes=tuple(change for change in changes if change is not None))

    def _decide(self, route: Route, stood_ms: int) -> RouteChange | None:
        if not self._registry.knows(route):
            message, code = "out of traffic; requests in flight may finish", ""
        elif stood_ms >= self._timeout_s * 1000:
            message = (
                f"proxies could not be told within unregister_timeout_s {self._timeout_s:g}; "
                "it goes all the same, and they are told as soon as the bus takes it"
            )
            code = "UNREGISTER_EXPIRED"
        else:
            return None
        return RouteChange(
            route=route,
            category=self.name,
            message=message,
            error_code=code,
            status=RouteStatus.TERMINATING,
            stage=Stage.COOLING_DOWN,
        )


class Terminate(RouteHandler):
    """COOLING_DOWN -> TERMINATED after the grace period: session stopped, bus keys deleted."""

    name = "terminate"

    def __init__(
        self, provisioner: Provisioner, bus: ControlBus, schedule: Schedule, *, grace_s: float
    ) -> None:
        self._provisioner = provisioner
        self._bus = bus
        super().__init__(schedule)
        self._grace_ms = int(grace_s * 1000)

    def select(self, world: World) -> Sequence[Route]:
        """Select the routes whose grace period is over, by the database's clock (R-36)."""
        return [
            route
            for route in in_stage(world, Stage.COOLING_DOWN)
            if world.stood_ms(route) >= self._grace_ms
        ]

    async def decide(self, world: World, routes: Sequence[Route]) -> Plan:
        """Stop the sessions and clear the bus of them; what cannot be stopped is asked again.

        Both before the commit: a controller that dies in between does them again, while one that
        died after it would leave a target that nobody remembers.
        """
        errors = await self._provisioner.stop(routes)
        await self._forget([ReplicaId(r.id) for r in routes if errors[r.id] is None])
        changes: list[RouteChange] = []
        notes: list[Note] = []
        for route in routes:
            error = errors[route.id]
            if error is None:
                changes.append(
                    RouteChange(
                        route=route,
                        category=self.name,
                        message="session stopped",
                        status=RouteStatus.TERMINATED,
                        health=Health.NOT_CHECKED,
                    )
                )
            else:
                notes.append(
                    Note(
                        deployment_id=route.deployment_id,
                        route_id=route.id,
                        category=self.name,
                        message=f"the session cannot be stopped, trying again: {error}",
                        result="failure",
                        error_code="STOP_FAILED",
                    )
                )
        return Plan(changes=tuple(changes), notes=tuple(notes))

    async def _forget(self, ended: Sequence[ReplicaId]) -> None:
        """Delete what the bus holds of ended routes (R-44); what stays behind expires."""
        try:
            await self._bus.remove_targets(ended)
        except BusError as error:
            log.warning("targets_not_removed", count=len(ended), error=str(error))
