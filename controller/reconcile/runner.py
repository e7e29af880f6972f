"""The coordinator: who runs when, and who sees what another one wrote.

Handlers of routes and of deployments have one generic cycle each: select, decide, one
transaction, after. None here knows a strategy or a state by name (R-27). An exception is never
the end of a tick (R-15); only a lost lease ends everything, because somebody else leads now.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from controller.db.repository import Repository
from controller.errors import DatabaseUnreachable, LeaseLost
from controller.metrics import ControllerMetrics
from controller.reconcile.deployment_cycle import DeploymentCycle
from controller.reconcile.handler import DeploymentHandler, FleetHandler, Mark, RouteHandler, World
from controller.reconcile.observe import Observer
from controller.reconcile.route_cycle import RouteCycle
from controller.settings import PERIODS
from controller.vigil import Vigil

log = structlog.get_logger()

Handler = RouteHandler | DeploymentHandler | FleetHandler
Step = Callable[[], Awaitable[None]]


async def _at_once() -> None:
    """Let a handler run without a question."""


VIGIL: Final = "vigil"
"""Under whose name it is told that the watch itself failed."""
WATCHED_TABLES: Final = ("routes", "deployments")
"""A row written in these shows in the next look; at rest there is none (I10)."""


@dataclass(slots=True)
class _Due:
    """When one handler ran last, and how often it was marked; times are monotonic seconds."""

    next_at: float
    last_at: float = float("-inf")
    marks: int = 0
    """Those that no run has answered yet."""


class Runner:
    """Runs handlers when their time or their mark has come."""

    def __init__(
        self,
        handlers: Sequence[Handler],
        *,
        repository: Repository,
        observer: Observer,
        metrics: ControllerMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._handlers = handlers
        self._repository = repository
        self._observer = observer
        self._metrics = metrics
        self._clock = clock
        start = clock()
        self._due = {h.name: _Due(next_at=start + h.schedule.first_after_s) for h in handlers}
        self._routes = RouteCycle(repository, metrics)
        self._deployments = DeploymentCycle(repository, metrics)
        self._vigil = vigil_of(handlers)

    def mark(self, mark: Mark) -> None:
        """Wake the handlers that consume `mark`, no sooner than their shortest pause allows."""
        for handler in self._handlers:
            if mark in handler.schedule.consumes:
                self._due[handler.name].marks += 1

    def hurry(self) -> None:
        """Let every handler be due now, whatever its period."""
        for due in self._due.values():
            due.next_at = self._clock()

    def next_at(self) -> float:
        """Return when the next handler is due, in monotonic seconds."""
        return min(self._due_at(handler) for handler in self._handlers)

    def _due_at(self, handler: Handler) -> float:
        due, pause_s = self._due[handler.name], handler.schedule.on_mark_s
        if due.marks and pause_s is not None:
            return min(due.next_at, due.last_at + pause_s)
        return due.next_at

    async def tick(self, *, epoch: int, before_each: Step = _at_once) -> int:
        """Run what is due, in the handlers' order; return how many rows changed.

        `before_each` is awaited before a handler may act outside the database, too.

        Raises:
            LeaseLost: if another controller leads.
            DatabaseUnreachable: if the database does not answer; everything is due again then.
        """
        try:
            return await self._run_due(epoch, before_each)
        except DatabaseUnreachable:
            self.hurry()
            raise

    async def _run_due(self, epoch: int, before_each: Step) -> int:
        now = self._clock()
        if self.next_at() > now:
            return 0
        # A mark set from here on may be of something this look at the world does not show.
        answered = {name: due.marks for name, due in self._due.items()}
        world = await self._observer.observe()
        self._watch_over(world)
        changed = 0
        for place, handler in enumerate(self._handlers):
            if self._due_at(handler) > now:
                continue
            await before_each()
            written = await self._run(handler, world, epoch)
            state = self._due[handler.name]
            state.last_at, state.next_at = now, now + handler.schedule.period_s
            state.marks -= answered[handler.name]
            if written:
                changed += written
                for mark in handler.schedule.produces:
                    self.mark(mark)
                # Those whose turn is still to come see it in this very tick, and need no other.
                for later in self._handlers[place + 1 :]:
                    answered[later.name] += len(handler.schedule.produces & later.schedule.consumes)
                if not isinstance(handler, FleetHandler):
                    world = await self._observer.again(world)
        return changed

    def _watch_over(self, world: World) -> None:
        """Compare this look at the world with the one before: what must always hold."""
        writes = self._repository.sql_writes
        try:
            broken = self._vigil.see(
                world.snapshot,
                held=bool(world.hold),
                held_deployments=world.held_deployments,
                written=sum(writes.get(table, 0) for table in WATCHED_TABLES),
            )
        except Exception:  # who cannot watch stops nobody from acting
            log.exception("handler_failed", handler=VIGIL)
            self._metrics.failed(VIGIL)
            return
        for invariant in broken:
            log.error("invariant_violated", invariant=invariant.value)
        self._metrics.violated(broken)

    async def _run(self, handler: Handler, world: World, epoch: int) -> int:
        """Run one handler's cycle; return how many rows it changed."""
        started = self._clock()
        try:
            if isinstance(handler, RouteHandler):
                written, look_again = await self._routes.run(handler, world, epoch=epoch)
                self._due[handler.name].marks += look_again
            elif isinstance(handler, DeploymentHandler):
                written = await self._deployments.run(handler, world, epoch=epoch)
            else:
                written = await handler.commit(world, epoch=epoch)
        except (LeaseLost, DatabaseUnreachable):
            raise
        except Exception:  # the tick goes on whatever a handler does
            log.exception("handler_failed", handler=handler.name)
            self._metrics.failed(handler.name)
            return 0
        self._metrics.handled(handler.name, self._clock() - started)
        return written


def vigil_of(handlers: Iterable[Handler]) -> Vigil:
    """Return who watches over the looks, knowing how late these handlers may be."""
    period_s = {handler.name: handler.schedule.period_s for handler in handlers}
    return Vigil(
        evict_s=period_s.get("evict", PERIODS["evict"].long_s),
        deploying_s=period_s.get("deploying", PERIODS["deploying"].long_s),
    )
