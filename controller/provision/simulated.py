"""Replicas that are simulated: real HTTP servers on loopback, in the fleet process."""

from collections.abc import Mapping, Sequence

from controller.errors import InvalidInput, ProvisionError
from controller.model import Route, RouteId
from controller.provision.fleet.client import FleetClient
from controller.provision.fleet.messages import Report, Wanted
from controller.provision.fleet.replica import behaviour_of
from controller.provision.port import Order, Session, SessionState

_DEFAULT_PATH = "/health"


class SimulatedProvisioner:
    """Runs replicas in the simulated fleet; the session is named after its route."""

    def __init__(self, fleet: FleetClient) -> None:
        """Speak through `fleet`; `close` closes it."""
        self._fleet = fleet

    async def start(self, orders: Sequence[Order]) -> Mapping[RouteId, str | ProvisionError]:
        """Start a replica for each order, behaving as its revision's environment says."""
        answers: dict[RouteId, str | ProvisionError] = {}
        wanted: dict[RouteId, Wanted] = {}
        for order in orders:
            try:
                wanted[order.route.id] = _wanted(order)
            except InvalidInput as error:
                answers[order.route.id] = ProvisionError(str(error))
        if wanted:
            refusals = await self._fleet.start(wanted.values())
            for route in wanted:
                why = refusals[route]
                answers[route] = ProvisionError(why) if why else _session_id(route)
        return answers

    async def inspect(self, routes: Sequence[Route]) -> Mapping[RouteId, Session]:
        """Ask the fleet about all routes at once."""
        if not routes:
            return {}
        reports = await self._fleet.inspect(route.id for route in routes)
        return {route.id: _session(route.id, reports.get(route.id)) for route in routes}

    async def stop(self, routes: Sequence[Route]) -> Mapping[RouteId, ProvisionError | None]:
        """Stop the replicas of all routes at once."""
        if routes:
            await self._fleet.stop(route.id for route in routes)
        return {route.id: None for route in routes}

    async def close(self) -> None:
        """Close the connection to the fleet."""
        await self._fleet.close()


def _session_id(route: RouteId) -> str:
    return f"simulated-{route}"


def _wanted(order: Order) -> Wanted:
    spec = order.revision.spec
    path = _DEFAULT_PATH if spec.health_check is None else spec.health_check.path
    return Wanted(
        id=order.route.id,
        path=path.partition("?")[0],
        behaviour=behaviour_of(spec.environment),
    )


def _session(route: RouteId, report: Report | None) -> Session:
    if report is None:
        return Session(
            id="", state=SessionState.MISSING, exit_reason="the fleet knows no such replica"
        )
    running = report.state is SessionState.RUNNING
    return Session(
        id=_session_id(route),
        state=report.state,
        host=report.host if running else None,
        port=report.port if running else None,
        exit_reason=report.exit_reason,
    )
