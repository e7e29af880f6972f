"""One cycle of a deployment in DEPLOYING: forward, or back; called by deploying and rolling_back.

State in, decision out. The phases are the same for every strategy; only the plan of a cycle is
the strategy's. A rollout ends in exactly one decision: pointers, lifecycle and outcome together
(R-13). While held, nothing expires and nothing is rolled back: what is seen may not be true.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
from controller.rollout import rolling
from controller.rollout.rolling import Bounds, Steps, Tally
from controller.rollout.replicas import create, drain, waiting

FORWARD = "deploying"
BACK = "rolling_back"
FAILED_MIN = 3
"""New replicas a rollout of a small deployment may lose before it turns back."""


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

    @property
    def bounds(self) -> Bounds:
        return rolling.bounds_of(self.rollout.policy, self.deployment.target_count)

    def count(self, wanted: Revision) -> Tally:
        min_ready_s = self.rollout.policy.min_ready_s
        return rolling.tally(self.routes, wanted.id, now_ms=self.now_ms, min_ready_s=min_ready_s)


def step(
    deployment: Deployment,
    routes: Sequence[Route],
    now_ms: int,
    *,
    failed: int,
    fresh: Iterator[RouteId],
    held: bool = False,
) -> Decision | None:
    """Return what this cycle changes for one deployment; None when it is not in DEPLOYING.

    `routes` are the deployment's that are not terminal; `failed` is how many routes the rollout
    has lost on its new side; `fresh` yields unused ids, as many as are asked for.
    """
    if deployment.lifecycle is not Lifecycle.DEPLOYING:
        return None
    if deployment.deploying is None or deployment.rollout is None:
        return _repair(deployment)
    cycle = _Cycle(
        deployment=deployment,
        rollout=deployment.rollout,
        deploying=deployment.deploying,
        routes=routes,
        now_ms=now_ms,
        failed=failed,
        held=held,
    )
    if deployment.sub_step is SubStep.ROLLING_BACK:
        return _back(cycle, fresh)
    return _forward(cycle, fresh)


def failed_max(policy: Policy, target: int) -> int:
    """Return how many failed new replicas a rollout replaces.

    >>> failed_max(Policy(), 2), failed_max(Policy(), 10), failed_max(Policy(), 0)
    (3, 10, 3)
    >>> failed_max(Policy(max_failed_replicas=0), 10)
    0
    """
    if policy.max_failed_replicas is not None:
        return policy.max_failed_replicas
    return max(FAILED_MIN, target)


def _repair(deployment: Deployment) -> Decision:
    """Bring a deployment back that is DEPLOYING without anything to deploy."""
    lifecycle = Lifecycle.PENDING if deployment.current is None else Lifecycle.READY
    return Decision(
        deployment=deployment,
        change=DeploymentChange(
            category=FORWARD,
            message=f"was deploying without a revision to deploy; back to {lifecycle}",
            error_code="NOTHING_TO_DEPLOY",
            lifecycle=lifecycle,
            end_rollout=None if deployment.rollout is None else Outcome.FAILED,
        ),
    )


def _forward(cycle: _Cycle, fresh: Iterator[RouteId]) -> Decision:
    counted, bounds = cycle.count(cycle.deploying), cycle.bounds
    steps = _plan(cycle.rollout.policy.strategy, counted, bounds)
    if steps.complete:
        return _promote(cycle, counted, bounds)
    allowed = failed_max(cycle.rollout.policy, bounds.target)
    spent = cycle.failed > allowed
    if not cycle.held:
        if cycle.now_ms >= cycle.rollout.deadline_at_ms:
            return _turn_back(cycle, Outcome.EXPIRED, why=_expired(cycle, counted, bounds))
        if spent and not counted.wanted:
            why = f"{cycle.failed} new replicas failed (limit max_failed_replicas {allowed})"
            return _turn_back(cycle, Outcome.FAILED, why=f"{why} and none is left")
    if spent:
        steps = Steps(create=0, drain=steps.drain, complete=False)
    return _apply(cycle, cycle.deploying, counted, bounds, steps, fresh=fresh, category=FORWARD)


def _plan(strategy: Strategy, counted: Tally, bounds: Bounds) -> Steps:
    match strategy:
        case Strategy.ROLLING:
            return rolling.plan(counted, bounds)


def _back(cycle: _Cycle, fresh: Iterator[RouteId]) -> Decision:
    current = cycle.deployment.current
    if current is None:
        return _destroy(cycle, _outcome_of_return(cycle), why="was rolling back")
    counted, bounds = cycle.count(current), rolling.bounds_back(cycle.bounds)
    steps = rolling.plan(counted, bounds)
    limit_s = cycle.rollout.policy.rollout_timeout_s
    if steps.complete:
        outcome = _outcome_of_return(cycle)
        return _return(
            cycle,
            outcome,
            why=f"{counted.ready_wanted} of {bounds.target} replicas of revision "
            f"{current.number} ready, none of another left",
        )
    if not cycle.held and cycle.now_ms - cycle.deployment.phase_entered_at_ms >= limit_s * 1000:
        return _return(
            cycle,
            Outcome.FAILED,
            why=f"rolling back took longer than rollout_timeout_s {limit_s:g} with "
            f"{counted.ready_wanted} of {bounds.target} replicas of revision {current.number} "
            f"ready; the {len(counted.others)} others leave by orphan eviction",
        )
    return _apply(cycle, current, counted, bounds, steps, fresh=fresh, category=BACK)


def _apply(
    cycle: _Cycle,
    wanted: Revision,
    counted: Tally,
    bounds: Bounds,
    steps: Steps,
    *,
    fresh: Iterator[RouteId],
    category: str,
) -> Decision:
    deployment, total = cycle.deployment, len(counted.wanted) + len(counted.others)
    state = _state(wanted, counted, bounds)
    entered = _phase(cycle, counted, steps)
    idle = not (steps.create or steps.drain or entered)
    return Decision(
        deployment=deployment,
        create=create(
            deployment,
            wanted,
            steps.create,
            fresh=fresh,
            message=f"one of {steps.create} new of revision {wanted.number}: {total} active, "
            f"at most {bounds.max_total} ({bounds.target} + surge {bounds.surge})",
        ),
        routes=drain(
            steps.drain,
            category=category,
            message=f"makes way for revision {wanted.number}: {counted.ready} ready, at least "
            f"{bounds.min_avail} stay ({bounds.target} - unavailable {bounds.unavailable})",
        ),
        change=None
        if entered is None
        else DeploymentChange(
            category=category, message=state, lifecycle=Lifecycle.DEPLOYING, sub_step=entered
        ),
        notes=(waiting(deployment, category=category, message=f"waiting: {state}"),)
        if idle
        else (),
    )


def _state(wanted: Revision, counted: Tally, bounds: Bounds) -> str:
    return (
        f"{counted.ready_wanted} of {bounds.target} replicas of revision {wanted.number} ready, "
        f"{counted.provisioning} starting; {len(counted.others)} of others left, "
        f"{counted.ready_others} of them ready"
    )


def _phase(cycle: _Cycle, counted: Tally, steps: Steps) -> SubStep | None:
    """Return the phase this cycle enters; None: it stays. No phase is entered twice."""
    match cycle.deployment.sub_step:
        case SubStep.PROGRESSING | SubStep.AWAITING_PROMOTION | SubStep.ROLLING_BACK:
            return None
        case SubStep.PROVISIONING | None:
            if counted.ready_wanted or steps.drain:
                return SubStep.PROGRESSING
            return SubStep.PROVISIONING if cycle.deployment.sub_step is None else None


def _promote(cycle: _Cycle, counted: Tally, bounds: Bounds) -> Decision:
    seconds = (cycle.now_ms - cycle.rollout.started_at_ms) / 1000
    return Decision(
        deployment=cycle.deployment,
        change=DeploymentChange(
            category=FORWARD,
            message=f"{cycle.rollout.policy.strategy} update promoted: {counted.ready_wanted} of "
            f"{bounds.target} replicas of revision {cycle.deploying.number} ready, none of "
            f"another left, after {seconds:.0f} s",
            lifecycle=Lifecycle.READY,
            end_rollout=Outcome.PROMOTED,
        ),
    )


def _expired(cycle: _Cycle, counted: Tally, bounds: Bounds) -> str:
    limit_s = (cycle.rollout.deadline_at_ms - cycle.rollout.started_at_ms) / 1000
    return f"not done within {limit_s:g} s: {_state(cycle.deploying, counted, bounds)}"


def _turn_back(cycle: _Cycle, outcome: Outcome, *, why: str) -> Decision:
    current = cycle.deployment.current
    if current is None:
        return _destroy(cycle, outcome, why=why)
    return Decision(
        deployment=cycle.deployment,
        change=DeploymentChange(
            category=FORWARD,
            message=f"{cycle.rollout.policy.strategy} update {outcome}: {why}; rolling back to "
            f"revision {current.number}",
            error_code=outcome.name,
            lifecycle=Lifecycle.DEPLOYING,
            sub_step=SubStep.ROLLING_BACK,
        ),
    )


def _destroy(cycle: _Cycle, outcome: Outcome, *, why: str) -> Decision:
    """End a rollout that has nothing to go back to (R-39)."""
    return Decision(
        deployment=cycle.deployment,
        change=DeploymentChange(
            category=BACK,
            message=f"{cycle.rollout.policy.strategy} update {outcome}: {why}; no revision ever "
            "served, so there is none to go back to: destroying",
            error_code=outcome.name,
            lifecycle=Lifecycle.DESTROYING,
            end_rollout=outcome,
        ),
    )


def _outcome_of_return(cycle: _Cycle) -> Outcome:
    """Return what a finished rollback is called: what was decided when it began, if recorded."""
    if cycle.rollout.outcome is not None:
        return cycle.rollout.outcome
    if cycle.deployment.phase_entered_at_ms >= cycle.rollout.deadline_at_ms:
        return Outcome.EXPIRED
    return Outcome.ROLLED_BACK


def _return(cycle: _Cycle, outcome: Outcome, *, why: str) -> Decision:
    return Decision(
        deployment=cycle.deployment,
        change=DeploymentChange(
            category=BACK,
            message=f"{cycle.rollout.policy.strategy} update {outcome}, revision "
            f"{cycle.deploying.number} given up: {why}",
            error_code=outcome.name,
            lifecycle=Lifecycle.READY,
            end_rollout=outcome,
        ),
    )
