"""Replicas that somebody else runs: registered by hand with an address, only watched here."""

from collections.abc import Mapping, Sequence

from controller.errors import ProvisionError
from controller.model import Route, RouteId
from controller.provision.port import Order, Session, SessionState


class ExternalProvisioner:
    """Answers from the route itself: whoever registered it vouches for its address."""

    async def start(self, orders: Sequence[Order]) -> Mapping[RouteId, str | ProvisionError]:
        """Accept the routes that carry an address; nobody can start the others."""
        return {
            order.route.id: _refusal(order.route) or _session_id(order.route) for order in orders
        }

    async def inspect(self, routes: Sequence[Route]) -> Mapping[RouteId, Session]:
        """Report every route that carries an address as RUNNING there."""
        return {route.id: _session(route) for route in routes}

    async def stop(self, routes: Sequence[Route]) -> Mapping[RouteId, ProvisionError | None]:
        """Let go of the routes; their replicas run on, they are not ours."""
        return {route.id: None for route in routes}

    async def close(self) -> None:
        """Hold nothing, so let go of nothing."""


def _session_id(route: Route) -> str:
    return f"external-{route.id}"


def _session(route: Route) -> Session:
    refusal = _refusal(route)
    if refusal is not None:
        return Session(id="", state=SessionState.MISSING, exit_reason=str(refusal))
    return Session(
        id=_session_id(route), state=SessionState.RUNNING, host=route.host, port=route.port
    )


def _refusal(route: Route) -> ProvisionError | None:
    if route.host is not None and route.port is not None:
        return None
    return ProvisionError(
        f"route {route.id} has no address, and external replicas are not started from here: "
        "start one yourself and name it with `fleetpulse route register`"
    )
