"""One cycle of a deployment in DEPLOYING, by the table of its rollout's strategy.

State in, decision out; called by the handler `deploying`. While held, nothing expires and nothing
is rolled back: what is seen may not be true.
"""

from collections.abc import Iterator, Sequence

from controller.model import Decision, Deployment, Lifecycle, Route, RouteId, SubStep
from controller.rollout import endings
from controller.rollout.counting import bounds_back, tally
from controller.rollout.cycle import Cycle, StoodStill, never_still
from controller.rollout.strategies import strategy_of
from controller.rollout.table import Rule, decide


def step(
    deployment: Deployment,
    routes: Sequence[Route],
    now_ms: int,
    *,
    failed: int,
    fresh: Iterator[RouteId],
    held: bool = False,
    still: StoodStill = never_still,
) -> Decision | None:
    """Return what this cycle changes for one deployment; None when it is not in DEPLOYING.

    `routes` are the deployment's that are not terminal; `failed` is how many routes the rollout
    has lost on its new side; `fresh` yields unused ids, as many as are asked for; `still` tells
    for how long HOLD stopped the clocks between two moments: deadlines move by that (S15).
    """
    if deployment.lifecycle is not Lifecycle.DEPLOYING:
        return None
    cycle = look(deployment, routes, now_ms, failed=failed, fresh=fresh, held=held, still=still)
    return endings.repair(deployment) if cycle is None else decide(rules_of(cycle), cycle)


def rules_of(cycle: Cycle) -> Sequence[Rule]:
    """Return the rules that decide in this cycle, the way forward or the way back."""
    strategy = strategy_of(cycle.policy)
    return strategy.back if cycle.going_back else strategy.forward


def look(
    deployment: Deployment,
    routes: Sequence[Route],
    now_ms: int,
    *,
    failed: int,
    fresh: Iterator[RouteId],
    held: bool = False,
    still: StoodStill = never_still,
) -> Cycle | None:
    """Return what the rules see; None where there is nothing to deploy."""
    rollout, deploying = deployment.rollout, deployment.deploying
    if rollout is None or deploying is None:
        return None
    strategy = strategy_of(rollout.policy)
    bounds = strategy.bounds(rollout.policy, deployment.target_count)
    wanted = deploying
    if deployment.sub_step is SubStep.ROLLING_BACK and deployment.current is not None:
        wanted, bounds = deployment.current, bounds_back(bounds)
    counted = tally(routes, wanted.id, now_ms=now_ms, min_ready_s=rollout.policy.min_ready_s)
    return Cycle(
        deployment=deployment,
        rollout=rollout,
        deploying=deploying,
        wanted=wanted,
        routes=routes,
        counted=counted,
        bounds=bounds,
        now_ms=now_ms,
        failed=failed,
        held=held,
        still=still,
        fresh=fresh,
        serves_at_once=strategy.serves_at_once,
    )
