"""The handlers that turn what the prober says into state: warm-up, health, eviction."""

from collections.abc import Mapping, Sequence

import structlog

from controller.metrics import BUDGET, ControllerMetrics
from controller.model import DeploymentId, Health, Route, RouteStatus, Snapshot, Stage
from controller.reconcile.handler import Applied, Plan, RouteHandler, Schedule, World
from controller.reconcile.observe import Velocity
from controller.reconcile.provision import in_stage
from controller.rollout.rolling import bounds_of
from controller.route import classify, evict, warmup

log = structlog.get_logger()


class CheckWarmingUp(RouteHandler):
    """WARMING_UP -> RUNNING at the first passing probe, or DRAINING when its grace is over."""

    name = warmup.CATEGORY

    def select(self, world: World) -> Sequence[Route]:
        """Select the routes that load."""
        return in_stage(world, Stage.WARMING_UP)

    async def decide(self, world: World, routes: Sequence[Route]) -> Plan:
        """Promote who answers, give up who never did."""
        snapshot = world.snapshot
        changes = [
            change
            for route in routes
            if (deployment := snapshot.deployments.get(route.deployment_id)) is not None
            and (
                change := warmup.decide(
                    route, deployment, world.view, now_ms=snapshot.now_ms, hold=world.hold
                )
            )
        ]
        return Plan(changes=tuple(changes))


class ClassifyHealth(RouteHandler):
    """RUNNING routes: HEALTHY, UNHEALTHY, DEGRADED, or no change."""

    name = classify.CATEGORY

    def __init__(self, schedule: Schedule, velocity: Velocity) -> None:
        super().__init__(schedule)
        self._velocity = velocity

    def select(self, world: World) -> Sequence[Route]:
        """Select the routes that serve and are checked."""
        return [
            route
            for route in world.snapshot.routes
            if route.status is RouteStatus.RUNNING and route.health_check is not None
        ]

    async def decide(self, world: World, routes: Sequence[Route]) -> Plan:
        """Write only what changed."""
        return Plan(changes=classify.classify_all(routes, world.view, hold=world.hold))

    async def after(self, world: World, applied: Applied) -> None:
        """Count the newly unhealthy: too many of them hold what cannot be undone."""
        newly = sum(change.health is Health.UNHEALTHY for change in applied.changes)
        self._velocity.add(newly, now_ms=world.snapshot.now_ms)


class Evict(RouteHandler):
    """Orphans and the unhealthy leave, within budgets and never under HOLD."""

    name = evict.CATEGORY
    divisible = False  # budgets and floors are counted over the fleet

    def __init__(self, schedule: Schedule, metrics: ControllerMetrics) -> None:
        super().__init__(schedule)
        self._metrics = metrics
        self._budget = evict.Budget()

    def select(self, world: World) -> Sequence[Route]:
        """Select what is not on its way out already."""
        return [route for route in world.snapshot.routes if route.active]

    async def decide(self, world: World, routes: Sequence[Route]) -> Plan:
        """Choose who goes; say who would have, but for a safety rule."""
        changes = evict.decide(
            world.snapshot,
            world.view,
            hold=world.hold,
            budget=self._budget,
            floors=floors(world.snapshot),
            period_s=self.schedule.period_s,
        )
        chosen = {change.route.id for change in changes}
        held_back = [r for r in _listed(world.snapshot, routes) if r.id not in chosen]
        for cause in world.hold or (BUDGET,):
            self._metrics.blocked(str(cause), len(held_back))
        return Plan(changes=changes)

    async def after(self, world: World, applied: Applied) -> None:
        """Charge the budget with what really went."""
        self._budget = self._budget.after(applied.changes, now_ms=world.snapshot.now_ms)
        for change in applied.changes:
            log.info("evicted", route_id=change.route.id, why=change.message)


def floors(snapshot: Snapshot) -> Mapping[DeploymentId, int]:
    """Return how many ready replicas each deployment must keep."""
    return {
        deployment.id: bounds_of(
            deployment.rollout.policy if deployment.rollout else deployment.policy,
            deployment.target_count,
        ).min_avail
        for deployment in snapshot.deployments.values()
    }


def _listed(snapshot: Snapshot, routes: Sequence[Route]) -> list[Route]:
    """Return the running routes whose health the policy of their deployment lists."""
    return [
        route
        for route in routes
        if route.status is RouteStatus.RUNNING
        and (deployment := snapshot.deployments.get(route.deployment_id)) is not None
        and route.health in deployment.cleanup_target_statuses
    ]
