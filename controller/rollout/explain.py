"""Why a deployment is where it is, and what it waits for; the text of `fleetpulse explain NAME`.

Pure, and only told: `machine`, `scale` and `destroy` decide.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from controller.explanation import (
    Clockwork,
    Count,
    Explanation,
    Gate,
    Happened,
    Step,
    in_words,
    newest_of,
)
from controller.model import Deployment, Lifecycle, Route, SubStep
from controller.rollout import machine, scale
from controller.rollout.backoff import BackOff
from controller.rollout.cycle import Cycle, StoodStill, failed_max, never_still
from controller.rollout.outlook import nobody, outlook
from controller.rollout.progress import Clock, deadline
from controller.wording import replicas, span


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that is known around one deployment."""

    deployment: Deployment
    routes: Sequence[Route]
    """Those that are not terminal."""
    failed: int
    """New replicas that the rollout in flight has lost."""
    history: Sequence[Happened]
    """The newest first."""
    now_ms: int
    holds: Sequence[Gate]
    clockwork: Clockwork
    wait: BackOff | None = None
    """What keeps the next replica from being made: the last ones ended early."""
    still: StoodStill = never_still
    """For how long HOLD has stopped the clocks: deadlines move by that (S15)."""
    notes: Sequence[str] = ()
    """What is not told, and why."""

    @property
    def cycle(self) -> Cycle | None:
        """Return what the rules of the rollout in flight see."""
        return machine.look(
            self.deployment,
            self.routes,
            self.now_ms,
            failed=self.failed,
            fresh=nobody(),
            held=bool(self.holds),
            still=self.still,
        )


def explain_deployment(scene: Scene) -> Explanation:
    """Tell all of it."""
    deployment = scene.deployment
    rule, tried = newest_of(scene.history)
    facts = Explanation(
        kind="deployment",
        id=deployment.id,
        deployment=deployment.name,
        title=f"deployment {deployment.name}",
        state=_state(deployment),
        since_ms=deployment.phase_entered_at_ms,
        now_ms=scene.now_ms,
        counts=tuple(_counts(scene)),
        rule=rule,
        tried=tried,
        gates=tuple(_gates(scene)),
        next=tuple(_steps(scene)),
    )
    return in_words(facts, where=_revisions(deployment), notes=_notes(scene))


def _state(deployment: Deployment) -> str:
    lifecycle, sub_step = deployment.lifecycle.value, deployment.sub_step
    return (lifecycle if sub_step is None else f"{lifecycle}/{sub_step}").replace("_", " ")


def _revisions(deployment: Deployment) -> str:
    current, deploying = deployment.current, deployment.deploying
    serves = "no revision has served yet" if current is None else f"revision {current.number}"
    if deploying is None:
        return f", {serves}"
    if deployment.sub_step is SubStep.ROLLING_BACK:
        return f", back from revision {deploying.number} to {serves}"
    return f", from {serves} to revision {deploying.number}"


def _gates(scene: Scene) -> Iterator[Gate]:
    if scene.deployment.lifecycle is Lifecycle.DEPLOYING:
        yield from scene.holds
    if scene.wait is not None:
        left_s = (scene.wait.until_ms - scene.now_ms) / 1000
        yield Gate(name="back-off", text=scene.wait.message, waits_for=span(left_s))


def _notes(scene: Scene) -> Iterator[str]:
    """Tell of HOLD where it holds no step of the deployment itself."""
    if scene.deployment.lifecycle is Lifecycle.READY:
        for gate in scene.holds:
            yield f"{gate.name}: {gate.text}; nobody is evicted meanwhile, its count is kept"
    yield from scene.notes


# Numbers beside their limits.


def _counts(scene: Scene) -> Iterator[Count]:
    target = scene.deployment.target_count
    ready = sum(route.ready for route in scene.routes)
    text = f"{ready} of {target} replicas ready: {_by_state(scene.routes)}"
    yield Count(name="ready", value=ready, limit=target, text=text)
    cycle = scene.cycle
    if cycle is None:
        return
    yield from _progress(cycle)
    active = sum(route.active for route in scene.routes)
    bounds = cycle.bounds
    text = f"{active} of {bounds.max_total} active (target {target} + surge {bounds.surge})"
    yield Count(name="max_total", value=active, limit=bounds.max_total, text=text)
    text = f"{ready} ready, at least {bounds.min_avail} are kept (unavailable {bounds.unavailable})"
    yield Count(name="min_avail", value=ready, limit=bounds.min_avail, text=text)
    yield _deadline(cycle)


def _by_state(routes: Sequence[Route]) -> str:
    states = Counter(
        "ready" if r.ready else f"{r.status} {r.stage or r.health}".replace("_", " ")
        for r in routes
    )
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"


def _progress(cycle: Cycle) -> Iterator[Count]:
    target, mine = cycle.bounds.target, cycle.counted
    text = (
        f"{mine.ready_wanted} of {target} of revision {cycle.wanted.number} ready, "
        f"{mine.provisioning} starting, {len(mine.others)} of others left"
    )
    yield Count(name="progress", value=mine.ready_wanted, limit=target, text=text)
    if not cycle.going_back:
        most = failed_max(cycle.policy, target)
        text = f"{cycle.failed} of {most} new replicas lost before it stops (max_failed_replicas)"
        yield Count(name="max_failed_replicas", value=cycle.failed, limit=most, text=text)


def _deadline(cycle: Cycle) -> Count:
    """Return the clock of the phase: the whole rollout's, or that of going back."""
    clock = deadline(cycle)
    ends = "it ends as it is" if cycle.going_back else "it turns back"
    spent_s = clock.timeout_s - clock.left_s
    text = f"{span(spent_s)} of {span(clock.timeout_s)} before {ends} (rollout_timeout_s)"
    since_ms = _began_ms(cycle)
    still_ms = cycle.still(since_ms, cycle.now_ms)
    held = f", {span(still_ms / 1000)} of HOLD not counted" if still_ms else ""
    return Count(
        name="rollout_timeout_s",
        value=round(spent_s, 3),
        limit=clock.timeout_s,
        text=f"{text}{held}",
    )


def _began_ms(cycle: Cycle) -> int:
    """Return when the phase began whose clock runs."""
    if cycle.going_back:
        return cycle.deployment.phase_entered_at_ms
    return cycle.rollout.started_at_ms


# What comes next.


def _steps(scene: Scene) -> Iterator[Step]:
    deployment = scene.deployment
    match deployment.lifecycle:
        case Lifecycle.PENDING:
            text = "nothing until a revision is activated: fleetpulse rollout start"
            yield Step(text=f"{text} {deployment.name} NUMBER")
        case Lifecycle.READY:
            yield _at_rest(scene)
            yield from _kept(scene)
        case Lifecycle.DEPLOYING:
            yield from _moving(scene)
        case Lifecycle.DESTROYING:
            left = len(scene.routes)
            yield Step(text=f"it is gone when its last replica has ended: {left} left")
        case Lifecycle.DESTROYED:
            yield Step(text="nothing: it never comes back; its name is free")
        case _ as never:
            assert_never(never)


def _kept(scene: Scene) -> Iterator[Step]:
    """Tell what is there to switch back to, and for how long."""
    deployment = scene.deployment
    kept, until_ms = deployment.kept, deployment.kept_until_ms
    if kept is None or until_ms is None:
        return
    count = sum(route.ready and route.revision_id == kept.id for route in scene.routes)
    left_s = max(0.0, (until_ms - scene.now_ms) / 1000)
    text = (
        f"{replicas(count)} of revision {kept.number} kept for another {span(left_s)} to switch "
        f"back to: fleetpulse rollout rollback {deployment.name}"
    )
    yield Step(text=text, within_s=left_s)


def _at_rest(scene: Scene) -> Step:
    deployment, current = scene.deployment, scene.deployment.current
    mine = [r for r in scene.routes if r.active and current and r.revision_id == current.id]
    missing = deployment.target_count - len(mine)
    within = f"(check_replicas, within {span(scene.clockwork.period_s['check_replicas'])})"
    if missing > 0 and current is not None and current.spec.external:
        text = f"{missing} to be registered: fleetpulse route register {deployment.name}"
        return Step(text=text)
    if missing > 0:
        wait_s = 0.0 if scene.wait is None else (scene.wait.until_ms - scene.now_ms) / 1000
        after = f", not before {span(wait_s)}" if wait_s else ""
        text = f"{replicas(missing)} to be started {within}{after}"
        return Step(text=text, within_s=wait_s)
    if missing < 0:
        return Step(text=f"{replicas(-missing)} to be drained {within}", within_s=0.0)
    decision = scale.step(deployment, scene.routes, fresh=nobody())
    if decision is not None and decision.routes:
        text = f"{replicas(len(decision.routes))} to get the traffic that a rollout left them"
        return Step(text=f"{text} without {within}", within_s=0.0)
    waiting = sum(not route.ready for route in mine)
    if waiting:
        text = f"{replicas(waiting)} not ready: explain them, see fleetpulse route list"
        return Step(text=f"{text} {deployment.name}")
    return Step(text="nothing: it is as wanted")


def _moving(scene: Scene) -> Iterator[Step]:
    cycle = scene.cycle
    if cycle is None:
        period_s = scene.clockwork.period_s["deploying"]
        text = f"it has nothing to deploy, and is set back (deploying, within {span(period_s)})"
        yield Step(text=text, within_s=0.0)
        return
    coming, clock = outlook(cycle), deadline(cycle)
    yield Step(text=coming.sentence, within_s=coming.left_s)
    stops = {Clock.RUNS: "", Clock.HELD: "it is held", Clock.PAUSED: "it is paused"}[clock.clock]
    but = f", and not while {stops}" if stops else ""
    end = "it ends with what it has" if cycle.going_back else "it turns back"
    text = f"if it is not done, {end} in {span(clock.left_s)} at the earliest{but}"
    yield Step(text=text, within_s=None if stops else clock.left_s)
