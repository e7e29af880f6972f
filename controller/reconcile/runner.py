"""The coordinator: who runs when, and one generic cycle for every handler.

select -> decide -> one transaction -> after. It knows no strategy and no state by name (R-27).
An exception is the failure of the entities that caused it, found by halving, and never the end
of a tick (R-15); only a lost lease ends everything, because somebody else leads now.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import structlog

from controller.db.repository import Repository
from controller.errors import Conflict, ControllerError, DatabaseUnreachable, LeaseLost
from controller.invariants import change_violations
from controller.metrics import ControllerMetrics
from controller.model import (
    Decision,
    Deployment,
    DeploymentId,
    Note,
    Route,
    RouteChange,
)
from controller.reconcile.handler import (
    Applied,
    DeploymentHandler,
    FleetHandler,
    Mark,
    Plan,
    RouteHandler,
    World,
)
from controller.reconcile.observe import Observer
from controller.settings import PERIODS
from controller.vigil import Vigil

log = structlog.get_logger()

Handler = RouteHandler | DeploymentHandler | FleetHandler
Step = Callable[[], Awaitable[None]]


async def _at_once() -> None:
    """Let a handler run without a question."""


BLAMED_MAX: Final = 16
"""So many culprits are searched for in one run. With more it is the handler that is ill, and to
find each of 10,000 would be 20,000 runs of it and as many tracebacks."""
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
                written = await self._run_routes(handler, world, epoch)
            elif isinstance(handler, DeploymentHandler):
                written = await self._run_deployments(handler, world, epoch)
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

    async def _run_routes(self, handler: RouteHandler, world: World, epoch: int) -> int:
        routes = handler.select(world)
        if not routes:
            return 0
        plan = await self._decide(handler, world, routes)
        self._due[handler.name].marks += plan.look_again
        if not plan.changes and not plan.notes:
            return 0
        result = await handler.write(self._repository, world, plan, epoch=epoch)
        lost = frozenset(result.lost)
        written = tuple(c for c in plan.changes if c.route.id not in lost)
        self._metrics.lost(handler.name, len(lost))
        self._metrics.changed(written)
        self._metrics.violated(
            change_violations(written, world.snapshot, world.view, hold=world.hold)
        )
        try:
            await handler.after(world, Applied(changes=written, lost=result.lost))
        except Exception:  # what was written stays written, and wakes whom it concerns
            log.exception("after_failed", handler=handler.name)
            self._metrics.failed(handler.name)
        return len(written)

    async def _decide(self, handler: RouteHandler, world: World, routes: Sequence[Route]) -> Plan:
        """Decide for all; when that raises, for each half, down to the routes that are to blame."""
        changes: list[RouteChange] = []
        notes: list[Note] = []
        look_again = False
        parts, blamed = [routes], 0
        while parts:
            part = parts.pop()
            try:
                plan = await handler.decide(world, part)
            except (LeaseLost, DatabaseUnreachable):
                raise
            except ControllerError as error:
                log.warning("handler_cannot_tell", handler=handler.name, error=str(error))
                notes += _notes(handler.name, part, str(error), type(error).__name__)
            except Exception as error:
                if handler.divisible and len(part) > 1 and blamed < BLAMED_MAX:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                    continue
                blamed += 1
                log.exception("routes_failed", handler=handler.name, routes=len(part))
                self._metrics.failed(handler.name)
                what = f"{type(error).__name__}: {error}"
                notes += _notes(handler.name, part, what, "INTERNAL_ERROR")
            else:
                changes += plan.changes
                notes += plan.notes
                look_again |= plan.look_again
        return Plan(changes=tuple(changes), notes=tuple(notes), look_again=look_again)

    async def _run_deployments(self, handler: DeploymentHandler, world: World, epoch: int) -> int:
        deployments = handler.select(world)
        if not deployments:
            return 0
        by_deployment = _routes_by_deployment(world.snapshot.routes)
        await handler.look(world, by_deployment)
        written = 0
        for deployment in deployments:
            routes = by_deployment.get(deployment.id, ())
            written += await self._run_deployment(handler, world, deployment, routes, epoch)
        return written

    async def _run_deployment(
        self,
        handler: DeploymentHandler,
        world: World,
        deployment: Deployment,
        routes: Sequence[Route],
        epoch: int,
    ) -> int:
        """Let the handler decide over one deployment; one that cannot is told in history."""

        async def decide() -> int:
            decision = handler.decide(world, deployment, routes)
            return await self._commit(handler, decision, world, routes, epoch)

        async def after(error: Exception) -> int:
            note = _failure(handler.category(deployment), deployment, error)
            attempts = await self._repository.record(note, epoch=epoch)
            decision = handler.after_failures(
                world, deployment, attempts=attempts, error=note.message
            )
            return await self._commit(handler, decision, world, routes, epoch)

        written = await self._attempt(handler, deployment, decide())
        if isinstance(written, Exception):
            written = await self._attempt(handler, deployment, after(written))
        return 0 if isinstance(written, Exception) else written

    async def _attempt(
        self, handler: DeploymentHandler, deployment: Deployment, work: Awaitable[int]
    ) -> int | Exception:
        """Return how many rows it changed, or what it raised.

        One poisoned deployment never stops the others (R-15).
        """
        try:
            return await work
        except (LeaseLost, DatabaseUnreachable):
            raise
        except Conflict as error:
            log.info(
                "decision_lost", handler=handler.name, deployment=deployment.name, why=str(error)
            )
            self._metrics.lost(handler.name, 1)
            return 0
        except Exception as error:
            log.exception("deployment_failed", handler=handler.name, deployment=deployment.name)
            self._metrics.failed(handler.name)
            return error

    async def _commit(
        self,
        handler: DeploymentHandler,
        decision: Decision | None,
        world: World,
        routes: Sequence[Route],
        epoch: int,
    ) -> int:
        if decision is None or decision.empty:
            return 0
        await self._repository.commit(decision, epoch=epoch)
        try:
            self._metrics.decided(decision, routes, world.snapshot.now_ms)
        except Exception:  # what was written stays written; a strategy's bounds may be what fails
            log.exception("after_failed", handler=handler.name)
            self._metrics.failed(handler.name)
        return len(decision.create) + len(decision.routes) + (decision.change is not None)


def vigil_of(handlers: Iterable[Handler]) -> Vigil:
    """Return who watches over the looks, knowing how late these handlers may be."""
    period_s = {handler.name: handler.schedule.period_s for handler in handlers}
    return Vigil(
        evict_s=period_s.get("evict", PERIODS["evict"].long_s),
        deploying_s=period_s.get("deploying", PERIODS["deploying"].long_s),
    )


def _routes_by_deployment(routes: Iterable[Route]) -> dict[DeploymentId, tuple[Route, ...]]:
    ordered = sorted(routes, key=lambda route: route.deployment_id)
    return {key: tuple(group) for key, group in groupby(ordered, lambda r: r.deployment_id)}


def _failure(category: str, deployment: Deployment, error: Exception) -> Note:
    """Return the failure of a whole deployment; a database's error goes on with its statement."""
    message = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return Note(
        deployment_id=deployment.id,
        route_id=None,
        category=category,
        message=message,
        result="failure",
        error_code="INTERNAL_ERROR",
    )


def _notes(category: str, routes: Sequence[Route], message: str, error_code: str) -> Iterable[Note]:
    """Yield the failure of one route as its own, and that of several as their deployments'."""
    alone = len(routes) == 1
    for deployment_id in sorted({route.deployment_id for route in routes}):
        yield Note(
            deployment_id=deployment_id,
            route_id=routes[0].id if alone else None,
            category=category,
            message=message,
            result="failure",
            error_code=error_code,
        )
