"""What happens to a route next, and when at the earliest; for `explain`."""

from typing import Final, assert_never

from controller.explanation import Step
from controller.model import Deployment, Health, HealthCheck, Lifecycle, RouteStatus, Stage
from controller.route.evict import known_revisions
from controller.route.gates import EXTERNAL, evictions
from controller.route.guard import evidence_of
from controller.route.scene import Scene
from controller.route.shed import is_shed
from controller.wording import span

HURRY: Final = 4
"""A probe that decides a verdict may come this much sooner than the interval,"""
HURRY_MIN_S: Final = 0.5
"""but not sooner than this."""


def steps(scene: Scene) -> tuple[Step, ...]:
    """Return what may happen next."""
    route, deployment = scene.route, scene.deployment
    if deployment is not None and route.active:
        if deployment.lifecycle is Lifecycle.DESTROYING:
            return (_at_next_run(scene, "destroying", "its deployment is deleted: it drains"),)
        if scene.orphaned:
            return (_orphan(scene, deployment),)
    match route.status:
        case RouteStatus.PROVISIONING:
            return _provisioning(scene)
        case RouteStatus.RUNNING:
            return _running(scene)
        case RouteStatus.TERMINATING:
            return _terminating(scene)
        case RouteStatus.TERMINATED | RouteStatus.FAILED_TO_START:
            return (Step(text=_replacement(deployment)),)
        case _ as never:
            assert_never(never)


def _at_next_run(scene: Scene, handler: str, what: str) -> Step:
    period_s = scene.clockwork.period_s[handler]
    return Step(text=f"{what} ({handler}, within {span(period_s)})", within_s=0.0)


def _orphan(scene: Scene, deployment: Deployment) -> Step:
    numbers = " and ".join(str(r.number) for r in known_revisions(deployment).values())
    what = f"it leaves: the deployment uses revision {numbers}, it is of {scene.revision}"
    if deployment.lifecycle is Lifecycle.DEPLOYING:
        return _at_next_run(scene, "deploying", f"{what}, and goes within the rollout's bounds")
    left_s = scene.clockwork.period_s["evict"] - _age_s(scene)
    if left_s > 0:
        return Step(text=f"{what} (evict, not before {span(left_s)})", within_s=left_s)
    return _at_next_run(scene, "evict", what)


def _age_s(scene: Scene) -> float:
    return (scene.now_ms - scene.route.created_at_ms) / 1000


def _provisioning(scene: Scene) -> tuple[Step, ...]:
    route, check = scene.route, scene.route.health_check
    stay_s = scene.stay_s
    if route.stage is Stage.PENDING:
        return (_at_next_run(scene, "provision", "it is handed to the provisioner"),)
    if route.stage is Stage.STARTING:
        left_s = max(0.0, scene.clockwork.starting_timeout_s - stay_s)
        return (
            _at_next_run(scene, "check_starting", "with an address it warms up, and is probed"),
            Step(text=f"without one it is given up in {span(left_s)}", within_s=left_s),
        )
    if check is None:
        return (_at_next_run(scene, "check_warming_up", "it serves: there is nothing to check"),)
    left_s = max(0.0, check.initial_delay_s - stay_s)
    held = ", and not while it is held" if scene.bars.hold else ""
    return (
        Step(text=f"it serves after {_passes(check)}; {_next_probe(scene, check)}"),
        Step(
            text=f"without, it is given up in {span(left_s)} at the earliest{held}",
            within_s=None if held else left_s,
        ),
    )


def _passes(check: HealthCheck) -> str:
    needed = check.healthy_threshold
    return "the first passing probe" if needed == 1 else f"{needed} passing probes in a row"


def _next_probe(scene: Scene, check: HealthCheck) -> str:
    watcher = scene.watcher
    if watcher is None or watcher.sick:
        return "nobody probes it now"
    return f"the next probe is due within {span(check.interval_s * watcher.interval_stretch)}"


def _running(scene: Scene) -> tuple[Step, ...]:
    route, check = scene.route, scene.route.health_check
    if check is None:
        return (Step(text="nothing: it serves until it is drained, or its session ends"),)
    again = _recovery(scene, check)
    listed = (
        scene.deployment is not None and route.health in scene.deployment.cleanup_target_statuses
    )
    match route.health:
        case Health.HEALTHY:
            return (_decline(scene, check),)
        case Health.UNHEALTHY | Health.DEGRADED if listed:
            return (again, *_stopped(scene), _eviction(scene))
        case Health.UNHEALTHY:
            text = "it stays: cleanup_target_statuses of its deployment does not list unhealthy"
            return (again, *_stopped(scene), Step(text=text))
        case Health.DEGRADED:
            text = "it stays as it is: not to know is no reason to take it out"
            return (again, Step(text=text))
        case Health.NOT_CHECKED:
            return (Step(text=f"its first verdict; {_next_probe(scene, check)}"),)
        case _ as never:
            assert_never(never)


def _recovery(scene: Scene, check: HealthCheck) -> Step:
    return Step(text=f"it is HEALTHY again after {_passes(check)}; {_next_probe(scene, check)}")


def _stopped(scene: Scene) -> tuple[Step, ...]:
    if not is_shed(scene.route):
        return ()
    return (Step(text="until then it gets no new requests; half of its deployment always does"),)


def _decline(scene: Scene, check: HealthCheck) -> Step:
    evidence = evidence_of(scene.route, scene.bars.view)
    failures = 0 if evidence is None else evidence.status.consecutive_failures
    if not failures:
        return Step(text=f"nothing: it serves; {_next_probe(scene, check)}")
    left = check.max_retries - failures
    if left <= 0:
        return _at_next_run(scene, "classify_health", "it is UNHEALTHY once nothing holds that")
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
    what = "else it is taken out for good" + (", once nothing holds that" if gates else "")
    return _at_next_run(scene, "evict", what)


def _terminating(scene: Scene) -> tuple[Step, ...]:
    route = scene.route
    if route.stage is Stage.DRAINING:
        what = "it is out of traffic, and gets its grace period"
        return (_at_next_run(scene, "drain", what),)
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
    return (
        "nothing: it never comes back; another one is started while fewer than "
        f"{deployment.target_count} are active"
    )
