"""A fleet that is only imagined: what a rollout would meet if every replica started as told.

Used by `plan`, which lets the real rules decide over it. Immutable; its clock begins at 0 with the
rollout. Nothing fails here, and what is not ready now and runs already never becomes so.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import count
from typing import Final, Self

from controller.change import applied, created, moved
from controller.model import (
    Decision,
    Deployment,
    Health,
    Lifecycle,
    Outcome,
    Revision,
    RevisionId,
    Rollout,
    RolloutId,
    Route,
    RouteId,
    RouteStatus,
    Stage,
    SubStep,
    Traffic,
)
from controller.rollout import machine

ORPHANS_LEAVE_MS: Final = 120_000
"""Two eviction periods: no route of a revision that is not in use outlives them (I9)."""
LONG_AGO_MS: Final = 10**13


@dataclass(frozen=True, slots=True, kw_only=True)
class Imagined:
    """One deployment in rollout, with its routes that have not ended, at one moment."""

    deployment: Deployment
    routes: tuple[Route, ...]
    now_ms: int
    starts_in_ms: int
    """From its creation until a replica is ready."""
    grace_ms: int
    """From being drained until a replica has ended."""
    created: int = 0
    outcome: Outcome | None = None

    def decide(self) -> Decision:
        """Return what the rules of the rollout make of this moment."""
        decision = machine.step(
            self.deployment, self.routes, self.now_ms, failed=0, fresh=self._fresh()
        )
        assert decision is not None, "asked only while it is deploying"  # noqa: S101
        return decision

    def next_ms(self) -> int | None:
        """Return when the next thing happens that a rule could see; None: nothing more does."""
        used = self._used()
        due = [self._due_ms(route, used) for route in self.routes if route.active]
        return min((at_ms for at_ms in due if at_ms is not None), default=None)

    def at(self, now_ms: int) -> Self:
        """Return the fleet at a later moment, after all that fell due before it."""
        used = self._used()
        later = (self._grown(route, now_ms, used) for route in self.routes)
        routes = tuple(route for route in later if route is not None)
        return replace(self, routes=routes, now_ms=now_ms)

    def after(self, decision: Decision) -> Self:
        """Return the fleet with a decision applied."""
        changed = {one.route.id: applied(one, now_ms=self.now_ms) for one in decision.routes}
        kept = (changed.get(route.id, route) for route in self.routes)
        made = (created(wanted, now_ms=self.now_ms) for wanted in decision.create)
        change, of = decision.change, self.deployment
        return replace(
            self,
            deployment=of if change is None else moved(of, change, now_ms=self.now_ms),
            routes=(*kept, *made),
            created=self.created + len(decision.create),
            outcome=self.outcome if change is None else change.end_rollout,
        )

    def promoted_by_hand(self) -> Self:
        """Return the fleet with an operator's word that the rollout may end."""
        rollout = self.deployment.rollout
        assert rollout is not None, "asked only while it is deploying"  # noqa: S101
        asked = replace(self.deployment, rollout=replace(rollout, promote_asked=True))
        return replace(self, deployment=asked)

    def _fresh(self) -> Iterator[RouteId]:
        return (RouteId(f"imagined-{number:06}") for number in count(self.created))

    def _used(self) -> set[RevisionId]:
        return {one.id for one in (self.deployment.current, self.deployment.deploying) if one}

    def _due_ms(self, route: Route, used: AbstractSet[RevisionId]) -> int | None:
        """Return when something happens to a route by itself."""
        if not route.active:
            return route.entered_at_ms + self.grace_ms
        if route.revision_id not in used:
            return ORPHANS_LEAVE_MS
        starts = route.status is RouteStatus.PROVISIONING
        return route.entered_at_ms + self.starts_in_ms if starts else None

    def _grown(self, route: Route, now_ms: int, used: AbstractSet[RevisionId]) -> Route | None:
        due_ms = self._due_ms(route, used)
        if due_ms is None or due_ms >= now_ms:
            return route
        if not route.active:
            return None
        if route.revision_id not in used:
            return _leaving(route, due_ms)
        rollout = self.deployment.rollout
        ours = rollout is not None and rollout.revision_id == route.revision_id
        serves = not ours or route.traffic_ratio > 0
        return replace(
            route,
            status=RouteStatus.RUNNING,
            stage=None,
            health=Health.NOT_CHECKED if route.health_check is None else Health.HEALTHY,
            traffic=Traffic.ACTIVE if serves else Traffic.INACTIVE,
            entered_at_ms=due_ms,
            ready_since_ms=due_ms,
        )


def imagine(
    deployment: Deployment,
    revision: Revision,
    routes: Sequence[Route],
    *,
    starts_in_s: float,
    grace_s: float,
) -> Imagined:
    """Return the fleet as it is when a rollout of `revision` has just begun.

    What starts counts as created in this moment. What is ready has long been so, unless it is of
    `revision`: then since this moment.
    """
    rollout = Rollout(
        id=RolloutId("imagined"),
        deployment_id=deployment.id,
        revision_id=revision.id,
        from_revision_id=None if deployment.current is None else deployment.current.id,
        policy=deployment.policy,
        started_at_ms=0,
        deadline_at_ms=int(deployment.policy.rollout_timeout_s * 1000),
        actor="",
    )
    return Imagined(
        deployment=replace(
            deployment,
            lifecycle=Lifecycle.DEPLOYING,
            sub_step=SubStep.PROVISIONING,
            deploying=revision,
            rollout=rollout,
            phase_entered_at_ms=0,
        ),
        routes=tuple(
            replace(route, entered_at_ms=0, ready_since_ms=_ready_since_ms(route, revision))
            for route in routes
        ),
        now_ms=0,
        starts_in_ms=int(starts_in_s * 1000),
        grace_ms=int(grace_s * 1000),
    )


def _ready_since_ms(route: Route, revision: Revision) -> int | None:
    if not route.ready:
        return None
    return 0 if route.revision_id == revision.id else -LONG_AGO_MS


def _leaving(route: Route, at_ms: int) -> Route:
    return replace(
        route,
        status=RouteStatus.TERMINATING,
        stage=Stage.DRAINING,
        traffic=Traffic.INACTIVE,
        traffic_ratio=0.0,
        entered_at_ms=at_ms,
        ready_since_ms=None,
    )
