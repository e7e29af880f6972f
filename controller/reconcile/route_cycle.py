"""One cycle of a handler of routes: select, decide, one transaction, after.

An exception is the failure of the routes that caused it, found by halving (R-15). Called by the
coordinator, which knows when.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import structlog

from controller.db.repository import Repository
from controller.errors import ControllerError, DatabaseUnreachable, LeaseLost
from controller.invariants import change_violations
from controller.metrics import ControllerMetrics
from controller.model import Note, Route, RouteChange
from controller.reconcile.handler import Applied, Plan, RouteHandler, World

log = structlog.get_logger()

BLAMED_MAX: Final = 16
"""So many culprits are searched for in one run. With more it is the handler that is ill, and to
find each of 10,000 would be 20,000 runs of it and as many tracebacks."""


class Ran(NamedTuple):
    """What came of a cycle."""

    rows: int = 0
    """Rows that it changed."""
    look_again: bool = False
    """Whether it wants its next run after the short pause."""


class RouteCycle:
    """Runs handlers of routes; all raise LeaseLost and DatabaseUnreachable."""

    def __init__(self, repository: Repository, metrics: ControllerMetrics) -> None:
        self._repository = repository
        self._metrics = metrics

    async def run(self, handler: RouteHandler, world: World, *, epoch: int) -> Ran:
        """Let the handler decide over the routes it selects, and write what it decided."""
        routes = handler.select(world)
        if not routes:
            return Ran()
        plan = await self._decide(handler, world, routes)
        if not plan.changes and not plan.notes:
            return Ran(look_again=plan.look_again)
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
        return Ran(len(written), plan.look_again)

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
