"""Rollouts under an operator and a fate that do what they like, in any order.

Verbs change what is stored the way the operator's verbs write it; the small world asserts I1, I2,
I4 and I5 at each decision.
"""

import os
from dataclasses import replace
from typing import Final

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from controller.model import (
    Health,
    Lifecycle,
    Outcome,
    Policy,
    RolloutId,
    Route,
    SubStep,
    WeightStep,
)
from controller.rollout.strategies import check
from tests.fakes.nouns import NEW, a_revision, a_rollout
from tests.fakes.small_world import CYCLE_MS, SmallWorld

FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
TIMEOUT_S: Final = 200.0
SLACK: Final = 6
"""Cycles for what begins at a deadline: turning back, giving traffic back, being destroyed."""
ORPHANED_AFTER_MS: Final = 60_000

policies = st.one_of(
    st.builds(
        Policy,
        rollout_timeout_s=st.just(TIMEOUT_S),
        surge=st.integers(0, 3),
        unavailable=st.integers(0, 2),
        min_ready_s=st.sampled_from([0.0, 12.0]),
    ),
    st.builds(
        Policy,
        rollout_timeout_s=st.just(TIMEOUT_S),
        strategy=st.just("blue-green"),
        auto_promote=st.booleans(),
        promote_delay_s=st.sampled_from([0.0, 20.0]),
        scale_down_delay_s=st.sampled_from([0.0, 60.0]),
    ),
    st.builds(
        Policy,
        rollout_timeout_s=st.just(TIMEOUT_S),
        strategy=st.just("canary"),
        auto_promote=st.booleans(),
        steps=st.just((WeightStep(weight_percent=10, pause_s=10), WeightStep(weight_percent=50))),
    ),
)
picked = st.integers(0, 30)


def forward(machine: "Rollouts") -> bool:
    of = machine.world.deployment
    return of.lifecycle is Lifecycle.DEPLOYING and of.sub_step is not SubStep.ROLLING_BACK


def paused(machine: "Rollouts") -> bool:
    rollout = machine.world.deployment.rollout
    return rollout is not None and rollout.paused_at_ms is not None


class Rollouts(RuleBasedStateMachine):
    """One deployment, and everything that may be done to it."""

    @initialize(
        policy=policies,
        size=st.integers(0, 5),
        budget=st.sampled_from([None, 0, 2]),
        first=st.booleans(),
    )
    def begin(self, policy: Policy, size: int, budget: int | None, *, first: bool) -> None:
        policy = msgspec.structs.replace(policy, max_failed_replicas=budget)
        check(policy)
        self.world = SmallWorld(size, policy, old=0 if first else None)
        self.terminal = self.world.terminal()
        self.number = NEW.number
        if first:
            self.world.deployment = replace(self.world.deployment, current=None)

    # What becomes of it.

    @rule()
    def cycle(self) -> None:
        self.world.cycle()

    @rule()
    def everybody_goes_on(self) -> None:
        self.world.cycle()
        self._go_on()

    @rule(which=picked, what=st.sampled_from(["advance", "advance", "fail", "ill", "degraded"]))
    def fate(self, which: int, what: str) -> None:
        world = self.world
        if not world.live:
            return
        route = world.live[which % len(world.live)]
        match what:
            case "advance":
                world.advance(route)
            case "fail":
                world.fail(route)
            case "ill":
                world.relapse(route)
            case _:
                world.relapse(route, Health.DEGRADED)

    @rule(by_s=st.sampled_from([5, 30, 120]))
    def time_passes(self, by_s: int) -> None:
        self.world.now_ms += by_s * 1000

    @rule()
    def hold_comes_or_goes(self) -> None:
        self.world.held = not self.world.held

    # What an operator does.

    @precondition(lambda self: forward(self) and not paused(self))
    @rule()
    def pause(self) -> None:
        self._write(paused_at_ms=self.world.now_ms)

    @precondition(paused)
    @rule()
    def resume(self) -> None:
        rollout = self.world.deployment.rollout
        assert rollout is not None
        assert rollout.paused_at_ms is not None
        stood_ms = self.world.now_ms - rollout.paused_at_ms
        self._write(paused_at_ms=None, deadline_at_ms=rollout.deadline_at_ms + stood_ms)

    @precondition(forward)
    @rule()
    def promote(self) -> None:
        if self.world.deployment.policy.strategy != "rolling":
            self._write(promote_asked=True)

    @precondition(forward)
    @rule()
    def abort(self) -> None:
        of = self.world.deployment
        if of.current is None:
            self.world.deployment = replace(
                of, lifecycle=Lifecycle.DESTROYING, sub_step=None, deploying=None, rollout=None
            )
            return
        self._write(outcome=Outcome.ABORTED, paused_at_ms=None)
        self.world.deployment = replace(
            self.world.deployment,
            sub_step=SubStep.ROLLING_BACK,
            phase_entered_at_ms=self.world.now_ms,
        )

    @precondition(
        lambda self: self.world.deployment.lifecycle in (Lifecycle.READY, Lifecycle.DEPLOYING)
    )
    @rule(policy=policies)
    def start_another(self, policy: Policy) -> None:
        """Begin a rollout of a new revision; one in flight is superseded."""
        world, self.number = self.world, self.number + 1
        revision = a_revision(self.number)
        rollout = a_rollout(
            policy,
            id=RolloutId(f"rollout-{self.number}"),
            revision_id=revision.id,
            started_at_ms=world.now_ms,
            deadline_at_ms=world.now_ms + int(policy.rollout_timeout_s * 1000),
        )
        world.made = set()
        world.outcome = None
        world.deployment = replace(
            world.deployment,
            lifecycle=Lifecycle.DEPLOYING,
            sub_step=SubStep.PROVISIONING,
            policy=policy,
            deploying=revision,
            rollout=rollout,
            kept=None,
            phase_entered_at_ms=world.now_ms,
        )

    @rule(by=st.sampled_from([-1, 1]))
    def scale(self, by: int) -> None:
        of = self.world.deployment
        wanted = min(6, max(0, of.target_count + by))
        self.world.deployment = replace(of, desired_replicas=wanted)

    def _write(self, **given: object) -> None:
        rollout = self.world.deployment.rollout
        assert rollout is not None
        after = replace(rollout, **given)  # type: ignore[arg-type]  # fields of a rollout, by name
        self.world.deployment = replace(self.world.deployment, rollout=after)

    def _go_on(self) -> None:
        """Let everybody take a step, and eviction take out orphans, as it does."""
        for route in self.world.live:
            if self._orphan(route):
                self.world.fail(route)
            else:
                self.world.advance(route)

    def _orphan(self, route: Route) -> bool:
        of = self.world.deployment
        known = {each.id for each in (of.current, of.deploying, of.kept) if each}
        old_ms = self.world.now_ms - route.created_at_ms
        return bool(known) and route.revision_id not in known and old_ms > ORPHANED_AFTER_MS

    # What always holds.

    @invariant()
    def terminal_stays_terminal(self) -> None:
        """I5."""
        assert self.terminal <= self.world.terminal()
        self.terminal = self.world.terminal()

    @invariant()
    def it_has_a_rollout_exactly_while_it_deploys(self) -> None:
        """R-13."""
        of = self.world.deployment
        deploys = of.lifecycle is Lifecycle.DEPLOYING
        assert (of.rollout is not None) is (of.deploying is not None) is deploys

    def teardown(self) -> None:
        """Faults stop: it ends by its deadline and a period, and serves all it shall (I6, I12)."""
        if not hasattr(self, "world"):
            return
        world = self.world
        if paused(self):
            self.resume()
        world.held = False
        began_ms = world.now_ms
        while world.deployment.lifecycle is Lifecycle.DEPLOYING:
            rollout = world.deployment.rollout
            assert rollout is not None
            timeout_ms = int(rollout.policy.rollout_timeout_s * 1000)
            late_ms = world.now_ms - max(began_ms, rollout.deadline_at_ms) - timeout_ms
            assert late_ms <= SLACK * CYCLE_MS, f"I6: {world.deployment}"
            self.everybody_goes_on()
        for _ in range(40):
            self.everybody_goes_on()
        self._at_rest()

    def _at_rest(self) -> None:
        of, world = self.world.deployment, self.world
        if of.lifecycle is Lifecycle.DESTROYED:
            assert world.live == []
            return
        assert of.current is not None
        mine = [r for r in world.live if r.active and r.revision_id == of.current.id]
        assert sum(route.ready for route in mine) == of.target_count, "I12"
        assert {r.revision_id for r in world.live if r.active} <= {
            each.id for each in (of.current, of.kept) if each
        }


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(
    max_examples=2000 if FULL else 60,
    stateful_step_count=40,
    deadline=None,
    derandomize=not FULL,  # the same sixty each time; with FLEETPULSE_FULL=1 others
)
