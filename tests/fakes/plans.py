"""A plan, and the run in memory that it foretells: the same fleet, cycle by cycle."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from controller.model import (
    Deployment,
    Health,
    Lifecycle,
    Policy,
    Revision,
    Route,
    RouteStatus,
    SubStep,
)
from controller.rollout.plan import Timings, plan
from controller.rollout.planned import RolloutPlan
from tests.fakes.nouns import NEW, OLD, a_deployment, a_route
from tests.fakes.rollouts import ask_promotion, rules
from tests.fakes.small_world import CYCLE_MS, SmallWorld

Cycle = tuple[str, int, int, int, int]
"""Rule, creates, drains, and afterwards ready and active."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A rollout to plan and to run."""

    target: int
    policy: Policy
    starts_in_ms: int = 10_000
    old: int | None = None
    """Old replicas there are; None: as many as wanted."""
    ill: int = 0
    """How many of them are not ready, and stay so."""
    revision: Revision = field(default=NEW)

    @property
    def routes(self) -> Sequence[Route]:
        count = self.target if self.old is None else self.old
        return [
            a_route(number, **({"health": Health.UNHEALTHY} if number <= self.ill else {}))
            for number in range(1, 1 + count)
        ]

    @property
    def deployment(self) -> Deployment:
        return a_deployment(replicas=self.target, policy=self.policy, current=OLD)

    def plan(self) -> RolloutPlan:
        timings = Timings(
            starts_in_s=self.starts_in_ms / 1000, grace_s=30, period_s=CYCLE_MS / 1000
        )
        return plan(self.deployment, self.revision, routes=self.routes, timings=timings)

    def world(self) -> SmallWorld:
        world = SmallWorld(self.target, self.policy, old=self.old)
        world.deployment = replace(world.deployment, deploying=self.revision)
        world.routes = {route.id: route for route in self.routes}
        return world

    def run(self, *, cycles: int = 4_000) -> tuple[SmallWorld, list[Cycle]]:
        """Let it happen in memory; return the world at its end, and each cycle."""
        world, seen = self.world(), list[Cycle]()
        while world.deployment.lifecycle is Lifecycle.DEPLOYING:
            assert len(seen) < cycles, f"not ended after {cycles} cycles: {self}"
            decision = world.cycle()
            assert decision is not None
            (rule,) = rules(decision)
            drains = sum(change.status is RouteStatus.TERMINATING for change in decision.routes)
            seen.append((rule, len(decision.create), drains, world.ready, world.active))
            for route in world.live:
                self._grow(world, route)
            if world.deployment.sub_step is SubStep.AWAITING_PROMOTION:
                ask_promotion(world)
        return world, seen

    def _grow(self, world: SmallWorld, route: Route) -> None:
        """Let a replica be ready once its time is over, before the next cycle."""
        due_ms = route.created_at_ms + self.starts_in_ms
        if route.status is RouteStatus.RUNNING:
            return
        if route.status is RouteStatus.PROVISIONING and due_ms >= world.now_ms + CYCLE_MS:
            return
        while world.routes[route.id].status is RouteStatus.PROVISIONING:
            world.advance(world.routes[route.id])
            world.routes[route.id] = replace(world.routes[route.id], ready_since_ms=due_ms)


def foretold(planned: RolloutPlan) -> list[Cycle]:
    """Return every cycle of a plan."""
    return [
        (step.rule, step.creates, step.drains, step.ready, step.active)
        for step in planned.steps
        for _ in range(step.cycles)
    ]
