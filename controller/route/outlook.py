"""What happens to a route next, and when at the earliest; for `explain`."""

from collections.abc import Iterator, Mapping
from typing import Final, assert_never

from controller.explanation import Step
from controller.model import (
    Deployment,
    Health,
    HealthCheck,
    Lifecycle,
    Route,
    RouteChange,
    RouteStatus,
    Stage,
    SubStep,
)
from controller.route import classify, warmup
from controller.route.gates import EXTERNAL, evictions, of_orphan
from controller.route.guard import HoldCause, blind_to, evidence_of
from controller.route.orphans import known_revisions
from controller.route.scene import Scene
from controller.route.shed import is_shed
from controller.wording import span
from probe.wire import OutcomeKind

HURRY: Final = 4
"""A probe that decides a verdict may come this much sooner than the interval,"""
HURRY_MIN_S: Final = 0.5
"""but not sooner than this."""
_STEPS: Final[Mapping[Lifecycle, str]] = {
    Lifecycle.READY: "check_replicas",
    Lifecycle.DEPLOYING: "deploying",
    Lifecycle.DESTROYING: "destroying",
}
"""The handler whose turn it is over a whole deployment."""
_STAYS: Final[Mapping[Health, str]] = {
    Health.UNHEALTHY: "it stays: cleanup_target_statuses of its deployment does not list unhealthy",
    Health.DEGRADED: "it stays as it is: not to know is no reason to take it out",
}


def steps(scene: Scene) -> tuple[Step, ...]:
    """Return what may happen next."""
    match scene.route.status:
        case RouteStatus.PROVISIONING | RouteStatus.RUNNING:
            return _active(scene)
        case RouteStatus.TERMINATING:
            return _terminating(scene)
        case RouteStatus.TERMINATED | RouteStatus.FAILED_TO_START:
            return (Step(text=_replacement(scene.deployment)),)
        case _ as never:
            assert_never(never)


def leaves(turn: RouteChange | None) -> bool:
    """Tell whether the step over its deployment sends a route away."""
    return turn is not None and turn.status is RouteStatus.TERMINATING


def is_refused(route: Route, deployment: Deployment) -> bool:
    """Tell whether a route is never started: its revision is neither current nor deploying."""
    pointers = (deployment.current, deployment.deploying)
    return route.stage is Stage.PENDING and route.revision_id not in {r.id for r in pointers if r}


def is_listed(scene: Scene) -> bool:
    """Tell whether the health policy lists a route as it is now."""
    route, deployment = scene.route, scene.deployment
    return (
        deployment is not None
        and route.status is RouteStatus.RUNNING
        and route.health in deployment.cleanup_target_statuses
        and route.revision_id in known_revisions(deployment)
    )


def verdict(scene: Scene) -> classify.Verdict | None:
    """Return the health that a RUNNING route gets, but for a HOLD; None: the one it has."""
    if scene.route.status is not RouteStatus.RUNNING:
        return None
    return classify.classify(scene.route, scene.bars.view, hold=frozenset())


def _at_next_run(scene: Scene, handler: str, what: str) -> Step:
    period_s = scene.clockwork.period_s[handler]
    return Step(text=f"{what} ({handler}, within {span(period_s)})", within_s=0.0)


def _once(held: object) -> str:
    return ", once nothing holds that" if held else ""


def _active(scene: Scene) -> tuple[Step, ...]:
    route, deployment = scene.route, scene.deployment
    turn = () if deployment is None else tuple(_turn(scene, deployment))
    if leaves(scene.turn):
        return turn
    if scene.orphaned and deployment is not None:
        gone, at_once = _orphan(scene, deployment)
        if at_once:
            return (gone,)
        turn = (*turn, gone)
    if route.status is RouteStatus.PROVISIONING:
        return (*turn, *_provisioning(scene))
    return (*turn, *_running(scene))


def _turn(scene: Scene, deployment: Deployment) -> Iterator[Step]:
    """Tell what the step over the whole deployment makes of it."""
    if scene.turn is None:
        return
    name = _STEPS[deployment.lifecycle]
    if deployment.lifecycle is Lifecycle.DESTROYING:
        yield _at_next_run(scene, name, "its deployment is deleted: it drains")
        return
    what = "it drains" if leaves(scene.turn) else "its traffic changes"
    yield _at_next_run(scene, name, f"{what}: {scene.turn.message}")


def _orphan(scene: Scene, deployment: Deployment) -> tuple[Step, bool]:
    """Tell when a route of a revision that nobody uses leaves, and whether nothing comes before."""
    numbers = " and ".join(str(r.number) for r in known_revisions(deployment).values())
    what = f"it leaves: the deployment uses revision {numbers}, it is of {scene.revision}"
    if is_refused(scene.route, deployment):
        return _at_next_run(scene, "provision", what), True
    once = _once([*of_orphan(scene.route, scene.bars)])
    left_s = scene.clockwork.period_s["evict"] - _age_s(scene)
    if left_s >= 0:
        text = f"{what} (evict, not before {span(left_s)}){once}"
        return Step(text=text, within_s=left_s), False
    return _at_next_run(scene, "evict", what + once), not once


def _age_s(scene: Scene) -> float:
    return (scene.now_ms - scene.route.created_at_ms) / 1000


def _provisioning(scene: Scene) -> tuple[Step, ...]:
    route, check = scene.route, scene.route.health_check
    if route.stage is Stage.WARMING_UP:
        return _warming(scene, check)
    left_s = max(0.0, scene.clockwork.starting_timeout_s - scene.stay_s)
    if route.stage is Stage.PENDING:
        step, lacks = _at_next_run(scene, "provision", "it is handed to the provisioner"), "answer"
    else:
        what = "with an address it warms up, and is probed"
        step, lacks = _at_next_run(scene, "check_starting", what), "address"
    late = f"without an {lacks} it is given up in {span(left_s)}"
    return (step, Step(text=late, within_s=left_s))


def _warming(scene: Scene, check: HealthCheck | None) -> tuple[Step, ...]:
    route, deployment, bars = scene.route, scene.deployment, scene.bars
    if check is None or deployment is None:
        return (_at_next_run(scene, "check_warming_up", "it serves: there is nothing to check"),)
    held = {*bars.hold, *({HoldCause.DEPLOYMENT_BREAKER} if bars.held else ())}
    now_ms, still_ms = scene.now_ms, scene.still_ms
    due = warmup.decide(route, deployment, bars.view, now_ms=now_ms, hold=held, still_ms=still_ms)
    if due is not None:
        what = "it serves" if due.status is RouteStatus.RUNNING else "it is given up"
        return (_at_next_run(scene, "check_warming_up", f"{what}: {due.message}"),)
    left_s = max(0.0, check.initial_delay_s - scene.warmed_s)
    stops = _stops(scene, held=bool(held))
    but = f", and not {stops}" if stops else ""
    return (
        Step(text=f"it serves after {_passes(check)}; {_next_probe(scene, check)}"),
        Step(
            text=f"without, it is given up in {span(left_s)} at the earliest{but}",
            within_s=None if stops else left_s,
        ),
    )


def _stops(scene: Scene, *, held: bool) -> str:
    """Say what keeps a route that warms up from being given up, whatever time passes."""
    route, view = scene.route, scene.bars.view
    evidence = evidence_of(route, view)
    if held:
        return "while it is held"
    if blind_to(route, view):
        return "while nobody looks"
    if evidence is None or evidence.age_s > scene.stay_s:
        return ""
    return "" if evidence.status.outcome is OutcomeKind.FAILED else "before a probe fails"


def _passes(check: HealthCheck) -> str:
    needed = check.healthy_threshold
    return "the first passing probe" if needed == 1 else f"{needed} passing probes in a row"


def _next_probe(scene: Scene, check: HealthCheck) -> str:
    watcher = scene.watcher
    if watcher is None or watcher.sick:
        return "nobody probes it now"
    return f"the next probe is due within {span(check.interval_s * watcher.interval_stretch)}"


def _running(scene: Scene) -> tuple[Step, ...]:
    place, check = tuple(_place(scene)), scene.route.health_check
    ending = (_eviction(scene),) if is_listed(scene) else ()
    if check is None:
        rest = "nothing: it serves until it is drained, or its session ends"
        return (*place, *ending) or (() if scene.orphaned else (Step(text=rest),))
    return (*place, *_judged(scene, check, alone=not (place or scene.orphaned)), *ending)


def _place(scene: Scene) -> Iterator[Step]:
    """Tell what its deployment has in mind for a replica that need not fail for it."""
    route, deployment = scene.route, scene.deployment
    if deployment is None or scene.turn is not None or scene.orphaned:
        return
    see = f"fleetpulse explain {deployment.name}"
    kept, wanted = deployment.kept, deployment.deploying
    if deployment.sub_step is SubStep.ROLLING_BACK and deployment.current is not None:
        wanted = deployment.current
    if wanted is not None and route.revision_id != wanted.id:
        yield Step(text=f"it makes way for revision {wanted.number} in its rollout: {see}")
    elif wanted is not None and not route.traffic_ratio:
        yield Step(text=f"its rollout gives it traffic when it is time: {see}")
    elif kept is not None and route.revision_id == kept.id:
        yield Step(text=f"it is kept without traffic, to switch back to: {see}")


def _judged(scene: Scene, check: HealthCheck, *, alone: bool) -> Iterator[Step]:
    """Tell what probes make of a RUNNING route; `alone`: nothing else comes next."""
    route = scene.route
    new = verdict(scene)
    if new is not None:
        yield _new_health(scene, new)
    elif route.health is Health.NOT_CHECKED:
        yield Step(text=f"its first verdict; {_next_probe(scene, check)}")
    failing = route.health is not Health.UNHEALTHY and new is None and _failures(scene)
    if failing:
        yield _decline(check, failing)
    elif route.health is Health.HEALTHY and new is None:
        rest = "nothing: it serves; " if alone else ""
        yield Step(text=f"{rest}{_next_probe(scene, check)}")
    if route.health not in (Health.UNHEALTHY, Health.DEGRADED):
        return
    if new is None or new.health is not Health.HEALTHY:
        text = f"it is HEALTHY again after {_passes(check)}; {_next_probe(scene, check)}"
        yield Step(text=text)
    if is_shed(route):
        yield Step(text="until then it gets no new requests; half of its deployment always does")
    if new is None and not failing and not is_listed(scene):
        yield Step(text=_STAYS[route.health])


def _new_health(scene: Scene, new: classify.Verdict) -> Step:
    better = new.health is Health.HEALTHY
    why = f": {new.message}" if new.health is Health.DEGRADED else ""
    once = _once(scene.bars.hold and not better)
    return _at_next_run(scene, "classify_health", f"it is {new.health.upper()}{once}{why}")


def _failures(scene: Scene) -> int:
    evidence = evidence_of(scene.route, scene.bars.view)
    return 0 if evidence is None else evidence.status.consecutive_failures


def _decline(check: HealthCheck, failures: int) -> Step:
    # Past the limit, and the last one was the prober's own fault: the next failure decides.
    left = max(1, check.max_retries - failures)
    soonest_s = left * min(check.interval_s, max(HURRY_MIN_S, check.interval_s / HURRY))
    more = f"{left} more failure{'s' if left > 1 else ''}"
    return Step(
        text=f"it is UNHEALTHY after {more}, in {span(soonest_s)} at the earliest, "
        f"{span(left * check.interval_s)} at its interval",
        within_s=soonest_s,
    )


def _eviction(scene: Scene) -> Step:
    gates = evictions(scene.route, scene.deployment, scene.bars) if scene.deployment else ()
    if any(gate.name == EXTERNAL for gate in gates):
        return Step(text="else it stays")
    return _at_next_run(scene, "evict", f"else it is taken out for good{_once(gates)}")


def _terminating(scene: Scene) -> tuple[Step, ...]:
    route = scene.route
    if route.stage is Stage.DRAINING:
        left_s = max(0.0, scene.clockwork.unregister_timeout_s - scene.stay_s)
        what = "once proxies are told, it gets its grace period"
        late = f"if they cannot be told, it goes on in {span(left_s)}"
        return (_at_next_run(scene, "drain", what), Step(text=late, within_s=left_s))
    stay_s = scene.stay_s
    left_s = max(0.0, scene.clockwork.termination_grace_s - stay_s)
    period_s = scene.clockwork.period_s["terminate"]
    return (
        Step(
            text=f"its session is stopped in {span(left_s)}, or up to {span(period_s)} later "
            "(terminate)",
            within_s=left_s,
        ),
    )


def _replacement(deployment: Deployment | None) -> str:
    if deployment is None or deployment.lifecycle is Lifecycle.DESTROYING:
        return "nothing: it never comes back, and its deployment is gone or going"
    current = deployment.current
    if current is not None and current.spec.external:
        name = deployment.name
        return f"nothing: it never comes back; for another one: fleetpulse route register {name}"
    return (
        "nothing: it never comes back; another one is started while fewer than "
        f"{deployment.target_count} are active"
    )
