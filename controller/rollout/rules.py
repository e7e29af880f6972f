"""The rules that every strategy shares: stopping, turning back, and the whole way back.

Rolling back restores ready replicas of the current revision before it drains any new one, by the
same arithmetic as a rolling update with the revisions exchanged.
"""

from typing import Final

from controller.model import Decision, Outcome, SubStep
from controller.rollout import endings
from controller.rollout.counting import Steps, steps
from controller.rollout.cycle import Cycle
from controller.rollout.moves import move, serve, shifted, wait
from controller.rollout.table import Ending, Rule

PAUSED: Final = Rule(
    name="paused",
    says="an operator stopped it: nothing moves and no clock runs",
    when=lambda cycle: cycle.paused,
    then=lambda cycle: wait(cycle, word="paused"),
    asks="resume",
)
EXPIRED: Final = Rule(
    name="expired",
    says="its deadline is over: back to the current revision",
    when=lambda cycle: cycle.expired,
    then=lambda cycle: _turn_back(
        cycle,
        Outcome.EXPIRED,
        f"not done within {cycle.policy.rollout_timeout_s:g} s: {cycle.state}",
    ),
    to=SubStep.ROLLING_BACK,
)
FAILED: Final = Rule(
    name="all_failed",
    says="every new replica failed and no more may be tried: back to the current revision",
    when=lambda cycle: not cycle.held and cycle.spent and not cycle.counted.wanted,
    then=lambda cycle: _turn_back(cycle, Outcome.ROLLED_BACK, f"{cycle.lost}; none is left"),
    to=SubStep.ROLLING_BACK,
)
SERVE: Final = Rule(
    name="serve",
    says="replicas that an earlier rollout left without traffic get it before others leave",
    when=lambda cycle: bool(cycle.idle),
    then=lambda cycle: shifted(
        cycle,
        [serve(cycle, route, 1.0) for route in cycle.idle],
        f"{len(cycle.idle)} replicas that had no traffic get it; {cycle.state}",
    ),
)
WAIT: Final = Rule(
    name="wait",
    says="nothing to do but wait",
    when=lambda _: True,
    then=lambda cycle: wait(cycle, _wait_for(cycle)),
)


def _turn_back(cycle: Cycle, outcome: Outcome, why: str) -> Decision:
    return endings.turn_back(cycle.deployment, cycle.rollout, outcome, why=why)


def _wait_for(cycle: Cycle) -> str:
    if cycle.spent and not cycle.going_back:
        return f"{cycle.lost}, so no other is created"
    return ""


# The way back.


def _restoring(cycle: Cycle) -> Steps:
    return steps(cycle.counted, cycle.bounds)


def _outcome(cycle: Cycle) -> Outcome:
    """Return what a rollback is called at its end: what was recorded when it began, if it was.

    Only the deadline turns a rollout back at or after its deadline.
    """
    if cycle.rollout.outcome is not None:
        return cycle.rollout.outcome
    turned_at_ms = cycle.deployment.phase_entered_at_ms
    if turned_at_ms >= cycle.deadline_at_ms(turned_at_ms):
        return Outcome.EXPIRED
    return Outcome.ROLLED_BACK


def _gone_back(cycle: Cycle, outcome: Outcome, why: str) -> Decision:
    return endings.gone_back(
        cycle.deployment, cycle.rollout, outcome, given_up=cycle.deploying, why=why
    )


BACK: Final = (
    Rule(
        name="nowhere_to_go",
        says="no revision ever served: the deployment goes away",
        when=lambda cycle: cycle.deployment.current is None,
        then=lambda cycle: endings.destroy(
            cycle.deployment, cycle.rollout, _outcome(cycle), why="it was rolling back"
        ),
        to=Ending.DESTROYED,
    ),
    SERVE,
    Rule(
        name="restored",
        says="the current revision serves alone again",
        when=lambda cycle: _restoring(cycle).complete,
        then=lambda cycle: _gone_back(cycle, _outcome(cycle), cycle.state),
        to=Ending.GIVEN_UP,
    ),
    Rule(
        name="cannot_restore",
        says="going back took as long as the rollout may: it ends as it is",
        when=lambda cycle: (
            not cycle.held and cycle.turned_for_ms >= cycle.policy.rollout_timeout_s * 1000
        ),
        then=lambda cycle: _gone_back(
            cycle,
            cycle.rollout.outcome or Outcome.FAILED,
            "rolling back was not done within rollout_timeout_s "
            f"{cycle.policy.rollout_timeout_s:g}: {cycle.state}; the others leave by orphan "
            "eviction as replicas become ready",
        ),
        to=Ending.GIVEN_UP,
    ),
    Rule(
        name="restore",
        says="replicas of the current revision come back before new ones leave",
        when=lambda cycle: _restoring(cycle).any,
        then=lambda cycle: move(
            cycle, count=_restoring(cycle).create, gone=_restoring(cycle).drain
        ),
    ),
    WAIT,
)
