"""One look at one rollout in flight: all that a rule may ask, counted once.

Built by `machine`, read by the rules of every strategy. Forward, the revision wanted is the one
being deployed; on the way back it is the current one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from controller.model import Deployment, Policy, Revision, Rollout, Route, RouteId, SubStep
from controller.rollout.counting import Bounds, Tally

FAILED_MIN: Final = 3
"""New replicas a rollout of a small deployment may lose before it turns back."""

StoodStill = Callable[[int, int], int]
"""For how long HOLD stopped the clocks between two moments, in milliseconds."""


def never_still(since_ms: int, until_ms: int) -> int:
    """Return that there was no HOLD."""
    del since_ms, until_ms
    return 0


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
class Cycle:
    """What is known in one cycle of one rollout."""

    deployment: Deployment
    rollout: Rollout
    deploying: Revision
    wanted: Revision
    """What shall serve when all is done: `deploying`, or on the way back the current one."""
    routes: Sequence[Route]
    """The deployment's that are not terminal."""
    counted: Tally
    """Those of `wanted`, and the others."""
    bounds: Bounds
    """With the target count as it is now: it may have been scaled."""
    now_ms: int
    failed: int
    """Routes that the rollout has lost on its new side since it began."""
    held: bool
    """Nothing expires and nothing turns back: what is seen may not be true."""
    still: StoodStill
    fresh: Iterator[RouteId]
    serves_at_once: bool
    """Whether a new replica gets traffic as soon as it is ready."""

    @property
    def policy(self) -> Policy:
        """Return the policy as it was when the rollout began."""
        return self.rollout.policy

    @property
    def paused(self) -> bool:
        """Tell whether an operator stopped its clocks."""
        return self.rollout.paused_at_ms is not None

    @property
    def going_back(self) -> bool:
        """Tell whether it has turned back."""
        return self.deployment.sub_step is SubStep.ROLLING_BACK

    @property
    def idle(self) -> tuple[Route, ...]:
        """Return the ready ones of `wanted` that an earlier rollout left without traffic."""
        return tuple(r for r in self.counted.wanted if r.ready and not r.traffic_ratio)

    @property
    def before(self) -> tuple[Route, ...]:
        """Return the replicas of the current revision: others may be of a rollout before."""
        current = self.deployment.current
        others = self.counted.others
        return tuple(r for r in others if current is not None and r.revision_id == current.id)

    @property
    def spent(self) -> bool:
        """Tell whether it has lost more new replicas than it may replace."""
        return self.failed > failed_max(self.policy, self.bounds.target)

    @property
    def expired(self) -> bool:
        """Tell whether its time is over."""
        return not self.held and self.now_ms >= self.deadline_at_ms(self.now_ms)

    @property
    def turned_for_ms(self) -> int:
        """Return for how long it has been in this phase, without the time of HOLD."""
        entered_ms = self.deployment.phase_entered_at_ms
        return self.now_ms - entered_ms - self.still(entered_ms, self.now_ms)

    def deadline_at_ms(self, until_ms: int) -> int:
        """Return when the rollout ends by itself, as HOLD has moved it until then."""
        return self.rollout.deadline_at_ms + self.still(self.rollout.started_at_ms, until_ms)

    @property
    def state(self) -> str:
        """Return how far it is, in words."""
        counted, bounds = self.counted, self.bounds
        left = f"{len(counted.others)} of others left, {counted.ready_others} of them ready"
        return (
            f"{counted.ready_wanted} of {bounds.target} replicas of revision "
            f"{self.wanted.number} ready, {counted.provisioning} starting; "
            f"{left if counted.others else 'none of another left'}"
        )

    @property
    def done(self) -> str:
        """Return what a promotion rests on, and how long it took, in words.

        With a target count of 0 the rollout waits for nothing, so that often it rests on nothing.
        """
        seconds = (self.now_ms - self.rollout.started_at_ms) / 1000
        idle = not self.bounds.target and not self.counted.ready_wanted
        rests_on = "scaled to 0: nothing was verified" if idle else self.state
        return f"{rests_on}; it took {seconds:.0f} s"

    @property
    def lost(self) -> str:
        """Return what was lost against what may be, in words."""
        most = failed_max(self.policy, self.bounds.target)
        return f"{self.failed} new replicas failed, and max_failed_replicas is {most}"
