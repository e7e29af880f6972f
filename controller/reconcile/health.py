"""The handlers that turn what the prober says into state: warm-up, health, eviction."""

from collections import Counter
from collections.abc import Mapping, Sequence

import structlog

from controller.db.repository import Applied as WrittenRows
from controller.db.repository import Repository
from controller.invariants import floor_of
from controller.metrics import ControllerMetrics
from controller.model import DeploymentId, Health, Route, RouteStatus, Snapshot, Stage
from controller.reconcile.handler import Applied, Plan, RouteHandler, Schedule, World
from controller.reconcile.observe import Velocity
from controller.reconcile.provision import in_stage
from controller.route import classify, evict, grounds, shed, warmup
from controller.route.guard import Budget, Gate
from controller.route.guard.clocks import stood_still_ms

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
                    route,
                    deployment,
                    world.view,
                    now_ms=snapshot.now_ms,
                    hold=world.hold_for(deployment.id),
                    still_ms=stood_still_ms(
                        snapshot.holds,
                        deployment.id,
                        since_ms=route.entered_at_ms,
                        until_ms=snapshot.now_ms,
                    ),
                )
            )
        ]
        return Plan(changes=tuple(changes))


class ClassifyHealth(RouteHandler):
    """RUNNING routes: HEALTHY, UNHEALTHY, DEGRADED, or no change; and traffic, where it follows."""

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
        """Write only what changed; who fails gets no traffic, down to half a deployment (S12)."""
        now_ms = world.snapshot.now_ms
        forced = frozenset(d.id for d in world.snapshot.deployments.values() if d.forced(now_ms))
        changes = classify.classify_all(routes, world.view, hold=world.hold, forced=forced)
        return Plan(changes=shed.with_traffic(changes, routes, world.snapshot.routes, world.view))

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
        self._budget = Budget()
        self._warned: frozenset[DeploymentId] = frozenset()
        self._floorless: frozenset[DeploymentId] = frozenset()

    def select(self, world: World) -> Sequence[Route]:
        """Select what is not on its way out already."""
        return [route for route in world.snapshot.routes if route.active]

    async def decide(self, world: World, routes: Sequence[Route]) -> Plan:
        """Choose who goes; say who would have, but for a safety rule."""
        del routes  # the rules count over the whole snapshot
        self._warn_of_degraded(world.snapshot)
        known = floors(world.snapshot)
        self._tell_floorless(world.snapshot, known)
        found = evict.decide(
            world.snapshot,
            world.view,
            hold=world.hold,
            held_deployments=world.held_deployments,
            closing=world.closing_deployments,
            budget=self._budget,
            floors=known,
            period_s=self.schedule.period_s,
        )
        counts = Counter(gate for gates in found.blocked.values() for gate in gates)
        for gate, count in counts.items():
            self._metrics.blocked(gate.value, count)
        return Plan(changes=found.changes)

    async def write(
        self, repository: Repository, world: World, plan: Plan, *, epoch: int
    ) -> WrittenRows:
        """Write those whose grounds are still the same when they are read once more (S14)."""
        wanted = grounds.rests_on(plan.changes, world.snapshot, world.view)
        return await repository.evict(wanted, epoch=epoch)

    async def after(self, world: World, applied: Applied) -> None:
        """Charge the budget with what really went."""
        gone = [c.route.deployment_id for c in applied.changes if evict.is_for_health(c)]
        self._budget = self._budget.after(gone, now_ms=world.snapshot.now_ms)
        self._metrics.blocked(Gate.TRANSACTION.value, len(applied.lost))
        for change in applied.changes:
            log.info("evicted", route_id=change.route.id, why=change.message)

    def _tell_floorless(self, snapshot: Snapshot, known: Mapping[DeploymentId, int]) -> None:
        """Say once of whom nobody goes, because how many must stay cannot be told; count each."""
        unknown = frozenset(snapshot.deployments) - known.keys()
        for deployment_id in unknown - self._floorless:
            deployment = snapshot.deployments[deployment_id]
            log.error(
                "floor_unknown",
                deployment=deployment.name,
                why=floor_of(deployment),
                consequence="none of its replicas is evicted",
            )
        for _ in unknown:
            self._metrics.failed(self.name)
        self._floorless = unknown

    def _warn_of_degraded(self, snapshot: Snapshot) -> None:
        """Say once per deployment that there ignorance is enough to be taken out (S2)."""
        daring = {
            deployment.id: deployment.name
            for deployment in snapshot.deployments.values()
            if Health.DEGRADED in deployment.cleanup_target_statuses
        }
        for deployment_id in daring.keys() - self._warned:
            log.warning(
                "degraded_is_evicted",
                deployment=daring[deployment_id],
                consequence="replicas that nobody has seen fail are taken out",
            )
        self._warned = frozenset(daring)


def floors(snapshot: Snapshot) -> Mapping[DeploymentId, int]:
    """Return how many ready replicas each deployment must keep; none for who cannot tell."""
    found = {key: floor_of(deployment) for key, deployment in snapshot.deployments.items()}
    return {key: floor for key, floor in found.items() if isinstance(floor, int)}
