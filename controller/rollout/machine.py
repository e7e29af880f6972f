"""One cycle of a deployment in DEPLOYING: forward, or back; called by deploying and rolling_back.

State in, decision out. The phases are the same for every strategy; only the plan of a cycle is
the strategy's. While held, nothing expires and nothing is rolled back: what is seen may not be
true. The numbers are `rolling`'s, the last words `endings`'.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from controller.model import (
    Decision,
    Deployment,
    DeploymentChange,
    Lifecycle,
    Outcome,
    Policy,
    Revision,
    Rollout,
    Route,
    RouteId,
    Strategy,
    SubStep,
)
from controller.rollout import endings, rolling
from controller.rollout.endings import BACK, FORWARD
from controller.rollout.replicas import create, drain, waiting
from controller.rollout.rolling import Bounds, Steps, Tally

FAILED_MIN: Final = 3
"""New replicas a rollout of a small deployment may lose before it turns back."""

StoodStill = Callable[[int, int], int]
"""For how long HOLD stopped the clocks between two moments, in milliseconds."""


def never_still(since_ms: int, until_ms: int) -> int:
    """Return that there was no HOLD."""
    del since_ms, until_ms
    return 0


def step(
    deployment: Deployment,
    routes: Sequence[Route],
    now_ms: int,
    *,
    failed: int,
    fresh: Iterator[RouteId],
    held: bool = False,
    still: StoodStill = never_still,
) -> Decision | None:
    """Return what this cycle changes for one deployment; None when it is not in DEPLOYING.

    `routes` are the deployment's that are not terminal; `failed` is how many routes the rollout
    has lost on its new side; `fresh` yields unused ids, as many as are asked for; `still` tells
    for how long HOLD stopped the clocks between two moments: deadlines move by that (S15).
    """
    if deployment.lifecycle is not Lifecycle.DEPLOYING:
        return None
    if deployment.deploying is None or deployment.rollout is None:
        return endings.repair(deployment)
    cycle = _Cycle(
        deployment=deployment,
        rollout=deployment.rollout,
        deploying=deployment.deploying,
        routes=routes,
        now_ms=now_ms,
        failed=failed,
        held=held,
        still=still,
    )
    if deployment.sub_step is SubStep.ROLLING_BACK:
        return _back(cycle, fresh)
    return _forward(cycle, fresh)


def failed_max(policy: Policy, target: int) -> int:
    """Return how many failed new replicas a rollout replaces.

    >>> failed_max(Policy(), 2), failed_max(Policy(), 10)
    (3, 10)
    >>> failed_max(Policy(max_failed_replicas=0), 10)
    0
    """
    if policy.max_failed_replicas is not None:
        return policy.max_failed_replicas
    return max(FAILED_MIN, target)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cycle:
    """One look at one rollout in flight."""

    deployment: Deployment
    rollout: Rollout
    deploying: Revision
    routes: Sequence[Route]
    now_ms: int
    failed: int
    held: bool
    still: StoodStill

    def deadline_at_ms(self, until_ms: int) -> int:
        """Return when the rollout ends by itself, as HOLD has moved it until then."""
        began_ms = self.rollout.started_at_ms
        return self.rollout.deadline_at_ms + self.still(began_ms, until_ms)

    @property
    def bounds(self) -> Bounds:
        """Return the bounds, with the target count as it is now: it may have been scaled."""
        return rolling.bounds_of(self.rollout.policy, self.deployment.target_count)

    def count(self, wanted: Revision) -> Tally:
        """Count the routes for and against one revision."""
        min_ready_s = self.rollout.policy.min_ready_s
        return rolling.tally(self.routes, wanted.id, now_ms=self.now_ms, min_ready_s=min_ready_s)


def _forward(cycle: _Cycle, fresh: Iterator[RouteId]) -> Decision:
    deployment, rollout = cycle.deployment, cycle.rollout
    counted, bounds = cycle.count(cycle.deploying), cycle.bounds
    steps = _plan(rollout.policy.strategy, counted, bounds)
    state = _state(cycle.deploying, counted, bounds)
    if steps.complete:
        seconds = (cycle.now_ms - rollout.started_at_ms) / 1000
        return endings.promote(deployment, rollout, why=f"{state}; it took {seconds:.0f} s")
    allowed = failed_max(rollout.policy, bounds.target)
    spent = cycle.failed > allowed
    lost = f"{cycle.failed} new replicas failed, and max_failed_replicas is {allowed}"
    if not cycle.held and cycle.now_ms >= cycle.deadline_at_ms(cycle.now_ms):
        limit_s = (rollout.deadline_at_ms - rollout.started_at_ms) / 1000
        why = f"not done within {limit_s:g} s: {state}"
        return endings.turn_back(deployment, rollout, Outcome.EXPIRED, why=why)
    if not cycle.held and spent and not counted.wanted:
        why = f"{lost}; none is left"
        return endings.turn_back(deployment, rollout, Outcome.FAILED, why=why)
    if spent:
        steps = Steps(create=0, drain=steps.drain, complete=False)
        state = f"{state}; {lost}, so no other is created"
    return _decide(cycle, cycle.deploying, counted, bounds, steps, fresh=fresh, state=state)


def _plan(strategy: Strategy, counted: Tally, bounds: Bounds) -> Steps:
    match strategy:
        case Strategy.ROLLING:
            return rolling.plan(counted, bounds)


def _back(cycle: _Cycle, fresh: Iterator[RouteId]) -> Decision:
    deployment, rollout, current = cycle.deployment, cycle.rollout, cycle.deployment.current
    outcome = _outcome_of_return(cycle)
    if current is None:
        return endings.destroy(deployment, rollout, outcome, why="it was rolling back")
    counted, bounds = cycle.count(current), rolling.bounds_back(cycle.bounds)
    steps = rolling.plan(counted, bounds)
    state = _state(current, counted, bounds)
    if steps.complete:
        return endings.gone_back(deployment, rollout, outcome, given_up=cycle.deploying, why=state)
    limit_s = rollout.policy.rollout_timeout_s
    entered_ms = deployment.phase_entered_at_ms
    turning_ms = cycle.now_ms - entered_ms - cycle.still(entered_ms, cycle.now_ms)
    if not cycle.held and turning_ms >= limit_s * 1000:
        return endings.gone_back(
            deployment,
            rollout,
            Outcome.FAILED,
            given_up=cycle.deploying,
            why=f"rolling back was not done within rollout_timeout_s {limit_s:g}: {state}; "
            "the others leave by orphan eviction as replicas become ready",
        )
    return _decide(cycle, current, counted, bounds, steps, fresh=fresh, state=state)


def _outcome_of_return(cycle: _Cycle) -> Outcome:
    """Return what a rollback is called at its end: what was recorded when it began, if it was.

    Only the deadline turns a rollout back at or after its deadline.
    """
    if cycle.rollout.outcome is not None:
        return cycle.rollout.outcome
    turned_at_ms = cycle.deployment.phase_entered_at_ms
    if turned_at_ms >= cycle.deadline_at_ms(turned_at_ms):
        return Outcome.EXPIRED
    return Outcome.ROLLED_BACK


def _decide(
    cycle: _Cycle,
    wanted: Revision,
    counted: Tally,
    bounds: Bounds,
    steps: Steps,
    *,
    fresh: Iterator[RouteId],
    state: str,
) -> Decision:
    deployment = cycle.deployment
    category = FORWARD if wanted is cycle.deploying else BACK
    active = len(counted.wanted) + len(counted.others)
    new = create(
        deployment,
        wanted,
        steps.create,
        fresh=fresh,
        message=f"one of {steps.create} new replicas of revision {wanted.number}: {active} are "
        f"active, at most {bounds.max_total} may be ({bounds.target} + surge {bounds.surge})",
    )
    gone = drain(
        steps.drain,
        category=category,
        message=f"makes way for revision {wanted.number}: {counted.ready} are ready, at least "
        f"{bounds.min_avail} stay so ({bounds.target} - unavailable {bounds.unavailable})",
    )
    phase = _phase_entered(deployment.sub_step, moving=bool(counted.ready_wanted or gone))
    change = None
    if phase is not None:
        change = DeploymentChange(
            category=category, message=state, lifecycle=Lifecycle.DEPLOYING, sub_step=phase
        )
    if new or gone or change:
        return Decision(deployment=deployment, create=new, routes=gone, change=change)
    note = waiting(deployment, category=category, message=f"waiting: {state}")
    return Decision(deployment=deployment, notes=(note,))


def _state(wanted: Revision, counted: Tally, bounds: Bounds) -> str:
    others = f"{len(counted.others)} of others left, {counted.ready_others} of them ready"
    return (
        f"{counted.ready_wanted} of {bounds.target} replicas of revision {wanted.number} ready, "
        f"{counted.provisioning} starting; {others if counted.others else 'none of another left'}"
    )


def _phase_entered(sub_step: SubStep | None, *, moving: bool) -> SubStep | None:
    """Return the phase this cycle enters; None: it stays. None is entered twice."""
    match sub_step:
        case SubStep.PROGRESSING | SubStep.AWAITING_PROMOTION | SubStep.ROLLING_BACK:
            return None
        case SubStep.PROVISIONING:
            return SubStep.PROGRESSING if moving else None
        case None:
            return SubStep.PROGRESSING if moving else SubStep.PROVISIONING
