"""The canary strategy: a second set of replicas that gets the traffic in steps.

As blue-green, but between the two ends the greens have a share of the traffic, for as long as each
step says. A green that relapses takes the share of all of them back to nothing.
"""

from dataclasses import replace
from typing import Final

from controller.model import Decision, Policy, Route, RouteStatus, SubStep, Traffic, WeightStep
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
    """Return how many steps of the policy have been taken."""
    reached = weight_percent(cycle.counted.wanted)
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


def retreat(cycle: Cycle) -> Decision:
    """Take all traffic back to the replicas that had it before."""
    counted, why = cycle.counted, f"no traffic any more: {cycle.state}"
    back = cycle.going_back
    old, new = (counted.wanted, counted.others) if back else (cycle.before, counted.wanted)
    routes = (
        *(replace(serve(cycle, route, 1.0), traffic=None) for route in old if _runs(route)),
        *(idle(cycle, route, why) for route in new if _runs(route)),
    )
    text = f"all traffic goes back to the replicas before: {cycle.state}"
    return (
        shifted(cycle, routes, text)
        if back
        else enter(cycle, SubStep.PROGRESSING, why=text, routes=routes)
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
            says="a green with traffic stopped being ready: all traffic goes back to the blues",
            when=lambda cycle: (
                not all_ready(cycle)
                and has_share(cycle.counted.wanted)
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
            then=retreat,
        ),
        *BACK,
    ),
    phases=(SubStep.PROVISIONING, SubStep.PROGRESSING, SubStep.AWAITING_PROMOTION),
    serves_at_once=False,
    complaint=complaint,
)
