"""Every state that a rollout of a small deployment can come to: the real rules over all fates.

Abstract where nothing can tell the difference: replicas have no age, clocks are over or not, and
how many new ones failed counts no further than the budget. HOLD and a pause come and go between any
two decisions, so they are asked of every state and are none. What is decided is decided by
`machine.step`, and applied by what the database applies.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final, NamedTuple

from controller.change import applied
from controller.model import (
    Decision,
    Deployment,
    Health,
    Lifecycle,
    NewRoute,
    Outcome,
    Policy,
    RevisionId,
    Route,
    RouteStatus,
    Stage,
    SubStep,
    Traffic,
)
from controller.rollout import machine
from controller.rollout.counting import Bounds
from controller.rollout.cycle import failed_max
from controller.rollout.strategies import bounds_of
from controller.route.warmup import traffic_when_ready
from tests.fakes.nouns import NEW, NOW_MS, OLD, a_revision, a_rollout, a_route, deploying, fresh_ids
from tests.fakes.rollouts import rules

ORPHAN: Final = a_revision(3).id
"""Of a rollout before, which was superseded: neither current nor on its way."""


class Life(NamedTuple):
    """A replica, as far as any rule can tell one from another."""

    revision: RevisionId
    step: str
    """starting, fresh (ready, not for long), ready, ill."""
    traffic: Traffic
    ratio: float

    @property
    def ready(self) -> bool:
        return self.step in ("fresh", "ready")

    @property
    def serves(self) -> bool:
        return self.ready and self.traffic is Traffic.ACTIVE and self.ratio > 0


class State(NamedTuple):
    """A deployment in DEPLOYING, or `ended`."""

    lives: tuple[Life, ...]
    phase: SubStep
    target: int
    failed: int = 0
    late: bool = False
    """The rollout's deadline is over."""
    long: bool = False
    """So is every time that is counted from entering the phase."""
    asked: bool = False
    """An operator promoted it."""
    ended: Outcome | None = None


class Step(NamedTuple):
    """One decision, and where it leads."""

    rules: frozenset[str]
    after: State


@dataclass(frozen=True, kw_only=True)
class Room:
    """What does not change in one exploration, and what may happen in it."""

    policy: Policy
    target: int
    served: bool = True
    """Whether there is a current revision to go back to."""
    scales_to: tuple[int, ...] = ()
    decided: dict[tuple[State, bool], Step] = field(default_factory=dict)

    def beginning(self, *left: Life) -> State:
        """Return a rollout that just began, over what an earlier one left behind."""
        old = Life(OLD.id, "ready", Traffic.ACTIVE, 1.0)
        lives = (old,) * (self.target if self.served else 0) + left
        return State(tuple(sorted(lives)), SubStep.PROVISIONING, self.target)

    def bounds(self, state: State) -> Bounds:
        return bounds_of(self.policy, state.target)

    def reachable(self, *beginnings: State) -> dict[State, list[State]]:
        """Return every state that can be reached, with what can follow it."""
        found: dict[State, list[State]] = {state: [] for state in beginnings}
        due = deque(beginnings)
        while due:
            state = due.popleft()
            if state.ended is not None:
                continue
            decided = (self.decide(state, held=held).after for held in (False, True))
            found[state] = list(dict.fromkeys([*decided, *self.fates(state)]))
            for after in found[state]:
                if after not in found:
                    found[after] = []
                    due.append(after)
        return found

    # What the rules do.

    def decide(self, state: State, *, held: bool = False) -> Step:
        """Return what the real rules make of a state."""
        key = (state, held)
        if key not in self.decided:
            self.decided[key] = self._decide(state, held=held)
        return self.decided[key]

    def paused(self, state: State) -> Step:
        """Return what the rules make of it while an operator has stopped it."""
        return self._decide(state, held=False, paused=True)

    def _decide(self, state: State, *, held: bool, paused: bool = False) -> Step:
        routes = [_route(number, life) for number, life in enumerate(state.lives)]
        decision = machine.step(
            self._deployment(state, paused=paused),
            [*routes, *_LEAVING],
            NOW_MS,
            failed=state.failed,
            fresh=fresh_ids(),
            held=held,
        )
        assert decision is not None, "in DEPLOYING there is always something to say"
        changed = {change.route.id: applied(change, now_ms=NOW_MS) for change in decision.routes}
        assert changed.keys() <= {route.id for route in routes}, "I5: what leaves is left alone"
        lives = [_life(changed.get(route.id, route)) for route in routes]
        stay = [life for life in lives if life is not None]
        gone = sum(
            after is None and life.revision == NEW.id
            for life, after in zip(state.lives, lives, strict=True)
        )
        after = state._replace(
            lives=tuple(sorted([*stay, *map(_new_life, decision.create)])),
            failed=self._capped(state, state.failed + gone),
        )
        return Step(frozenset(rules(decision)), self._plain(_moved(after, decision)))

    def _deployment(self, state: State, *, paused: bool = False) -> Deployment:
        timeout_ms = int(self.policy.rollout_timeout_s * 1000)
        rollout = a_rollout(
            self.policy,
            started_at_ms=NOW_MS - timeout_ms,
            deadline_at_ms=NOW_MS if state.late else NOW_MS + 1,
            paused_at_ms=NOW_MS if paused else None,
            promote_asked=state.asked,
        )
        return deploying(
            state.target,
            policy=self.policy,
            sub_step=state.phase,
            current=OLD if self.served else None,
            rollout=rollout,
            phase_entered_at_ms=NOW_MS - timeout_ms if state.long else NOW_MS,
        )

    def _plain(self, state: State) -> State:
        """Return a state without what no rule asks for in it."""
        back = state.phase is SubStep.ROLLING_BACK
        paces = back or bool(self.policy.steps)
        return state._replace(late=state.late and not back, long=state.long and paces)

    @property
    def _counts_ready_time(self) -> bool:
        return bool(self.policy.min_ready_s or self.policy.promote_delay_s)

    def _capped(self, state: State, failed: int) -> int:
        return min(failed, failed_max(self.policy, state.target) + 1)

    # What may happen to it.

    def fates(self, state: State) -> Iterator[State]:
        """Yield what may become of it between two decisions: one thing at a time."""
        for number, life in enumerate(state.lives):
            if number == 0 or life != state.lives[number - 1]:  # equal ones have equal fates
                for fate in self._lives_after(state, life):
                    yield self._with(state, number, fate)
        yield from self._clocks(state)
        yield from self._orders(state)

    def _lives_after(self, state: State, life: Life) -> Iterator[Life | None]:
        yield None
        if life.step != "ready":
            yield self._onward(state, life)
        if life.ready:
            yield life._replace(step="ill")

    def _onward(self, state: State, life: Life) -> Life:
        ready = "fresh" if self._counts_ready_time else "ready"
        match life.step:
            case "starting":
                traffic = traffic_when_ready(_route(0, life), self._deployment(state))
                ratio = 1.0 if traffic is Traffic.ACTIVE else 0.0
                return Life(life.revision, ready, traffic, ratio)
            case "ill":
                return life._replace(step=ready)
            case _:
                return life._replace(step="ready")

    def _with(self, state: State, number: int, fate: Life | None) -> State:
        lives = [*state.lives[:number], *state.lives[number + 1 :]]
        lost = fate is None and state.lives[number].revision == NEW.id
        return state._replace(
            lives=tuple(sorted(lives if fate is None else [*lives, fate])),
            failed=self._capped(state, state.failed + lost),
        )

    def _clocks(self, state: State) -> Iterator[State]:
        yield self._plain(state._replace(late=True))
        yield self._plain(state._replace(long=True))

    def _orders(self, state: State) -> Iterator[State]:
        for target in self.scales_to:
            scaled = state._replace(target=target)
            yield scaled._replace(failed=self._capped(scaled, state.failed))
        if state.phase is SubStep.ROLLING_BACK:
            return
        if self.policy.strategy != "rolling":
            yield state._replace(asked=True)
        if self.served:
            yield self._plain(state._replace(phase=SubStep.ROLLING_BACK, long=False))

    # What becomes of it without faults.

    def fair(self, state: State, *, in_time: bool = True) -> State:
        """Return what follows when the rules decide and every replica takes its step.

        Nobody orders anything any more; nothing is held or paused. `in_time`: no deadline comes.
        """
        state = self.decide(state).after
        if state.ended is not None:
            return state
        lives = [self._onward(state, life) for life in state.lives if life.revision != ORPHAN]
        back = state.phase is SubStep.ROLLING_BACK
        return self._plain(
            state._replace(
                lives=tuple(sorted(lives)),
                late=state.late or not in_time,
                long=state.long or not (back and in_time),
            )
        )

    def waits_for(self, state: State) -> str:
        """Return the reason for which a state may wait for its deadline, or an operator."""
        wanted = OLD.id if state.phase is SubStep.ROLLING_BACK else NEW.id
        counted = sum(life.revision == wanted for life in state.lives)
        if state.phase is SubStep.AWAITING_PROMOTION and not state.asked:
            return "an operator"
        if state.failed > failed_max(self.policy, state.target):
            return "budget spent, some new ones left"
        if self.policy.capacity is not None and counted < state.target:
            return "no capacity"
        return ""


def _moved(state: State, decision: Decision) -> State:
    change = decision.change
    if change is None:
        return state
    if change.lifecycle is not Lifecycle.DEPLOYING:
        assert change.end_rollout is not None, "R-13: it is left by ending it"
        return state._replace(ended=change.end_rollout)
    assert change.sub_step is not None, "R-13"
    anew = change.restarts_clock or change.sub_step is not state.phase
    return state._replace(phase=change.sub_step, long=state.long and not anew)


@cache
def _route(number: int, life: Life) -> Route:
    starting = life.step == "starting"
    since_ms = {"fresh": NOW_MS, "ready": NOW_MS - 7_200_000}.get(life.step)
    return a_route(
        number,
        revision_id=life.revision,
        status=RouteStatus.PROVISIONING if starting else RouteStatus.RUNNING,
        stage=Stage.WARMING_UP if starting else None,
        health=Health.HEALTHY if life.ready else Health.UNHEALTHY,
        traffic=life.traffic,
        traffic_ratio=life.ratio,
        ready_since_ms=since_ms,
    )


def _life(route: Route) -> Life | None:
    if not route.active:
        return None
    if route.status is RouteStatus.PROVISIONING:
        step = "starting"
    elif not route.ready:
        step = "ill"
    else:
        step = "fresh" if route.ready_since_ms == NOW_MS else "ready"
    return Life(route.revision_id, step, route.traffic, route.traffic_ratio)


def _new_life(wanted: NewRoute) -> Life:
    return Life(wanted.revision_id, "starting", wanted.traffic, wanted.traffic_ratio)


_LEAVING: Final = tuple(
    replace(
        a_route(900 + number, revision_id=revision, traffic=Traffic.INACTIVE, traffic_ratio=0.0),
        status=RouteStatus.TERMINATING,
        stage=Stage.DRAINING,
    )
    for number, revision in enumerate((OLD.id, NEW.id))
)
"""Two that are on their way out already, in every state: nobody may touch them."""
