"""The blue-green strategy: a second set of replicas, and all traffic moved to it at once.

Blue is what serves, green what shall. Until the promotion no green has traffic, after it no blue.
"""

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
)
from controller.rollout import endings
from controller.rollout.counting import Bounds
from controller.rollout.cycle import Cycle
from controller.rollout.moves import category, enter, move, serve, wait
from controller.rollout.replicas import drain
from controller.rollout.rules import BACK, EXPIRED, FAILED, PAUSED, WAIT
from controller.rollout.table import Ending, Rule, Strategy


def bounds_of(policy: Policy, target: int) -> Bounds:
    """Return the bounds: a whole second set, and not one replica less.

    >>> bounds_of(Policy(strategy="blue-green"), 3)
    Bounds(target=3, surge=3, unavailable=0, capacity=None)
    """
    return Bounds(target=target, surge=target, unavailable=0, capacity=policy.capacity)


def missing(cycle: Cycle) -> int:
    """Return how many greens to create: up to the target, within the room and the budget."""
    counted, bounds = cycle.counted, cycle.bounds
    if cycle.spent:
        return 0
    room = bounds.max_total - len(counted.wanted) - len(counted.others)
    return max(0, min(room, bounds.target - len(counted.wanted)))


def surplus(cycle: Cycle) -> tuple[Route, ...]:
    """Return the blues beyond the target that take the room of greens: it was scaled in."""
    counted, bounds = cycle.counted, cycle.bounds
    full = len(counted.wanted) + len(counted.others) >= bounds.max_total
    if cycle.spent or not full or len(counted.wanted) >= bounds.target:
        return ()
    return counted.others[: max(0, len(counted.others) - bounds.target)]


def all_ready(cycle: Cycle) -> bool:
    """Tell whether as many greens are ready as are wanted."""
    return cycle.counted.ready_wanted >= cycle.bounds.target


def delay_left_ms(cycle: Cycle) -> int:
    """Return how much longer the greens have to stay ready; a relapse begins it anew.

    An operator who promotes does not wait for it.
    """
    if cycle.rollout.promote_asked:
        return 0
    ready = sorted(route.ready_since_ms or 0 for route in cycle.counted.wanted if route.ready)
    newest_ms = max(ready[: cycle.bounds.target], default=cycle.rollout.started_at_ms)
    return newest_ms + int(cycle.policy.promote_delay_s * 1000) - cycle.now_ms


def awaits_operator(cycle: Cycle) -> bool:
    """Tell whether a person has to promote it, and has not."""
    return not cycle.policy.auto_promote and not cycle.rollout.promote_asked


def promote(cycle: Cycle) -> Decision:
    """Move all traffic in one transaction; it fails when a green is not as it was seen.

    Every ready green is named in the decision, so that its version is compared in the
    transaction: one that relapsed meanwhile has another (R-35).
    """
    keep_for_s = cycle.policy.scale_down_delay_s
    promoted = endings.promote(cycle.deployment, cycle.rollout, why=cycle.done)
    assert promoted.change is not None, "that is what a promotion is"  # noqa: S101
    change = replace(promoted.change, keep_for_s=keep_for_s)
    greens = [serve(cycle, green, 1.0) for green in cycle.counted.wanted if green.ready]
    blues = cycle.counted.others
    why = f"revision {cycle.wanted.number} serves instead"
    kept = [blue for blue in cycle.before if keep_for_s and blue.ready]
    gone = [blue for blue in blues if blue not in kept]
    return replace(
        promoted,
        change=change,
        routes=(
            *greens,
            *(idle(cycle, blue, f"{why}; kept for {keep_for_s:g} s") for blue in kept),
            *drain(gone, category=endings.FORWARD, message=why),
        ),
    )


def idle(cycle: Cycle, route: Route, why: str) -> RouteChange:
    """Take a route out of traffic, and leave it running."""
    return RouteChange(
        route=route,
        category=category(cycle),
        message=why,
        status=RouteStatus.RUNNING,
        traffic=Traffic.INACTIVE,
        traffic_ratio=0.0,
    )


def complaint(policy: Policy) -> str:
    """Return what of a policy makes no sense with a second set of replicas."""
    if policy.steps:
        return 'policy.steps: blue-green moves all traffic at once; write strategy = "canary"'
    return ""


CREATE: Final = Rule(
    name="create_greens",
    says="creates what is missing of the second set, without traffic",
    when=lambda cycle: missing(cycle) > 0,
    then=lambda cycle: move(cycle, count=missing(cycle), gone=()),
    phases=frozenset({SubStep.PROVISIONING, SubStep.PROGRESSING, SubStep.AWAITING_PROMOTION}),
)
TRIM: Final = Rule(
    name="make_room",
    says="drains blues beyond the target count, where greens have no room",
    when=lambda cycle: bool(surplus(cycle)),
    then=lambda cycle: move(cycle, count=0, gone=surplus(cycle)),
)
RELAPSED: Final = Rule(
    name="relapsed",
    says="a green stopped being ready: no promotion until it is again",
    when=lambda cycle: not all_ready(cycle),
    then=lambda cycle: enter(cycle, SubStep.PROGRESSING, why=f"relapsed: {cycle.state}"),
    to=SubStep.PROGRESSING,
    phases=frozenset({SubStep.AWAITING_PROMOTION}),
)
BEGUN: Final = Rule(
    name="greens_exist",
    says="the second set is there, and gets ready",
    when=lambda cycle: bool(cycle.counted.wanted),
    then=lambda cycle: enter(cycle, SubStep.PROGRESSING, why=cycle.state),
    to=SubStep.PROGRESSING,
    phases=frozenset({SubStep.PROVISIONING}),
)
AWAIT: Final = Rule(
    name="await_promotion",
    says="all greens are ready, and an operator promotes",
    when=lambda cycle: all_ready(cycle) and awaits_operator(cycle),
    then=lambda cycle: enter(
        cycle, SubStep.AWAITING_PROMOTION, why=f"waits for `rollout promote`: {cycle.state}"
    ),
    to=SubStep.AWAITING_PROMOTION,
    phases=frozenset({SubStep.PROVISIONING, SubStep.PROGRESSING}),
)
STILL_AWAIT: Final = Rule(
    name="awaiting_promotion",
    says="still waits for an operator",
    when=awaits_operator,
    then=lambda cycle: wait(cycle, "waits for `rollout promote`"),
    phases=frozenset({SubStep.AWAITING_PROMOTION}),
    asks="promote",
)
DELAY: Final = Rule(
    name="promote_delay",
    says="all greens are ready, but not for long enough",
    when=lambda cycle: all_ready(cycle) and delay_left_ms(cycle) > 0,
    then=lambda cycle: wait(cycle, "the greens have to stay ready for promote_delay_s"),
    left_ms=delay_left_ms,
)

BLUE_GREEN: Final = Strategy(
    name="blue-green",
    says="a second set of replicas, and all traffic moved to it at once",
    bounds=bounds_of,
    forward=(
        PAUSED,
        Rule(
            name="promote",
            says="all greens are ready: they get all traffic, the blues none, in one transaction",
            when=lambda cycle: (
                all_ready(cycle) and not awaits_operator(cycle) and delay_left_ms(cycle) <= 0
            ),
            then=promote,
            to=Ending.PROMOTED,
        ),
        EXPIRED,
        FAILED,
        AWAIT,
        RELAPSED,
        STILL_AWAIT,
        CREATE,
        TRIM,
        BEGUN,
        DELAY,
        WAIT,
    ),
    back=BACK,
    phases=(SubStep.PROVISIONING, SubStep.PROGRESSING, SubStep.AWAITING_PROMOTION),
    serves_at_once=False,
    complaint=complaint,
)
