"""Why a rollout would not be promoted, and what would help, in words; for `plan`.

Either it stands still where no time helps, or its deadline comes first.
"""

from dataclasses import dataclass
from math import ceil

from controller.model import Policy
from controller.rollout.counting import Bounds, Tally, tally
from controller.rollout.imagined import Imagined
from controller.rollout.strategies import bounds_of, strategy_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """A reason with its numbers, and a remedy."""

    reason: str
    remedy: str


def too_late(policy: Policy, *, needs_s: float | None, starts_in_s: float) -> Why:
    """Tell what takes longer than the deadline allows; `needs_s` is None if too long to plan."""
    limit = f"rollout_timeout_s is {policy.rollout_timeout_s:g}"
    alone = {
        "min_ready_s": policy.min_ready_s,
        "promote_delay_s": policy.promote_delay_s,
        "the pauses of its steps": sum(step.pause_s for step in policy.steps),
        "the start of one replica": starts_in_s,
    }
    worst, takes_s = max(alone.items(), key=lambda each: each[1])
    because = (
        f"{takes_s:g} s of it are {worst}"
        if takes_s >= policy.rollout_timeout_s
        else f"each new replica is ready after {starts_in_s:g} s"
    )
    if needs_s is None:
        return Why(
            reason=f"it needs far more time than there is: {limit}, and {because}",
            remedy="write a larger policy.surge, so that more replicas start at once",
        )
    faster = ", or a larger surge" if strategy_of(policy).serves_at_once else ""
    return Why(
        reason=f"it needs {needs_s:g} s, and {limit}; {because}",
        remedy=f"write policy.rollout_timeout_s = {ceil(needs_s)} or more{faster}; if replicas "
        "are ready earlier, plan with --starts-in",
    )


def never(world: Imagined, *, rule: str) -> Why:
    """Tell what a fleet waits for that will not come."""
    of = world.deployment
    wanted = of.deploying
    assert wanted is not None, "it stands in the midst of a rollout"  # noqa: S101
    bounds = bounds_of(of.policy, of.target_count)
    counted = tally(world.routes, wanted.id, now_ms=world.now_ms, min_ready_s=0)
    missing = bounds.target - len(counted.wanted)
    if missing > 0 and wanted.spec.external:
        return Why(
            reason=f"revision {wanted.number} is run by somebody else, and {len(counted.wanted)} "
            f"of {bounds.target} replicas of it are registered",
            remedy=f"register {missing} more with `fleetpulse route register` once it has begun",
        )
    if missing > 0:
        return _no_room(world, bounds, counted)
    unready = len(counted.wanted) - counted.ready_wanted
    return Why(
        reason=f"rule {rule} waits for ever: {counted.ready_wanted} of {bounds.target} replicas of "
        f"revision {wanted.number} are ready",
        remedy=f"repair or drain the {unready} that run and are not ready, then plan again",
    )


def _no_room(world: Imagined, bounds: Bounds, counted: Tally) -> Why:
    """Tell which number leaves no place for a new replica."""
    policy = world.deployment.policy
    active = len(counted.wanted) + len(counted.others)
    one_by_one = strategy_of(policy).serves_at_once
    missing = bounds.target - len(counted.wanted)
    enough = bounds.target + 1 if one_by_one else active + missing
    reason = (
        f"{missing} of {bounds.target} new replicas cannot be created: {active} are active, and "
        f"at most {bounds.max_total} may be"
    )
    if bounds.capacity is None:
        return Why(
            reason=f"{reason} ({bounds.target} + surge {bounds.surge})",
            remedy=f"wait until no more than {bounds.target} replicas are active, then start it",
        )
    reason += f" (policy.capacity {bounds.capacity})"
    if not one_by_one:
        return Why(
            reason=reason,
            remedy=f"write policy.capacity = {enough}, which a second set of replicas needs, or "
            'strategy = "rolling"',
        )
    return Why(
        reason=f"{reason}; none of the {counted.ready} that are ready may go first (policy."
        f"unavailable {bounds.unavailable})",
        remedy=f"write policy.capacity = {enough} or more, or policy.unavailable = "
        f"{bounds.unavailable + 1}",
    )
