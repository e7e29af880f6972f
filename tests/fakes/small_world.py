"""One deployment in memory: applies the decisions of the rollout room, and checks each of them.

Stands for database, provisioner and prober together. What becomes of a replica between two cycles
is the test's choice.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from controller.change import applied, created, moved
from controller.model import (
    Decision,
    Deployment,
    Health,
    Lifecycle,
    NewRoute,
    Outcome,
    Policy,
    RevisionId,
    Route,
    RouteChange,
    RouteId,
    RouteStatus,
    Stage,
    Traffic,
)
from controller.rollout import destroy, machine, scale
from controller.rollout.counting import Bounds
from controller.rollout.strategies import bounds_of
from controller.route.warmup import traffic_when_ready
from tests.fakes.nouns import NOW_MS, a_route, deploying, fresh_ids

TERMINAL = (RouteStatus.TERMINATED, RouteStatus.FAILED_TO_START)
CYCLE_MS = 5_000


class SmallWorld:
    def __init__(self, target: int, policy: Policy, *, old: int | None = None) -> None:
        self.deployment: Deployment = deploying(target, policy=policy)
        self.now_ms = NOW_MS
        self.fresh: Iterator[RouteId] = fresh_ids()
        self.routes: dict[RouteId, Route] = {}
        self.made: set[RouteId] = set()
        self.outcome: Outcome | None = None
        self.mutating_cycles = 0
        self.held = False
        for number in range(1, 1 + (target if old is None else old)):
            route = a_route(number)
            self.routes[route.id] = route

    @property
    def live(self) -> list[Route]:
        return [route for route in self.routes.values() if route.status not in TERMINAL]

    @property
    def bounds(self) -> Bounds:
        return bounds_of(self.deployment.policy, self.deployment.target_count)

    @property
    def active(self) -> int:
        return sum(route.active for route in self.live)

    @property
    def ready(self) -> int:
        return sum(route.ready for route in self.live)

    @property
    def able(self) -> int:
        """Count the ready ones that a floor may rest on: a rollout keeps none of them out."""
        return sum(route.serves for route in self.live)

    @property
    def failed(self) -> int:
        return sum(not self.routes[made].active for made in self.made)

    def cycle(self) -> Decision | None:
        """Let the room decide once, and do what it says."""
        self.now_ms += CYCLE_MS
        match self.deployment.lifecycle:
            case Lifecycle.DEPLOYING:
                decision = machine.step(
                    self.deployment,
                    self.live,
                    self.now_ms,
                    failed=self.failed,
                    fresh=self.fresh,
                    held=self.held,
                )
            case Lifecycle.DESTROYING:
                decision = destroy.step(self.deployment, self.live)
            case _:
                decision = scale.step(self.deployment, self.live, fresh=self.fresh)
        if decision is not None:
            self.apply(decision)
        return decision

    def apply(self, decision: Decision) -> None:
        active, able, gone = self.active, self.able, self.terminal()
        rolling = self.deployment.lifecycle is Lifecycle.DEPLOYING
        mixed = max(1, len(self.serving()))
        for wanted in decision.create:
            self._create(wanted)
        for change in decision.routes:
            self._change(change)
        self._move(decision)
        self.mutating_cycles += bool(decision.create or decision.routes)
        if rolling:
            least = min(able, self.bounds.min_avail)
            assert self.able >= least, f"I1: {able} able became {self.able}, floor {least}"
            most = max(active, self.bounds.max_total)
            assert self.active <= most, f"I2: {active} active became {self.active}, at most {most}"
        assert gone <= self.terminal(), "I5: a terminal route came back"
        if self.deployment.policy.strategy == "blue-green":
            assert len(self.serving()) <= mixed, f"I4: traffic goes to {self.serving()}"

    def serving(self) -> set[RevisionId]:
        """Return the revisions that have traffic."""
        return {r.revision_id for r in self.live if r.active and r.traffic is Traffic.ACTIVE}

    def terminal(self) -> set[RouteId]:
        return {route.id for route in self.routes.values() if route.status in TERMINAL}

    def _create(self, wanted: NewRoute) -> None:
        assert wanted.id not in self.routes
        if wanted.rollout_id is not None:
            self.made.add(wanted.id)
        self.routes[wanted.id] = created(wanted, now_ms=self.now_ms)

    def _change(self, change: RouteChange) -> None:
        assert change.route == self.routes[change.route.id], "decided over a stale route"
        assert change.route.status not in TERMINAL, "I5"
        assert change.status is not None
        self.routes[change.route.id] = applied(change, now_ms=self.now_ms)

    def _move(self, decision: Decision) -> None:
        change = decision.change
        if change is None:
            return
        of = self.deployment
        assert of.lifecycle not in (Lifecycle.READY, Lifecycle.DESTROYED), "R-38"
        self.outcome = change.end_rollout or self.outcome
        self.deployment = moved(of, change, now_ms=self.now_ms)

    def advance(self, route: Route) -> None:
        """Let a replica take its next step towards serving, or towards its end."""
        match route.status, route.stage:
            case RouteStatus.PROVISIONING, Stage.PENDING:
                after = replace(route, stage=Stage.STARTING)
            case RouteStatus.PROVISIONING, Stage.STARTING:
                after = replace(route, stage=Stage.WARMING_UP)
            case RouteStatus.PROVISIONING, _:
                after = replace(
                    route,
                    status=RouteStatus.RUNNING,
                    stage=None,
                    health=Health.HEALTHY,
                    traffic=traffic_when_ready(route, self.deployment),
                    ready_since_ms=self.now_ms,
                )
            case RouteStatus.RUNNING, _:
                after = replace(
                    route,
                    health=Health.HEALTHY,
                    ready_since_ms=route.ready_since_ms or self.now_ms,
                )
            case _:
                after = replace(route, status=RouteStatus.TERMINATED, stage=None)
        self.routes[route.id] = after

    def relapse(self, route: Route, health: Health = Health.UNHEALTHY) -> None:
        """Let a running replica fall ill."""
        if route.status is RouteStatus.RUNNING:
            self.routes[route.id] = replace(route, health=health, ready_since_ms=None)

    def fail(self, route: Route) -> None:
        """Let a replica die."""
        status = (
            RouteStatus.FAILED_TO_START if route.stage is Stage.PENDING else RouteStatus.TERMINATED
        )
        self.routes[route.id] = replace(route, status=status, stage=None, ready_since_ms=None)

    def settle(self, fate: Callable[[Route], None] | None = None, *, cycles: int = 400) -> None:
        """Go on without faults (or with the fate given to each replica) until the rollout ended."""
        for _ in range(cycles):
            if self.deployment.lifecycle in (Lifecycle.READY, Lifecycle.DESTROYED):
                return
            self.cycle()
            for route in self.live:
                (fate or self.advance)(route)
        raise AssertionError(f"not ended after {cycles} cycles: {self.deployment}")
