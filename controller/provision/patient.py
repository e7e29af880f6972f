"""A provisioner that answers in time, or says that it has not: nobody waits for one that hangs.

Each handler has a view of its own, with at most one call in flight. What a call brings after its
handler stopped waiting counts at the handler's next run, which `on_late` is to bring about. So a
view answers for the routes it knows of, and leaves out the others: these are asked about again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from controller.errors import ProvisionError
from controller.model import Route, RouteId
from controller.provision.port import Order, Provisioner, Session

PATIENCE_S: Final = 1.0
"""A machine's answer takes milliseconds, a cluster's some hundred. A term waits for four handlers
at most once each: the next runs find the call in flight, and do not wait."""

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")
_Call = Callable[[Sequence[_Asked]], Awaitable[Mapping[RouteId, _Answer]]]


class Patience:
    """The calls that a term of leadership has in flight."""

    def __init__(
        self,
        provisioner: Provisioner,
        *,
        on_late: Callable[[], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Tell `on_late` when an answer came that nobody waited for any more."""
        self.provisioner = provisioner
        self.patience_s = patience_s
        self._on_late = on_late
        self._late: dict[asyncio.Task[Any], frozenset[RouteId]] = {}
        """Calls nobody waits for, with the routes they start."""

    def view(self) -> "PatientProvisioner":
        """Return the way to the provisioner for one handler."""
        return PatientProvisioner(self)

    @property
    def starting(self) -> frozenset[RouteId]:
        """Routes that may be started any moment."""
        return frozenset().union(*self._late.values())

    def watch(self, task: "asyncio.Task[Any]", *, starts: Iterable[RouteId]) -> None:
        """Take note of a call nobody waits for."""
        self._late[task] = frozenset(starts)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        del self._late[task]
        if not task.cancelled():
            task.exception()  # looked at, so that nobody complains when no handler comes for it
            self._on_late()

    async def close(self) -> None:
        """Give up on what is still in flight."""
        late = [*self._late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


class PatientProvisioner:
    """One handler's view: every call raises when nothing is known in time."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._flight: asyncio.Task[Any] | None = None

    async def start(self, orders: Sequence[Order]) -> Mapping[RouteId, str | ProvisionError]:
        """Start them; an order that is left out is neither started nor refused yet."""
        wanted = {order.route.id: order for order in orders}
        return await self._ask(wanted, self._patience.provisioner.start, starts=wanted)

    async def inspect(self, routes: Sequence[Route]) -> Mapping[RouteId, Session]:
        """Ask about them; of a route that is left out nothing is known yet.

        A session that is gone stays gone, so what was true when a late call was made still holds.
        """
        return await self._ask({r.id: r for r in routes}, self._patience.provisioner.inspect)

    async def stop(self, routes: Sequence[Route]) -> Mapping[RouteId, ProvisionError | None]:
        """Stop them; what may start any moment is not over, nor is what was not answered for."""
        starting = self._patience.starting
        wanted = {route.id: route for route in routes if route.id not in starting}
        answers = await self._ask(wanted, self._patience.provisioner.stop)
        unsaid = ProvisionError("the provisioner has not answered yet")
        return {route.id: answers.get(route.id, unsaid) for route in routes}

    async def close(self) -> None:
        """Hold nothing: the calls in flight are the term's."""

    async def _ask(
        self,
        wanted: Mapping[RouteId, _Asked],
        call: _Call[_Asked, _Answer],
        *,
        starts: Iterable[RouteId] = (),
    ) -> Mapping[RouteId, _Answer]:
        """Return what a late call brought, and ask about the rest."""
        answers = await self._landed(wanted)
        rest = [value for key, value in wanted.items() if key not in answers]
        if not rest:
            return answers
        task = asyncio.ensure_future(_called(call, rest))
        try:
            done, _ = await asyncio.wait({task}, timeout=self._patience.patience_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if done:
            return {**answers, **task.result()}
        self._flight = task
        self._patience.watch(task, starts=starts)
        if answers:
            return answers
        raise self._silence()

    async def _landed(self, wanted: Mapping[RouteId, _Asked]) -> Mapping[RouteId, Any]:
        flight = self._flight
        if flight is None:
            return {}
        if not flight.done():
            raise self._silence()
        self._flight = None
        return {key: value for key, value in flight.result().items() if key in wanted}

    def _silence(self) -> ProvisionError:
        return ProvisionError(
            f"the provisioner has not answered within {self._patience.patience_s:g} s; what it "
            "says later counts then"
        )


async def _called(
    call: _Call[_Asked, _Answer], asked: Sequence[_Asked]
) -> Mapping[RouteId, _Answer]:
    return await call(asked)
