"""The handlers of whole deployments: roll out, keep the count, take away.

They hand a deployment to the pure rollout room and return its decision. The only thing they add
is chance: ids for new replicas.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar

from controller.db.failures import Failures
from controller.model import (
    Decision,
    Deployment,
    DeploymentId,
    Lifecycle,
    Route,
    RouteId,
    SubStep,
)
from controller.reconcile.handler import DeploymentHandler, Schedule, World
from controller.rollout import destroy, endings, machine, scale
from controller.rollout.backoff import WINDOW_S, Failure, back_off
from controller.rollout.give_up import give_up
from controller.route.guard.clocks import stood_still_ms


def fresh_ids() -> Iterator[RouteId]:
    """Yield ids nobody has used."""
    while True:
        yield RouteId(str(uuid.uuid4()))


Fresh = Callable[[], Iterator[RouteId]]
"""What ids come from."""


class _OfLifecycle(DeploymentHandler):
    """A step over the deployments in one lifecycle."""

    lifecycle: ClassVar[Lifecycle]

    def select(self, world: World) -> Sequence[Deployment]:
        """Select by lifecycle."""
        return [d for d in world.snapshot.deployments.values() if d.lifecycle is self.lifecycle]


class Deploying(_OfLifecycle):
    """One cycle of every rollout in flight, forward or back."""

    name = "deploying"
    lifecycle = Lifecycle.DEPLOYING

    def __init__(self, schedule: Schedule, *, fresh: Fresh = fresh_ids) -> None:
        super().__init__(schedule)
        self._fresh = fresh

    def decide(
        self, world: World, deployment: Deployment, routes: Sequence[Route]
    ) -> Decision | None:
        """Let the rollout's rules decide."""
        rollout = deployment.rollout
        return machine.step(
            deployment,
            routes,
            world.snapshot.now_ms,
            failed=world.snapshot.failed_counts.get(rollout.id, 0) if rollout else 0,
            fresh=self._fresh(),
            held=world.frozen(deployment.id),
            still=partial(_stood_still, world, deployment.id),
        )

    def category(self, deployment: Deployment) -> str:
        """Return where this phase's decisions go, so that one that succeeds ends the row."""
        back = deployment.sub_step is SubStep.ROLLING_BACK
        return endings.BACK if back else endings.FORWARD

    def after_failures(
        self, world: World, deployment: Deployment, *, attempts: int, error: str
    ) -> Decision | None:
        """Give the rollout up, if it has failed too often or its time is over."""
        return give_up(
            deployment,
            world.snapshot.now_ms,
            attempts=attempts,
            error=error,
            held=world.frozen(deployment.id),
            still=partial(_stood_still, world, deployment.id),
        )


def _stood_still(world: World, deployment_id: DeploymentId, since_ms: int, until_ms: int) -> int:
    holds = world.snapshot.holds
    return stood_still_ms(holds, deployment_id, since_ms=since_ms, until_ms=until_ms)


class CheckReplicas(_OfLifecycle):
    """READY deployments have as many replicas as they should (R-30)."""

    name = scale.CATEGORY
    lifecycle = Lifecycle.READY

    def __init__(self, schedule: Schedule, failures: Failures, *, fresh: Fresh = fresh_ids) -> None:
        super().__init__(schedule)
        self._read = failures
        self._fresh = fresh
        self._failures: Mapping[DeploymentId, Sequence[Failure]] = {}

    async def look(self, world: World, routes: Mapping[DeploymentId, Sequence[Route]]) -> None:
        """Read how the last replicas ended, where some are missing."""
        short = [d.id for d in self.select(world) if scale.missing(d, routes.get(d.id, ())) > 0]
        since_ms = world.snapshot.now_ms - int(WINDOW_S * 1000)
        self._failures = await self._read.of(short, since_ms=since_ms)

    def decide(
        self, world: World, deployment: Deployment, routes: Sequence[Route]
    ) -> Decision | None:
        """Create what is missing, but not in vain; drain what is too much."""
        failures = self._failures.get(deployment.id, ())
        wait = back_off(failures, now_ms=world.snapshot.now_ms)
        return scale.step(deployment, routes, fresh=self._fresh(), wait=wait)


class Destroying(_OfLifecycle):
    """DESTROYING deployments lose everything, and then are gone."""

    name = destroy.CATEGORY
    lifecycle = Lifecycle.DESTROYING

    def decide(
        self, world: World, deployment: Deployment, routes: Sequence[Route]
    ) -> Decision | None:
        """Drain, then end."""
        return destroy.step(deployment, routes)
