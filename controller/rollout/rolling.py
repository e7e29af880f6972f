"""The rolling strategy: new replicas replace old ones a few at a time, within bounds.

Creating and draining both go on while replacements still start: the bounds alone limit them.
"""

from typing import Final

from controller.model import Policy, SubStep
from controller.rollout import endings
from controller.rollout.counting import Bounds, Steps, resolve, steps
from controller.rollout.cycle import Cycle
from controller.rollout.moves import move
from controller.rollout.rules import BACK, EXPIRED, FAILED, PAUSED, SERVE, WAIT
from controller.rollout.table import Ending, Rule, Strategy


def bounds_of(policy: Policy, target: int) -> Bounds:
    """Return the bounds of a policy for `target` replicas; they never both are 0 (R-31).

    >>> bounds_of(Policy(surge="50%", unavailable=0), 3)
    Bounds(target=3, surge=2, unavailable=0, capacity=None)
    >>> bounds_of(Policy(surge=0, unavailable="10%"), 3)
    Bounds(target=3, surge=1, unavailable=0, capacity=None)
    """
    surge = resolve(policy.surge, target, up=True)
    unavailable = resolve(policy.unavailable, target, up=False)
    if surge == 0 and unavailable == 0:
        surge = 1
    return Bounds(target=target, surge=surge, unavailable=unavailable, capacity=policy.capacity)


def _planned(cycle: Cycle) -> Steps:
    planned = steps(cycle.counted, cycle.bounds)
    return Steps(create=0, drain=planned.drain, complete=False) if cycle.spent else planned


def _complaint(policy: Policy) -> str:
    for name in ("promote_delay_s", "scale_down_delay_s", "steps"):
        if getattr(policy, name):
            return (
                f"policy.{name} is of no use to a rolling update; remove it, or write "
                'strategy = "blue-green" or "canary"'
            )
    if not policy.auto_promote:
        return (
            "policy.auto_promote = false is of no use to a rolling update, which has nothing to "
            'promote; remove it, or write strategy = "blue-green"'
        )
    return ""


ROLLING: Final = Strategy(
    name="rolling",
    says="new replicas replace old ones a few at a time",
    bounds=bounds_of,
    forward=(
        PAUSED,
        SERVE,
        Rule(
            name="promote",
            says="all replicas are new and ready",
            when=lambda cycle: steps(cycle.counted, cycle.bounds).complete,
            then=lambda cycle: endings.promote(cycle.deployment, cycle.rollout, why=cycle.done),
            to=Ending.PROMOTED,
        ),
        EXPIRED,
        FAILED,
        Rule(
            name="replace",
            says="creates and drains within the bounds",
            when=lambda cycle: _planned(cycle).any,
            then=lambda cycle: move(
                cycle, count=_planned(cycle).create, gone=_planned(cycle).drain
            ),
            to=SubStep.PROGRESSING,
        ),
        WAIT,
    ),
    back=BACK,
    phases=(SubStep.PROVISIONING, SubStep.PROGRESSING),
    serves_at_once=True,
    complaint=_complaint,
)
