"""A provisioner in memory, as good as the real ones by the same contract suite.

Tests drive it: what it refuses, whether it can be asked, and what becomes of a session.
"""

from collections.abc import Mapping, Sequence

from controller.errors import ProvisionError
from controller.model import Route, RouteId
from controller.provision.port import Order, Session, SessionState


class FakeProvisioner:
    """Sessions are values in `sessions`; set one to change what `inspect` says."""

    def __init__(self) -> None:
        self.sessions: dict[RouteId, Session] = {}
        self.refuse: dict[RouteId, str] = {}
        """Routes that `start` refuses, and why."""
        self.unstoppable: dict[RouteId, str] = {}
        """Routes that `stop` fails for, and why."""
        self.away = False
        """While true, nothing can be asked."""
        self.starts_as = SessionState.RUNNING
        self.calls: list[str] = []

    async def start(self, orders: Sequence[Order]) -> Mapping[RouteId, str | ProvisionError]:
        self._called("start")
        return {order.route.id: self._start(order.route.id) for order in orders}

    async def inspect(self, routes: Sequence[Route]) -> Mapping[RouteId, Session]:
        self._called("inspect")
        missing = Session(id="", state=SessionState.MISSING, exit_reason="never started")
        return {route.id: self.sessions.get(route.id, missing) for route in routes}

    async def stop(self, routes: Sequence[Route]) -> Mapping[RouteId, ProvisionError | None]:
        self._called("stop")
        answers: dict[RouteId, ProvisionError | None] = {}
        for route in routes:
            why = self.unstoppable.get(route.id)
            answers[route.id] = None if why is None else ProvisionError(why)
            if why is None:
                self.sessions.pop(route.id, None)
        return answers

    async def close(self) -> None:
        self.calls.append("close")

    def give_address(self, route: RouteId) -> None:
        """Let a pending session run."""
        self.sessions[route] = _running(route, len(self.sessions))

    def exit(self, route: RouteId, reason: str = "killed") -> None:
        """Let a session end."""
        session = self.sessions[route]
        self.sessions[route] = Session(id=session.id, state=SessionState.EXITED, exit_reason=reason)

    def _start(self, route: RouteId) -> str | ProvisionError:
        if route in self.refuse:
            return ProvisionError(self.refuse[route])
        if route not in self.sessions:
            if self.starts_as is SessionState.RUNNING:
                self.sessions[route] = _running(route, len(self.sessions))
            else:
                self.sessions[route] = Session(id=f"fake-{route}", state=self.starts_as)
        return self.sessions[route].id

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if self.away:
            raise ProvisionError("the fake provisioner is away: set `away` to False")


def _running(route: RouteId, n: int) -> Session:
    return Session(
        id=f"fake-{route}",
        state=SessionState.RUNNING,
        host=f"127.65.{n // 250}.{n % 250 + 1}",
        port=8000,
    )
