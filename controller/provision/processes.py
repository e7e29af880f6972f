"""Replicas that are processes of this machine: the port's adapter over `process.sessions`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from anyio import to_thread

from controller.errors import ProvisionError
from controller.model import Route, RouteId
from controller.provision.port import Order, Session
from controller.provision.process.ender import Ender
from controller.provision.process.place import places
from controller.provision.process.ports import Ports
from controller.provision.process.sessions import Sessions

_Result = TypeVar("_Result")


class ProcessProvisioner:
    """Runs the command of a revision once for each route; the processes outlive this one."""

    def __init__(self, directory: Path, *, host: str, ports: range, grace_s: float) -> None:
        """Keep the sessions in `directory`; `grace_s` after SIGTERM what is left is killed."""
        self._sessions = Sessions(
            directory.absolute(), host=host, ports=Ports(host, ports), grace_s=grace_s
        )

    async def start(self, orders: Sequence[Order]) -> Mapping[RouteId, str | ProvisionError]:
        """Start each order's command at a free port, in a directory of its own."""
        return await _in_thread(lambda: self._sessions.start(orders)) if orders else {}

    async def inspect(self, routes: Sequence[Route]) -> Mapping[RouteId, Session]:
        """Read what became of the sessions, this controller's or an earlier one's."""
        return await _in_thread(lambda: self._sessions.inspect(routes)) if routes else {}

    async def stop(self, routes: Sequence[Route]) -> Mapping[RouteId, ProvisionError | None]:
        """End the sessions with all that they started."""
        return await _in_thread(lambda: self._sessions.stop(routes)) if routes else {}

    async def close(self) -> None:
        """Hold nothing: the sessions live on."""


def end_processes(directory: Path, *, grace_s: float) -> None:
    """End every session in `directory`: for whoever owns it, at its own end."""
    Ender(grace_s=grace_s).end(places(directory))


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    """Leave a disk that does not answer to its thread when nobody waits any more."""
    return await to_thread.run_sync(work, abandon_on_cancel=True)
