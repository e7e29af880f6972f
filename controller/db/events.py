"""What happened, in the words that are kept of it: of a deployment, or of one of its routes.

Made by whoever writes a change, kept by `history`. Pure.
"""

from dataclasses import dataclass
from typing import Final

from controller.model import (
    Deployment,
    DeploymentChange,
    DeploymentId,
    Note,
    Rollout,
    RolloutId,
    Route,
    RouteChange,
    RouteId,
)

SAME: Final = ("rollout_id", "phase", "from_state", "to_state", "result", "error_code", "rule")
"""What a note has in common with the one it repeats, beside subject and category."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a deployment, or to one of its routes."""

    deployment_id: DeploymentId
    route_id: RouteId | None = None
    rollout_id: RolloutId | None = None
    category: str
    """Who did it: a handler's name, or a verb."""
    phase: str = ""
    """Where the subject stood when it happened; nowhere when it was created."""
    from_state: str = ""
    to_state: str = ""
    result: str = "success"
    error_code: str = ""
    rule: str | None = None
    """The rule of a rollout that decided it; None: none did."""
    message: str

    @property
    def subject(self) -> str:
        """Return the id of what it happened to."""
        return self.route_id or self.deployment_id

    @property
    def sameness(self) -> tuple[str | None, ...]:
        """Return the values of `SAME`."""
        return tuple(getattr(self, name) for name in SAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry(Event):
    """One row of history, as it is read."""

    attempts: int
    """How often it happened in a row."""
    epoch: int | None
    """Of the controller that wrote it; None for what a person did."""
    created_at_ms: int
    updated_at_ms: int


def route_state(route: Route) -> str:
    """Return where a route stands, for people: `running`, `provisioning/pending`."""
    return state_of(route.status, route.stage)


def deployment_state(deployment: Deployment | DeploymentChange) -> str:
    """Return where a deployment stands, for people: `ready`, `deploying/progressing`."""
    return state_of(deployment.lifecycle, deployment.sub_step)


def state_of(outer: str, inner: str | None) -> str:
    """Join the two halves of a state.

    >>> state_of("running", None), state_of("provisioning", "pending")
    ('running', 'provisioning/pending')
    """
    return str(outer) if inner is None else f"{outer}/{inner}"


def route_created(route: Route, rollout_id: RolloutId | None, *, category: str) -> Event:
    """Return the event of a route's creation."""
    return Event(
        deployment_id=route.deployment_id,
        route_id=route.id,
        rollout_id=rollout_id,
        category=category,
        to_state=route_state(route),
        message=route.reason,
    )


def route_changed(change: RouteChange, after: Route, *, rollout_id: RolloutId | None) -> Event:
    """Return the event of a change: the real states on both sides of every axis that moved."""
    before = change.route
    axes = [
        (route_state(before), route_state(after)),
        (f"health:{before.health}", f"health:{after.health}"),
        (f"traffic:{before.traffic}", f"traffic:{after.traffic}"),
    ]
    moved = [axis for axis in axes if axis[0] != axis[1]] or axes[:1]
    return Event(
        deployment_id=before.deployment_id,
        route_id=before.id,
        rollout_id=rollout_id,
        category=change.category,
        phase=route_state(before),
        from_state=" ".join(axis[0] for axis in moved),
        to_state=" ".join(axis[1] for axis in moved),
        error_code=change.error_code,
        message=change.message,
    )


def deployment_changed(seen: Deployment, change: DeploymentChange) -> Event:
    """Return the event of a transition; its result is the outcome of a rollout it ends (R-16)."""
    return Event(
        deployment_id=seen.id,
        rollout_id=None if seen.rollout is None else seen.rollout.id,
        category=change.category,
        phase=deployment_state(seen),
        from_state=deployment_state(seen),
        to_state=deployment_state(change),
        result="success" if change.end_rollout is None else change.end_rollout.value,
        error_code=change.error_code,
        rule=change.rule or None,
        message=change.message,
    )


def asked(
    seen: Deployment,
    *,
    category: str,
    message: str,
    to_state: str | None = None,
    rollout: Rollout | None = None,
) -> Event:
    """Return the event of what a person did; without `to_state` the deployment stays as it is.

    `rollout` is the one that it began, where it began one.
    """
    state, around = deployment_state(seen), rollout or seen.rollout
    return Event(
        deployment_id=seen.id,
        rollout_id=None if around is None else around.id,
        category=category,
        phase=state,
        from_state=state,
        to_state=to_state or state,
        message=message,
    )


def noted(note: Note, *, state: str, rollout_id: RolloutId | None) -> Event:
    """Return the event of a note: where its subject stands, and what is in flight around it."""
    return Event(
        deployment_id=note.deployment_id,
        route_id=note.route_id,
        rollout_id=rollout_id,
        category=note.category,
        phase=state,
        from_state=state,
        to_state=state,
        result=note.result,
        error_code=note.error_code,
        rule=note.rule or None,
        message=note.message,
    )
