"""One cycle of a handler of deployments: select, then a decision and a transaction for each.

An exception is the failure of the deployment that caused it, told in its history, where failures
are counted (R-12, R-15). Called by the coordinator, which knows when.
"""

from collections.abc import Awaitable, Iterable, Sequence
from itertools import groupby

import structlog

from controller.db.repository import Repository
from controller.errors import Conflict, DatabaseUnreachable, LeaseLost
from controller.metrics import ControllerMetrics
from controller.model import Decision, Deployment, DeploymentId, Note, Route
from controller.reconcile.handler import DeploymentHandler, World

log = structlog.get_logger()


class DeploymentCycle:
    """Runs handlers of deployments; all raise LeaseLost and DatabaseUnreachable."""

    def __init__(self, repository: Repository, metrics: ControllerMetrics) -> None:
        self._repository = repository
        self._metrics = metrics

    async def run(self, handler: DeploymentHandler, world: World, *, epoch: int) -> int:
        """Let the handler decide over each deployment it selects; return how many rows changed."""
        deployments = handler.select(world)
        if not deployments:
            return 0
        by_deployment = _routes_by_deployment(world.snapshot.routes)
        await handler.look(world, by_deployment)
        written = 0
        for deployment in deployments:
            routes = by_deployment.get(deployment.id, ())
            written += await self._run_one(handler, world, deployment, routes, epoch)
        return written

    async def _run_one(
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
