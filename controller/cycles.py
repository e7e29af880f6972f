"""Every rollout in flight of one snapshot, as its rules see it; for those who only look.

For the gauges and for `rollout watch`. The leader's own cycles are `machine.step`'s affair.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from controller.model import DeploymentId, HoldSpan, Lifecycle, Route, Snapshot
from controller.rollout import machine
from controller.rollout.cycle import Cycle
from controller.rollout.outlook import nobody
from controller.route.guard.clocks import stood_still_ms


def cycles(snapshot: Snapshot, *, skip_failing: bool = False) -> Iterator[Cycle]:
    """Yield what the rules see of each deployment that has a rollout in flight.

    `skip_failing` leaves out those whose strategy raises, for a look at all of them.
    """
    moving = {
        each.id: each
        for each in snapshot.deployments.values()
        if each.lifecycle is Lifecycle.DEPLOYING
    }
    found: dict[DeploymentId, list[Route]] = {}
    for route in snapshot.routes:
        if route.deployment_id in moving:
            found.setdefault(route.deployment_id, []).append(route)
    for each in moving.values():
        try:
            cycle = machine.look(
                each,
                found.get(each.id, []),
                snapshot.now_ms,
                failed=snapshot.failed_counts.get(each.rollout.id, 0) if each.rollout else 0,
                fresh=nobody(),
                held=held(snapshot.holds, each.id),
                still=partial(still_ms, snapshot.holds, each.id),
            )
        except Exception:  # a strategy that fails; the handler of rollouts tells of it and ends it
            if not skip_failing:
                raise
            continue
        if cycle is not None:
            yield cycle


def held(spans: Sequence[HoldSpan], deployment_id: DeploymentId) -> bool:
    """Tell whether a HOLD that was recorded lasts."""
    return any(one.to_ms is None and one.deployment_id in (None, deployment_id) for one in spans)


def still_ms(
    spans: Sequence[HoldSpan], deployment_id: DeploymentId, since_ms: int, until_ms: int
) -> int:
    """Return for how long HOLD stopped a deployment's clocks between two moments."""
    return stood_still_ms(spans, deployment_id, since_ms=since_ms, until_ms=until_ms)
