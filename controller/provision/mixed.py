"""Two provisioners side by side: replicas registered by hand live next to those we run."""

from collections.abc import Mapping, Sequence

from controller.errors import ProvisionError
from controller.model import Route, RouteId
from controller.provision.port import Order, Provisioner, Session


class MixedProvisioner:
    """Asks `external` about registered routes, and the other one about all others."""

    def __init__(self, own: Provisioner, *, external: Provisioner) -> None:
        self._own = own
        self._external = external

    async def start(self, orders: Sequence[Order]) -> Mapping[RouteId, str | ProvisionError]:
        """Start each order with the provisioner its revision asks for."""
        ours = [order for order in orders if not order.revision.spec.external]
        theirs = [order for order in orders if order.revision.spec.external]
        return {
            **(await self._own.start(ours) if ours else {}),
            **(await self._external.start(theirs) if theirs else {}),
        }

    async def inspect(self, routes: Sequence[Route]) -> Mapping[RouteId, Session]:
        """Ask each provisioner about its own."""
        ours, theirs = _split(routes)
        return {
            **(await self._own.inspect(ours) if ours else {}),
            **(await self._external.inspect(theirs) if theirs else {}),
        }

    async def stop(self, routes: Sequence[Route]) -> Mapping[RouteId, ProvisionError | None]:
        """Stop with each provisioner what is its own."""
        ours, theirs = _split(routes)
        return {
            **(await self._own.stop(ours) if ours else {}),
            **(await self._external.stop(theirs) if theirs else {}),
        }

    async def close(self) -> None:
        """Close both."""
        await self._own.close()
        await self._external.close()


def _split(routes: Sequence[Route]) -> tuple[list[Route], list[Route]]:
    ours = [route for route in routes if not _registered(route)]
    theirs = [route for route in routes if _registered(route)]
    return ours, theirs


def _registered(route: Route) -> bool:
    return (route.session_id or "").startswith("external")
