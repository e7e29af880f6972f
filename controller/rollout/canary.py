"""The canary strategy: a second set of replicas that gets the traffic in steps.

As blue-green, but between the two ends the greens have a share of the traffic, for as long as each
step says. A green that relapses takes the share of all of them back to nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from controller.model import (
    Decision,
    Policy,
    Route,
    RouteChange,
    RouteStatus,
    SubStep,
    Traffic,
    WeightStep,
)
from controller.rollout import bluegreen
from controller.rollout.bluegreen import all_ready, awaits_operator, delay_left_ms, idle
from controller.rollout.cycle import Cycle
from controller.rollout.moves import enter, serve, shifted, wait
from controller.rollout.rules import BACK, EXPIRED, FAILED, PAUSED, WAIT
from controller.rollout.table import Ending, Rule, Strategy


def weight_percent(routes: tuple[Route, ...]) -> int:
    """Return the share of the traffic that the new replicas have: 0 while they have none."""
    shares = [route.traffic_ratio for route in routes if route.ready]
    return round(100 * max(shares, default=0.0))


def steps_done(cycle: Cycle) -> int:
    """Return how many steps of the policy have been taken, by as many greens as are wanted."""
    target = cycle.bounds.target
    shares = sorted((r.traffic_ratio for r in cycle.counted.wanted if r.ready), reverse=True)
    reached = round(100 * shares[target - 1]) if 0 < target <= len(shares) else 0
    return sum(step.weight_percent <= reached for step in cycle.policy.steps)


def next_step(cycle: Cycle) -> WeightStep | None:
    """Return the step that comes next; None after the last, and where nothing gets traffic."""
    if not cycle.bounds.target:
        return None
    done = steps_done(cycle)
    return cycle.policy.steps[done] if done < len(cycle.policy.steps) else None


def pause_left_ms(cycle: Cycle) -> int:
    """Return how much longer the share stays as it is; an operator who promotes ends it."""
    done = steps_done(cycle)
    if done == 0 or cycle.rollout.promote_asked:
        return 0
    return int(cycle.policy.steps[done - 1].pause_s * 1000) - cycle.turned_for_ms


def shift(cycle: Cycle) -> Decision:
    """Give the greens their next share, and the blues the rest."""
    step = next_step(cycle)
    assert step is not None, "the rule's condition"  # noqa: S101
    share = step.weight_percent / 100
    greens = [serve(cycle, route, share) for route in cycle.counted.wanted if route.ready]
    blues = [serve(cycle, route, 1 - share) for route in cycle.before if route.ready]
    why = f"{step.weight_percent} % of the traffic goes to revision {cycle.wanted.number}"
    taken = enter(cycle, SubStep.PROGRESSING, why=why, routes=(*greens, *blues))
    assert taken.change is not None, "what `enter` makes"  # noqa: S101
    return replace(taken, change=replace(taken.change, restarts_clock=True))


def has_share(routes: tuple[Route, ...]) -> bool:
    """Tell whether any replica has traffic."""
    return any(route.traffic is Traffic.ACTIVE or route.traffic_ratio for route in routes)


def for_floor(cycle: Cycle) -> tuple[Route, ...]:
    """Return the greens that keep their share: too few of the others could serve without them."""
    counted = cycle.counted
    others = sum(r.serves or (r.ready and r in cycle.before) for r in counted.others)
    needed = max(0, cycle.bounds.min_avail - others)
    serving = sorted(
        (r for r in counted.wanted if r.serves), key=lambda r: (r.ready_since_ms or 0, r.id)
    )
    return tuple(serving[:needed])


def to_retreat(cycle: Cycle) -> tuple[Route, ...]:
    """Return the greens that have traffic, and that the floor does not need."""
    kept = for_floor(cycle)
    return tuple(r for r in cycle.counted.wanted if has_share((r,)) and r not in kept)


def retreat(cycle: Cycle) -> Decision:
    """Take the traffic back to the replicas that had it before, as far as they are enough."""
    kept = len(for_floor(cycle))
    but = f"; {kept} of the greens keep theirs for the floor of {cycle.bounds.min_avail}"
    text = f"traffic goes back to the replicas before{but if kept else ''}: {cycle.state}"
    routes = _taken_back(cycle, cycle.before, to_retreat(cycle))
    return enter(cycle, SubStep.PROGRESSING, why=text, routes=routes)


def retreat_back(cycle: Cycle) -> Decision:
    """Take all traffic back to the current revision, which is enough."""
    text = f"all traffic goes back to the replicas before: {cycle.state}"
    routes = _taken_back(cycle, cycle.counted.wanted, cycle.counted.others)
    return shifted(cycle, routes, text)


def _taken_back(cycle: Cycle, to: Sequence[Route], by: Sequence[Route]) -> tuple[RouteChange, ...]:
    why = f"no traffic any more: {cycle.state}"
    return (
        *(replace(serve(cycle, route, 1.0), traffic=None) for route in to if _runs(route)),
        *(idle(cycle, route, why) for route in by if _runs(route)),
    )


def _runs(route: Route) -> bool:
    return route.status is RouteStatus.RUNNING


def _shared_out(cycle: Cycle) -> bool:
    shared = has_share(tuple(route for route in cycle.counted.others if _runs(route)))
    enough = cycle.counted.ready_wanted >= cycle.bounds.min_avail
    return shared and enough


def complaint(policy: Policy) -> str:
    """Return what of a policy makes no sense with steps."""
    shares = [step.weight_percent for step in policy.steps]
    if not shares:
        return (
            "policy.steps: a canary needs at least one; write for example "
            "steps = [{weight_percent = 10, pause_s = 300}]"
        )
    if shares != sorted(set(shares)):
        return f"policy.steps: the weights {shares} must grow from step to step; put them in order"
    return ""


_AWAITS = frozenset({SubStep.PROVISIONING, SubStep.PROGRESSING})

CANARY: Final = Strategy(
    name="canary",
    says="a second set of replicas that gets the traffic in steps",
    bounds=bluegreen.bounds_of,
    forward=(
        PAUSED,
        Rule(
            name="promote",
            says="every share was taken: the greens get all traffic, in one transaction",
            when=lambda cycle: (
                all_ready(cycle)
                and (next_step(cycle) is None or cycle.rollout.promote_asked)
                and pause_left_ms(cycle) <= 0
                and not awaits_operator(cycle)
            ),
            then=bluegreen.promote,
            to=Ending.PROMOTED,
        ),
        EXPIRED,
        FAILED,
        Rule(
            name="retreat",
            says="a green with traffic stopped being ready: it goes back to the blues, as far as "
            "they are enough for the floor",
            when=lambda cycle: (
                not all_ready(cycle)
                and bool(to_retreat(cycle))
                and any(route.ready for route in cycle.before)
            ),
            then=retreat,
            to=SubStep.PROGRESSING,
        ),
        Rule(
            name="await_promotion",
            says="every share was taken, and an operator promotes",
            when=lambda cycle: (
                all_ready(cycle)
                and next_step(cycle) is None
                and pause_left_ms(cycle) <= 0
                and awaits_operator(cycle)
            ),
            then=lambda cycle: enter(
                cycle, SubStep.AWAITING_PROMOTION, why=f"waits for `rollout promote`: {cycle.state}"
            ),
            to=SubStep.AWAITING_PROMOTION,
            phases=_AWAITS,
        ),
        bluegreen.RELAPSED,
        bluegreen.STILL_AWAIT,
        bluegreen.CREATE,
        bluegreen.TRIM,
        bluegreen.BEGUN,
        Rule(
            name="promote_delay",
            says="all greens are ready, but not for long enough to get any traffic",
            when=lambda cycle: (
                all_ready(cycle) and steps_done(cycle) == 0 and delay_left_ms(cycle) > 0
            ),
            then=lambda cycle: wait(cycle, "the greens have to stay ready for promote_delay_s"),
            left_ms=delay_left_ms,
        ),
        Rule(
            name="shift",
            says="the pause is over: the greens get their next share",
            when=lambda cycle: (
                all_ready(cycle) and next_step(cycle) is not None and pause_left_ms(cycle) <= 0
            ),
            then=shift,
            to=SubStep.PROGRESSING,
        ),
        Rule(
            name="pause_step",
            says="the share stays as it is until its pause is over",
            when=all_ready,
            then=lambda cycle: wait(
                cycle, f"{weight_percent(cycle.counted.wanted)} % of the traffic for pause_s"
            ),
            left_ms=pause_left_ms,
        ),
        WAIT,
    ),
    back=(
        Rule(
            name="retreat",
            says="all traffic goes back to the current revision before anything leaves",
            when=_shared_out,
            then=retreat_back,
        ),
        *BACK,
    ),
    phases=(SubStep.PROVISIONING, SubStep.PROGRESSING, SubStep.AWAITING_PROMOTION),
    serves_at_once=False,
    complaint=complaint,
)
