"""What must always hold, as pure checks: used by the live counters and by the tests.

A broken one is a bug of ours, never the fleet's fault. Numbers as in the lifecycle's list.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum

from controller.model import Decision, Lifecycle, Route, RouteStatus, Snapshot
from controller.rollout.rolling import bounds_of


class Invariant(StrEnum):
    """The ones that can be checked on a snapshot or on a decision."""

    READY_FLOOR = "I1_ready_floor"
    """Our own actions never take the ready routes below the floor."""
    ACTIVE_CEILING = "I2_active_ceiling"
    """No rollout has more active routes than target plus surge, by our own creation."""
    TERMINAL = "I5_terminal"
    """A terminal route stays terminal."""
    ONE_ROLLOUT = "rollout_pointers"
    """A deployment has a rollout exactly while it deploys a revision."""


def snapshot_violations(snapshot: Snapshot) -> Iterator[Invariant]:
    """Yield what does not hold at one moment."""
    for deployment in snapshot.deployments.values():
        if (deployment.deploying is None) != (deployment.rollout is None):
            yield Invariant.ONE_ROLLOUT
    for route in snapshot.routes:
        if route.status in (RouteStatus.TERMINATED, RouteStatus.FAILED_TO_START):
            yield Invariant.TERMINAL


def decision_violations(decision: Decision, routes: Sequence[Route]) -> Iterator[Invariant]:
    """Yield what a decision over `routes`, all of its deployment's, breaks."""
    deployment = decision.deployment
    if deployment.lifecycle not in (Lifecycle.READY, Lifecycle.DEPLOYING):
        return
    policy = deployment.rollout.policy if deployment.rollout else deployment.policy
    bounds = bounds_of(policy, deployment.target_count)
    leaving = {change.route.id for change in decision.routes if _leaves(change.status)}
    ready = Counter(route.id in leaving for route in routes if route.ready)
    if ready[True] and ready[False] < bounds.min_avail:
        yield Invariant.READY_FLOOR
    active = sum(route.active for route in routes)
    if (
        deployment.lifecycle is Lifecycle.DEPLOYING
        and decision.create
        and active + len(decision.create) > bounds.max_total
    ):
        yield Invariant.ACTIVE_CEILING


def _leaves(status: RouteStatus | None) -> bool:
    return status in (
        RouteStatus.TERMINATING,
        RouteStatus.TERMINATED,
        RouteStatus.FAILED_TO_START,
    )
