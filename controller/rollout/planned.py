"""What a plan of a rollout says: each step with its numbers, and what would deadlock.

Made by `plan`, sent as it is by the API, drawn by `rollout plan`.
"""

import msgspec

from controller.model import Outcome


class PlanStep(msgspec.Struct, frozen=True, kw_only=True):
    """One cycle of the rollout; waiting goes on in one step for as many cycles as it takes."""

    cycle: int
    """The first one; they count from 1."""
    cycles: int
    rule: str
    creates: int
    drains: int
    share_percent: int
    """Of the traffic, which goes to the new revision afterwards."""
    ready: int
    """Replicas, afterwards."""
    active: int
    leaving: int
    """Drained, but not ended yet: they still need their place."""
    at_s: float
    """Of the first cycle, after the rollout began."""
    until_s: float
    """Of the last one."""


class Deadlock(msgspec.Struct, frozen=True, kw_only=True):
    """Why the rollout would not be promoted."""

    cycle: int
    """The step in which it goes no further, by its first cycle."""
    rule: str
    reason: str
    remedy: str
    needs_s: float | None
    """How long it would take if it had the time; null: for ever."""


class RolloutPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout in advance, if every new replica is ready after the same time."""

    deployment: str
    revision: int
    from_revision: int | None
    strategy: str
    target: int
    starts_in_s: float
    """Assumed: from the creation of a replica until it is ready."""
    period_s: float
    """Assumed: from one cycle to the next, the longest there is."""
    grace_s: float
    """Assumed: from being drained until a replica has ended."""
    steps: tuple[PlanStep, ...]
    outcome: Outcome
    worst_case_s: float
    """Until it ends."""
    peak: int
    """Active replicas, at most."""
    peak_with_leaving: int
    """With those that are drained and have not ended: what there must be room for."""
    max_total: int
    """What `peak` may be by the policy."""
    floor: int
    """Ready replicas, at least."""
    min_avail: int
    """What `floor` may be by the policy, unless it was less to begin with."""
    waits_for_operator_at_s: float | None
    """When it waits for `rollout promote`, which is taken to come at once; null: it never does."""
    kept_for_s: float
    """How long the replicas before stay after the promotion, to switch back to."""
    deadlock: Deadlock | None
