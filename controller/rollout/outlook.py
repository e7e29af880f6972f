"""What a rollout does next: the rule that its next cycle ends with, and what that waits for.

Asked of the real rules over the real cycle, and not carried out. Told by `explain`, by `rollout
watch` and on the page; the leader may see the same moment a cycle later, and differently.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controller.model import (
    Decision,
    Deployment,
    Route,
    RouteChange,
    RouteId,
    RouteStatus,
    SubStep,
)
from controller.rollout import destroy, machine, scale
from controller.rollout.cycle import Cycle, StoodStill
from controller.rollout.give_up import ATTEMPTS_MAX, RULE
from controller.rollout.table import Ending, Rule, first
from controller.wording import replicas, span


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What comes next."""

    rule: str
    text: str
    """What it does or waits for, without the time that passes."""
    left_s: float | None = None
    """How much longer it waits; None: no clock ends it."""

    @property
    def sentence(self) -> str:
        """Return all of it."""
        left = "" if self.left_s is None else f", for another {span(self.left_s)}"
        return f"{self.rule}: {self.text}{left}"


def nobody() -> Iterator[RouteId]:
    """Yield ids for replicas that are imagined only."""
    while True:
        yield RouteId("imagined")


def turn_of(
    route: Route,
    deployment: Deployment,
    routes: Sequence[Route],
    now_ms: int,
    *,
    failed: int,
    held: bool,
    still: StoodStill,
) -> RouteChange | None:
    """Return what the step over `deployment` makes of one of its `routes` at its next run.

    The arguments are those of `machine.step`. Rules that fail make nothing of it.
    """
    try:
        decision = (
            machine.step(
                deployment, routes, now_ms, failed=failed, fresh=nobody(), held=held, still=still
            )
            or scale.step(deployment, routes, fresh=nobody())
            or destroy.step(deployment, routes)
        )
    except Exception:  # noqa: BLE001 - a rule that fails may raise anything; `explain` of it tells
        return None
    changes = () if decision is None else decision.routes
    return next((change for change in changes if change.route.id == route.id), None)


def outlook(cycle: Cycle) -> Outlook:
    """Ask the rules; `cycle` has ids that nobody uses.

    Who asks why a rollout stands is told so when its rules fail, too.
    """
    try:
        return _of_rules(cycle)
    except Exception as error:  # noqa: BLE001 - a rule that fails may raise anything
        ends = "it ends as it is" if cycle.going_back else "it turns back"
        return Outlook(
            rule=RULE,
            text=f"its rules fail with {type(error).__name__}: {error}; {ends} after "
            f"{ATTEMPTS_MAX} failures in a row, or when its time is over",
        )


def _of_rules(cycle: Cycle) -> Outlook:
    rule = first(machine.rules_of(cycle), cycle)
    left_ms = None if rule.left_ms is None else rule.left_ms(cycle)
    return Outlook(
        rule=rule.name,
        text=_text(cycle, rule),
        left_s=None if left_ms is None else max(0.0, left_ms / 1000),
    )


def _text(cycle: Cycle, rule: Rule) -> str:
    if rule.asks:
        name = cycle.deployment.name
        return f"{rule.says}; to go on: fleetpulse rollout {rule.asks} {name}"
    if rule.left_ms is not None:
        return rule.says
    if isinstance(rule.to, Ending) or rule.to is SubStep.ROLLING_BACK:
        return f"{rule.says}, at its next run"
    decision = rule.then(cycle)
    moves = _moves(cycle, decision)
    if moves or decision.change is not None:
        return moves or rule.says
    return _waits(cycle) or rule.says


def _moves(cycle: Cycle, decision: Decision) -> str:
    gone = [change for change in decision.routes if change.status is RouteStatus.TERMINATING]
    words = []
    if decision.create:
        words.append(f"starts {len(decision.create)} of revision {cycle.wanted.number}")
    if gone:
        words.append(f"drains {len(gone)} of others")
    shifted = len(decision.routes) - len(gone)
    if shifted:
        words.append(f"changes the traffic of {replicas(shifted)}")
    return f"{' and '.join(words)} at its next run" if words else ""


def _waits(cycle: Cycle) -> str:
    counted, target, wanted = cycle.counted, cycle.bounds.target, cycle.wanted
    if wanted.spec.external and len(counted.wanted) < target:
        missing = target - len(counted.wanted)
        name = cycle.deployment.name
        return f"waits for {missing} to be registered: fleetpulse route register {name}"
    unready = len(counted.wanted) - counted.ready_wanted
    if unready:
        return f"waits for {replicas(unready)} of revision {wanted.number} to become ready"
    return ""
