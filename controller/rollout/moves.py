"""What rules do: wait, create and drain within bounds, enter a phase.

Shared by the rules of every strategy. Each returns one decision, applied whole or not at all.
"""

from collections.abc import Sequence
from dataclasses import replace

from controller.model import (
    Decision,
    DeploymentChange,
    Lifecycle,
    Note,
    Route,
    RouteChange,
    RouteStatus,
    SubStep,
    Traffic,
)
from controller.rollout.cycle import Cycle
from controller.rollout.endings import BACK, FORWARD
from controller.rollout.replicas import create, drain, waiting


def category(cycle: Cycle) -> str:
    """Return whose history a decision goes into."""
    return BACK if cycle.going_back else FORWARD


def wait(cycle: Cycle, why: str = "", *, word: str = "waiting") -> Decision:
    """Do nothing, and say what for; a phase that was never entered is."""
    text = f"{word}: {cycle.state}" + (f"; {why}" if why else "")
    if cycle.deployment.sub_step is None:
        return enter(cycle, SubStep.PROVISIONING, why=text)
    note = waiting(cycle.deployment, category=category(cycle), message=text)
    return Decision(deployment=cycle.deployment, notes=(note,))


def enter(
    cycle: Cycle, phase: SubStep, *, why: str, routes: Sequence[RouteChange] = ()
) -> Decision:
    """Enter a phase, and change routes in the same moment."""
    change = DeploymentChange(
        category=category(cycle), message=why, lifecycle=Lifecycle.DEPLOYING, sub_step=phase
    )
    return Decision(deployment=cycle.deployment, routes=tuple(routes), change=change)


def move(cycle: Cycle, *, count: int, gone: Sequence[Route], why: str = "") -> Decision:
    """Create `count` replicas of the revision wanted, and drain others."""
    deployment, counted, bounds = cycle.deployment, cycle.counted, cycle.bounds
    active = len(counted.wanted) + len(counted.others)
    new = create(
        deployment,
        cycle.wanted,
        count,
        fresh=cycle.fresh,
        serves=cycle.serves_at_once or cycle.going_back,
        message=f"one of {count} new replicas of revision {cycle.wanted.number}: {active} are "
        f"active, at most {bounds.max_total} may be ({bounds.target} + surge {bounds.surge})",
    )
    left = drain(
        gone,
        category=category(cycle),
        message=f"makes way for revision {cycle.wanted.number}: {counted.ready} are ready, at "
        f"least {bounds.min_avail} stay so ({bounds.target} - unavailable {bounds.unavailable})",
    )
    if not new and not left:  # replicas that are registered by hand are waited for
        return wait(cycle, why)
    did = f"creates {len(new)}, drains {len(left)}; {cycle.state}"
    phase = _phase_entered(cycle, moving=bool(counted.ready_wanted or left))
    if phase is None:
        return replace(shifted(cycle, left, did), create=new)
    return replace(enter(cycle, phase, why=did, routes=left), create=new)


def serve(cycle: Cycle, route: Route, ratio: float) -> RouteChange:
    """Give a route its share of the traffic."""
    return RouteChange(
        route=route,
        category=category(cycle),
        message=f"gets {ratio:.0%} of the traffic: {cycle.state}",
        status=RouteStatus.RUNNING,
        traffic=Traffic.ACTIVE,
        traffic_ratio=ratio,
    )


def shifted(cycle: Cycle, routes: Sequence[RouteChange], why: str) -> Decision:
    """Change routes within a phase, and leave a line in the history of the deployment."""
    note = Note(
        deployment_id=cycle.deployment.id,
        route_id=None,
        category=category(cycle),
        message=why,
        result="progress",
    )
    return Decision(deployment=cycle.deployment, routes=tuple(routes), notes=(note,))


def _phase_entered(cycle: Cycle, *, moving: bool) -> SubStep | None:
    """Return the phase this move enters; None: it stays. None is entered twice."""
    match cycle.deployment.sub_step:
        case None | SubStep.PROVISIONING if moving:
            return SubStep.PROGRESSING
        case None:
            return SubStep.PROVISIONING
        case _:
            return None
