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
    lines_of,
    newest_of,
    replicas,
    span,
)
from controller.model import Deployment, Lifecycle, Revision, Rollout, Route, SubStep
from controller.rollout.backoff import BackOff
from controller.rollout.counting import Bounds, bounds_back, steps, tally
from controller.rollout.cycle import failed_max
from controller.rollout.strategies import limits


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
    still_ms: int = 0
    """For how long HOLD has stopped the clock of the phase: its deadline moves by that (S15)."""
    notes: Sequence[str] = ()
    """What is not told, and why."""

    @property
    def rollout(self) -> Rollout | None:
        """Return the rollout in flight."""
        return self.deployment.rollout

    @property
    def began_ms(self) -> int:
        """Return when the phase began whose clock runs: the rollout, or the way back."""
        back = self.deployment.sub_step is SubStep.ROLLING_BACK
        if self.rollout is None or back:
            return self.deployment.phase_entered_at_ms
        return self.rollout.started_at_ms

    @property
    def wanted(self) -> Revision | None:
        """Return the revision that shall serve when all is done."""
        back = self.deployment.sub_step is SubStep.ROLLING_BACK
        return self.deployment.current if back else self.deployment.deploying

    @property
    def bounds(self) -> Bounds:
        """Return how far it may stray from its target count."""
        bounds = limits(self.deployment)
        back = self.deployment.sub_step is SubStep.ROLLING_BACK
        return bounds_back(bounds) if back else bounds


def explain_deployment(scene: Scene) -> Explanation:
    """Tell all of it."""
    deployment = scene.deployment
    rule, tried = newest_of(scene.history)
    counts, coming = tuple(_counts(scene)), tuple(_steps(scene))
    gates = tuple(_gates(scene))
    for_s = (scene.now_ms - deployment.phase_entered_at_ms) / 1000
    return Explanation(
        kind="deployment",
        id=deployment.id,
        deployment=deployment.name,
        title=f"deployment {deployment.name}",
        state=_state(deployment),
        since_ms=deployment.phase_entered_at_ms,
        now_ms=scene.now_ms,
        counts=counts,
        rule=rule,
        tried=tried,
        gates=gates,
        next=coming,
        lines=lines_of(
            f"{_state(deployment)}, for {span(for_s)}{_revisions(deployment)}",
            counts=counts,
            rule=rule,
            tried=tried,
            gates=gates,
            steps=coming,
            now_ms=scene.now_ms,
            notes=scene.notes,
        ),
    )


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
    if scene.deployment.lifecycle is not Lifecycle.DESTROYING:
        yield from scene.holds
    if scene.wait is not None:
        left_s = (scene.wait.until_ms - scene.now_ms) / 1000
        yield Gate(name="back-off", text=scene.wait.message, waits_for=span(left_s))


# Numbers beside their limits.


def _counts(scene: Scene) -> Iterator[Count]:
    target = scene.deployment.target_count
    ready = sum(route.ready for route in scene.routes)
    text = f"{ready} of {target} replicas ready: {_by_state(scene.routes)}"
    yield Count(name="ready", value=ready, limit=target, text=text)
    rollout, wanted = scene.rollout, scene.wanted
    if rollout is None or wanted is None:
        return
    yield from _progress(scene, rollout, wanted)
    active = sum(route.active for route in scene.routes)
    bounds = scene.bounds
    text = f"{active} of {bounds.max_total} active (target {target} + surge {bounds.surge})"
    yield Count(name="max_total", value=active, limit=bounds.max_total, text=text)
    text = f"{ready} ready, at least {bounds.min_avail} are kept (unavailable {bounds.unavailable})"
    yield Count(name="min_avail", value=ready, limit=bounds.min_avail, text=text)
    yield _deadline(scene, rollout)


def _by_state(routes: Sequence[Route]) -> str:
    states = Counter(
        "ready" if r.ready else f"{r.status} {r.stage or r.health}".replace("_", " ")
        for r in routes
    )
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"


def _progress(scene: Scene, rollout: Rollout, wanted: Revision) -> Iterator[Count]:
    target = scene.deployment.target_count
    mine = tally(
        scene.routes, wanted.id, now_ms=scene.now_ms, min_ready_s=rollout.policy.min_ready_s
    )
    text = (
        f"{mine.ready_wanted} of {target} of revision {wanted.number} ready, "
        f"{mine.provisioning} starting, {len(mine.others)} of others left"
    )
    yield Count(name="progress", value=mine.ready_wanted, limit=target, text=text)
    if scene.deployment.sub_step is not SubStep.ROLLING_BACK:
        most = failed_max(rollout.policy, target)
        text = f"{scene.failed} of {most} new replicas lost before it stops (max_failed_replicas)"
        yield Count(name="max_failed_replicas", value=scene.failed, limit=most, text=text)


def _deadline(scene: Scene, rollout: Rollout) -> Count:
    """Return the clock of the phase: the whole rollout's, or that of going back."""
    limit_s = rollout.policy.rollout_timeout_s
    back = scene.deployment.sub_step is SubStep.ROLLING_BACK
    ends = "it ends as it is" if back else "it turns back"
    spent_s = (scene.now_ms - scene.began_ms - scene.still_ms) / 1000
    held = f", {span(scene.still_ms / 1000)} of HOLD not counted" if scene.still_ms else ""
    text = f"{span(spent_s)} of {span(limit_s)} before {ends} (rollout_timeout_s){held}"
    return Count(name="rollout_timeout_s", value=round(spent_s, 3), limit=limit_s, text=text)


# What comes next.


def _steps(scene: Scene) -> Iterator[Step]:
    deployment = scene.deployment
    match deployment.lifecycle:
        case Lifecycle.PENDING:
            text = "nothing until a revision is activated: fleetpulse rollout start"
            yield Step(text=f"{text} {deployment.name} NUMBER")
        case Lifecycle.READY:
            yield _kept(scene)
        case Lifecycle.DEPLOYING:
            yield from _moving(scene)
        case Lifecycle.DESTROYING:
            left = len(scene.routes)
            yield Step(text=f"it is gone when its last replica has ended: {left} left")
        case Lifecycle.DESTROYED:
            yield Step(text="nothing: it never comes back; its name is free")
        case _ as never:
            assert_never(never)


def _kept(scene: Scene) -> Step:
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
    waiting = sum(not route.ready for route in mine)
    if waiting:
        text = f"{replicas(waiting)} not ready: explain them, see fleetpulse route list"
        return Step(text=f"{text} {deployment.name}")
    return Step(text="nothing: it is as wanted")


def _moving(scene: Scene) -> Iterator[Step]:
    rollout, wanted = scene.rollout, scene.wanted
    period_s = scene.clockwork.period_s["deploying"]
    if rollout is None or wanted is None:
        text = f"it has nothing to deploy, and is set back (deploying, within {span(period_s)})"
        yield Step(text=text, within_s=0.0)
        return
    yield Step(text=_waits_for(scene, rollout, wanted))
    clock = _deadline(scene, rollout)
    left_s = max(0.0, clock.limit - clock.value)
    held = ", and not while it is held" if scene.holds else ""
    back = scene.deployment.sub_step is SubStep.ROLLING_BACK
    end = "it ends with what it has" if back else "it turns back"
    text = f"if it is not done, {end} in {span(left_s)} at the earliest{held}"
    yield Step(text=text, within_s=None if held else left_s)


def _waits_for(scene: Scene, rollout: Rollout, wanted: Revision) -> str:
    counted = tally(
        scene.routes, wanted.id, now_ms=scene.now_ms, min_ready_s=rollout.policy.min_ready_s
    )
    planned = steps(counted, scene.bounds)
    if planned.complete:
        return "all is in place: it ends at its next run"
    if wanted.spec.external and len(counted.wanted) < scene.bounds.target:
        missing = scene.bounds.target - len(counted.wanted)
        name = scene.deployment.name
        return f"waits for {missing} to be registered: fleetpulse route register {name}"
    words = []
    if planned.create:
        words.append(f"starts {planned.create} of revision {wanted.number}")
    if planned.drain:
        words.append(f"drains {len(planned.drain)} of others")
    if words:
        return f"{' and '.join(words)} at its next run"
    unready = len(counted.wanted) - counted.ready_wanted
    return f"waits for {replicas(unready)} of revision {wanted.number} to become ready"
