"""The handlers of whole deployments: roll out, keep the count, take away.

They hand a deployment to the pure rollout room and return its decision. The only thing they add
is chance: ids for new replicas.
"""

import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

from controller.model import Decision, Deployment, DeploymentId, Lifecycle, Route, RouteId
from controller.reconcile.handler import DeploymentHandler, World
from controller.rollout import destroy, machine, scale
from controller.route.guard.clocks import stood_still_ms


def fresh_ids() -> Iterator[RouteId]:
    """Yield ids nobody has used."""
    while True:
        yield RouteId(str(uuid.uuid4()))


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
            fresh=fresh_ids(),
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

    def decide(
        self, world: World, deployment: Deployment, routes: Sequence[Route]
    ) -> Decision | None:
        """Create what is missing, drain what is too much."""
        return scale.step(deployment, routes, fresh=fresh_ids())


class Destroying(_OfLifecycle):
    """DESTROYING deployments lose everything, and then are gone."""

    name = destroy.CATEGORY
    lifecycle = Lifecycle.DESTROYING

    def decide(
        self, world: World, deployment: Deployment, routes: Sequence[Route]
    ) -> Decision | None:
        """Drain, then end."""
        return destroy.step(deployment, routes)
