"""A rollout in advance: the real rules, cycle by cycle, over a fleet that is only imagined.

Called by the verb `plan_rollout`. Knows no strategy: a wait ends when a rule says so, and what a
wait that never ends is waiting for is told by `standstill`.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from controller.errors import InvalidInput
from controller.model import (
    Decision,
    Deployment,
    Lifecycle,
    Outcome,
    Revision,
    Route,
    RouteStatus,
    SubStep,
    Traffic,
)
from controller.rollout import standstill
from controller.rollout.imagined import Imagined, imagine
from controller.rollout.planned import Deadlock, PlanStep, RolloutPlan
from controller.rollout.strategies import bounds_of

NEVER_MS: Final = 10**15
"""30,000 years: what has not ended a wait by then does not."""
LOOKS_MAX: Final = 200_000
"""Routes looked at for one plan, in all: some seconds of work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """What is assumed of time; each the longest there is, for a worst case."""

    starts_in_s: float
    grace_s: float
    period_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moment:
    """One step, and the fleet after it."""

    step: PlanStep
    world: Imagined


class _TooLongError(Exception):
    """More steps than anybody would read."""


def starts_in_s(revision: Revision) -> float:
    """Return how long a replica of a revision may take to become ready: its grace."""
    check = revision.spec.health_check
    return 0.0 if check is None else check.initial_delay_s


def plan(
    deployment: Deployment, revision: Revision, *, routes: Sequence[Route], timings: Timings
) -> RolloutPlan:
    """Return how a rollout of `revision` would go, by the deployment's policy.

    Raises:
        InvalidInput: if it has more steps than can be planned.
    """
    start = imagine(
        deployment, revision, routes, starts_in_s=timings.starts_in_s, grace_s=timings.grace_s
    )
    try:
        moments = tuple(_moments(start, timings.period_s))
    except _TooLongError as error:
        raise InvalidInput(
            f"{deployment.name}: a rollout of {deployment.target_count} replicas by this policy "
            "has too many steps to plan them one by one; write a larger surge, or a percentage"
        ) from error
    return _told(start, moments, timings)


def _told(start: Imagined, moments: Sequence[_Moment], timings: Timings) -> RolloutPlan:
    deployment, wanted = start.deployment, start.deployment.deploying
    assert wanted is not None, "it was imagined with one"  # noqa: S101
    steps = tuple(moment.step for moment in moments)
    end = moments[-1].world
    assert end.outcome is not None, "it has a deadline"  # noqa: S101
    bounds = bounds_of(deployment.policy, deployment.target_count)
    return RolloutPlan(
        deployment=deployment.name,
        revision=wanted.number,
        from_revision=None if deployment.current is None else deployment.current.number,
        strategy=deployment.policy.strategy,
        target=deployment.target_count,
        starts_in_s=timings.starts_in_s,
        period_s=timings.period_s,
        grace_s=timings.grace_s,
        steps=steps,
        outcome=end.outcome,
        worst_case_s=steps[-1].until_s,
        peak=max(_active(start), *(step.active for step in steps)),
        peak_with_leaving=max(len(start.routes), *(step.active + step.leaving for step in steps)),
        max_total=bounds.max_total,
        floor=min(_serving(start), *(_serving(moment.world) for moment in moments)),
        min_avail=bounds.min_avail,
        waits_for_operator_at_s=_asks_operator_at_s(moments),
        kept_for_s=deployment.policy.scale_down_delay_s,
        deadlock=None if end.outcome is Outcome.PROMOTED else _deadlock(start, moments, timings),
    )


def _moments(start: Imagined, period_s: float) -> Iterator[_Moment]:
    """Yield the steps until the rollout has ended, or one that never ends."""
    world, cycle, looks = start, 0, 0
    period_ms = int(period_s * 1000)
    while world.deployment.lifecycle is Lifecycle.DEPLOYING:
        cycle += 1
        world = world.at(cycle * period_ms)
        looks += len(world.routes)
        if looks > LOOKS_MAX:
            raise _TooLongError
        decision = world.decide()
        after = world.after(decision)
        last = cycle if _acts(decision) else _last_alike(world, decision, cycle, period_ms)
        yield _Moment(step=_step(decision, after, cycle, last, period_s), world=after)
        if last * period_ms >= NEVER_MS:
            return
        cycle, world = last, after
        if after.deployment.sub_step is SubStep.AWAITING_PROMOTION:
            world = after.promoted_by_hand()


def _last_alike(world: Imagined, decision: Decision, cycle: int, period_ms: int) -> int:
    """Return the last cycle of a wait: until something happens in the fleet, or a clock is over.

    While nothing happens, a rule that waits is only ever ended by time, and then for good: so the
    end is searched for, and not gone to cycle by cycle.
    """
    next_ms = world.next_ms()
    latest = NEVER_MS // period_ms + 1 if next_ms is None else max(next_ms // period_ms, cycle)
    rule = _rule(decision)

    def over(at: int) -> bool:
        later = replace(world, now_ms=at * period_ms).decide()
        return _acts(later) or _rule(later) != rule

    return bisect_left(range(cycle + 1, latest + 1), 1, key=over) + cycle


def _acts(decision: Decision) -> bool:
    return bool(decision.create or decision.routes or decision.change)


def _rule(decision: Decision) -> str:
    return decision.change.rule if decision.change else decision.notes[0].rule


def _step(decision: Decision, after: Imagined, cycle: int, last: int, period_s: float) -> PlanStep:
    drained = sum(change.status is RouteStatus.TERMINATING for change in decision.routes)
    return PlanStep(
        cycle=cycle,
        cycles=last - cycle + 1,
        rule=_rule(decision),
        creates=len(decision.create),
        drains=drained,
        share_percent=_share_percent(after),
        ready=_ready(after),
        active=_active(after),
        leaving=len(after.routes) - _active(after),
        at_s=cycle * period_s,
        until_s=last * period_s,
    )


def _ready(world: Imagined) -> int:
    return sum(route.ready for route in world.routes)


def _serving(world: Imagined) -> int:
    return sum(route.serves for route in world.routes)


def _active(world: Imagined) -> int:
    return sum(route.active for route in world.routes)


def _share_percent(world: Imagined) -> int:
    """Return how much of the traffic goes to the revision being rolled out, or that just was."""
    of = world.deployment
    new = of.deploying or (of.current if world.outcome is Outcome.PROMOTED else None)
    serving = [r for r in world.routes if r.ready and r.traffic is Traffic.ACTIVE]
    total = sum(route.traffic_ratio for route in serving)
    mine = sum(r.traffic_ratio for r in serving if new is not None and r.revision_id == new.id)
    return round(100 * mine / total) if total else 0


def _asks_operator_at_s(moments: Sequence[_Moment]) -> float | None:
    return next(
        (
            moment.step.at_s
            for moment in moments
            if moment.world.deployment.sub_step is SubStep.AWAITING_PROMOTION
        ),
        None,
    )


def _deadlock(start: Imagined, moments: Sequence[_Moment], timings: Timings) -> Deadlock:
    """Return the wait that was not over when the rollout turned back, and what would end it."""
    stuck = next(
        (before for before, turned in pairwise(moments) if _gives_up(turned)),
        moments[0],
    )
    needs_s, stands = _needed(start, timings.period_s)
    policy = start.deployment.policy
    if stands is not None:
        why = standstill.never(stands, rule=stuck.step.rule)
    else:
        why = standstill.too_late(policy, needs_s=needs_s, starts_in_s=timings.starts_in_s)
    return Deadlock(
        cycle=stuck.step.cycle,
        rule=stuck.step.rule,
        reason=why.reason,
        remedy=why.remedy,
        needs_s=None if stands else needs_s,
    )


def _gives_up(moment: _Moment) -> bool:
    of = moment.world.deployment
    return of.sub_step is SubStep.ROLLING_BACK or of.lifecycle is not Lifecycle.DEPLOYING


def _needed(start: Imagined, period_s: float) -> tuple[float | None, Imagined | None]:
    """Return how long it would take without a deadline, or where it would stand for ever.

    Neither, if that has too many steps.
    """
    rollout = start.deployment.rollout
    assert rollout is not None, "it was imagined with one"  # noqa: S101
    timeless = replace(rollout, deadline_at_ms=2 * NEVER_MS)
    last: _Moment | None = None
    try:
        for moment in _moments(
            replace(start, deployment=replace(start.deployment, rollout=timeless)), period_s
        ):
            last = moment
    except _TooLongError:
        return None, None
    assert last is not None, "a rollout has a cycle"  # noqa: S101
    if last.step.until_s * 1000 >= NEVER_MS:
        return None, last.world
    return last.step.at_s, None
