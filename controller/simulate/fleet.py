"""Replicas in virtual time, and the provisioner that runs them.

What becomes of one is told by its revision's behaviour and by chance of its own, so that nothing
else that happens changes it. The prober asks `answer`; nobody else looks inside.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from controller.errors import ProvisionError
from controller.model import DeploymentId, RevisionId, Route, RouteId
from controller.provision.port import Order, Session, SessionState
from controller.simulate.scenario import Replicas
from probe.wire import Reason

_ADDRESS_S = 2.0
"""From an order to an address, at most."""


@dataclass(slots=True)
class Replica:
    """One session, and the truth about it."""

    route_id: RouteId
    deployment_id: DeploymentId
    host: str
    address_at_s: float
    loaded_at_s: float
    broken: bool
    dies_at_s: float
    hangs: tuple[float, float] = (0.0, 0.0)
    flaps: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """From, until, and for how long at a time."""
    failed_at_s: float = field(default=float("-inf"))
    """When it last could not serve although it had been able to."""

    def dead(self, now_s: float) -> bool:
        """Tell whether its process has ended."""
        return now_s >= self.dies_at_s

    def answer(self, now_s: float) -> Reason:
        """Return what a probe finds."""
        reason = self._answer(now_s)
        if reason is not Reason.OK and now_s >= self.loaded_at_s:
            self.failed_at_s = now_s
        return reason

    def _answer(self, now_s: float) -> Reason:
        if self.dead(now_s) or now_s < self.loaded_at_s:
            return Reason.CONNECT_REFUSED
        if self.broken:
            return Reason.STATUS_UNEXPECTED
        if self.hangs[0] <= now_s < self.hangs[1]:
            return Reason.RESPONSE_TIMEOUT
        start, end, period_s = self.flaps
        if start <= now_s < end and int((now_s - start) // period_s) % 2 == 0:
            return Reason.STATUS_UNEXPECTED
        return Reason.OK


class SimulatedFleet:
    """A provisioner whose sessions are values."""

    def __init__(
        self,
        seed: str,
        *,
        clock: Callable[[], float],
        exchange: Callable[[], Awaitable[None]],
    ) -> None:
        self._seed = seed
        self._clock = clock
        self._exchange = exchange
        self.replicas: dict[RouteId, Replica] = {}
        self.behaviours: dict[RevisionId, Replicas] = {}
        self.away = False
        self._count = 0

    async def start(self, orders: Sequence[Order]) -> Mapping[RouteId, str | ProvisionError]:
        """Start them, each as its revision behaves."""
        await self._reach()
        answers: dict[RouteId, str | ProvisionError] = {}
        for order in orders:
            route_id = order.route.id
            if route_id not in self.replicas:
                made = self._made(order)
                if isinstance(made, ProvisionError):
                    answers[route_id] = made
                    continue
                self.replicas[route_id] = made
            answers[route_id] = f"sim-{route_id}"
        await self._exchange()
        return answers

    def _made(self, order: Order) -> Replica | ProvisionError:
        route, now_s = order.route, self._clock()
        behaviour = self.behaviours.get(order.revision.id, Replicas())
        chance = Random(f"{self._seed}/{route.id}")  # noqa: S311 - repeatable on purpose
        if chance.random() < behaviour.refused:
            return ProvisionError("no room for it, says the scenario")
        self._count += 1
        loaded_at_s = now_s + behaviour.load_s + chance.random() * behaviour.load_spread_s
        dies_at_s = float("inf")
        if behaviour.lives_s:
            dies_at_s = loaded_at_s + chance.expovariate(1 / behaviour.lives_s)
        if chance.random() < behaviour.crashing:
            dies_at_s = now_s + chance.random() * behaviour.load_s
        return Replica(
            route_id=route.id,
            deployment_id=route.deployment_id,
            host=f"10.0.{self._count // 250 % 250}.{self._count % 250 + 1}",
            address_at_s=now_s + chance.random() * _ADDRESS_S,
            loaded_at_s=loaded_at_s,
            broken=behaviour.broken,
            dies_at_s=dies_at_s,
        )

    async def inspect(self, routes: Sequence[Route]) -> Mapping[RouteId, Session]:
        """Say how they are."""
        await self._reach()
        return {route.id: self._session(route.id) for route in routes}

    def _session(self, route_id: RouteId) -> Session:
        replica, now_s = self.replicas.get(route_id), self._clock()
        if replica is None:
            return Session(id="", state=SessionState.MISSING, exit_reason="there is none")
        name = f"sim-{route_id}"
        if replica.dead(now_s):
            return Session(id=name, state=SessionState.EXITED, exit_reason="it died")
        if now_s < replica.address_at_s:
            return Session(id=name, state=SessionState.PENDING)
        return Session(id=name, state=SessionState.RUNNING, host=replica.host, port=8000)

    async def stop(self, routes: Sequence[Route]) -> Mapping[RouteId, ProvisionError | None]:
        """Stop them."""
        await self._reach()
        for route in routes:
            self.replicas.pop(route.id, None)
        await self._exchange()
        return dict.fromkeys((route.id for route in routes), None)

    async def close(self) -> None:
        """Hold nothing."""

    def able(self, deployment_id: DeploymentId) -> list[Replica]:
        """Return the replicas of a deployment that live, oldest first."""
        now_s = self._clock()
        return [
            replica
            for replica in self.replicas.values()
            if replica.deployment_id == deployment_id and not replica.dead(now_s)
        ]

    async def _reach(self) -> None:
        await self._exchange()
        if self.away:
            raise ProvisionError("the simulated provisioner is away")
