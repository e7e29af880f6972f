"""What a prober saw of a route, or why nobody did; and its counters beside their thresholds."""

from collections.abc import Iterator

from controller.explanation import Count, LastProbe
from controller.model import Health, HealthCheck, Route, RouteStatus, Stage
from controller.route.classify import describe
from controller.route.guard import evidence_of, generation_of
from controller.route.scene import Scene
from controller.route.targets import probed
from controller.wording import span
from probe.wire import ReplicaHealthStatus, ReplicaId, partition_of


def last_probe(scene: Scene) -> tuple[LastProbe | None, str]:
    """Return the last probe, or why there is none to tell of."""
    route = scene.route
    evidence = evidence_of(route, scene.bars.view)
    if evidence is None or not probed(route):
        return None, _unseen(scene)
    status = evidence.status
    return LastProbe(
        outcome=status.outcome.value,
        reason=status.reason.value,
        sentence=describe(status),
        http_status=status.http_status,
        latency_ms=status.latency_ms,
        phases_ms=_phases(status),
        age_s=evidence.age_s,
        prober=status.prober,
    ), ""


def _phases(status: ReplicaHealthStatus) -> dict[str, float]:
    names = status.phases_ms.__struct_fields__
    spent = {name: float(getattr(status.phases_ms, name)) for name in names}
    return {name: value for name, value in spent.items() if value}


def _unseen(scene: Scene) -> str:  # noqa: PLR0911 - one for each kind of ignorance
    """Say why there is no evidence: these are different things (R-05)."""
    route, view = scene.route, scene.bars.view
    if not probed(route):
        return ""
    if route.health_check is None:
        return "it has no health check: nobody probes it, and it is ready while it runs"
    if not view.reachable:
        return f"not known, the bus cannot be read: {scene.bus_trouble or 'no answer'}"
    if route.id in view.unreadable:
        return "not known, its status is on the bus but cannot be read"
    if scene.watcher is None:
        partition = partition_of(ReplicaId(route.id))
        return f"nobody looks: no living prober covers its partition {partition}"
    known = view.statuses.get(route.id)
    if known is None:
        return f"no status on the bus, though {scene.watcher.instance} covers its partition"
    if known.status.generation != generation_of(route):
        return "the status on the bus is of another session or address, and says nothing of it"
    if known.status.prober in view.distrusted:
        return f"{known.status.prober} says it fails, and others contradict that prober: void"
    return f"the last status is {span(known.age_s)} old, too old to be believed"


def told(scene: Scene) -> Iterator[str]:
    """Say in sentences what is seen, and by whom."""
    probe, unseen = last_probe(scene)
    if probe is None:
        if unseen:
            yield unseen
    else:
        by = f" by {probe.prober}" if probe.prober else ""
        phases = [f"{name.replace('_', ' ')} {ms:.1f} ms" for name, ms in probe.phases_ms.items()]
        told = f" ({', '.join(phases)})" if phases else ""
        word = probe.outcome.replace("probe_error", "could not ask")
        yield f"{word} {span(probe.age_s)} ago{by}: {probe.sentence}{told}"
    if scene.watcher is not None and probed(scene.route):
        if scene.watcher.sick:
            yield f"{scene.watcher.instance} is sick, so it writes nothing: {scene.watcher.sick}"
        elif scene.watcher.interval_stretch > 1:
            stretch = scene.watcher.interval_stretch
            yield f"{scene.watcher.instance} lacks CPU and probes {stretch:.1f} times less often"


# Counters beside their thresholds.


def counts(scene: Scene) -> Iterator[Count]:
    """Yield each number that moves the route on when it reaches its limit."""
    route, check = scene.route, scene.route.health_check
    stay_s = scene.stay_s
    clocks: dict[Stage | None, tuple[str, float, str]] = {
        Stage.PENDING: (
            "starting_timeout_s",
            scene.clockwork.starting_timeout_s,
            "without the provisioner's answer before it is given up",
        ),
        Stage.STARTING: (
            "starting_timeout_s",
            scene.clockwork.starting_timeout_s,
            "without an address before it is given up",
        ),
        Stage.DRAINING: (
            "unregister_timeout_s",
            scene.clockwork.unregister_timeout_s,
            "for proxies to be told before it goes on all the same",
        ),
        Stage.COOLING_DOWN: (
            "termination_grace_s",
            scene.clockwork.termination_grace_s,
            "for requests in flight before its session is stopped",
        ),
    }
    if check is not None and route.stage is Stage.WARMING_UP:
        yield _warming(scene, check)
    if (clock := clocks.get(route.stage)) is not None:
        name, limit, what = clock
        text = f"{span(stay_s)} of {span(limit)} {what} ({name})"
        yield Count(name=name, value=round(stay_s, 3), limit=limit, text=text)
    evidence = evidence_of(route, scene.bars.view)
    if evidence is not None and check is not None and probed(route):
        yield from _streaks(route, check, evidence.status)


def _warming(scene: Scene, check: HealthCheck) -> Count:
    """Return the clock of warming up, which runs only while somebody looks (S15)."""
    name, limit, warmed_s = "initial_delay_s", check.initial_delay_s, scene.warmed_s
    lost_s = scene.stay_s - warmed_s
    lost = f", {span(lost_s)} not counted: HOLD, or a new leader" if lost_s >= 1 else ""
    text = f"{span(warmed_s)} of {span(limit)} of warming up before it is given up ({name}){lost}"
    return Count(name=name, value=round(warmed_s, 3), limit=limit, text=text)


def _streaks(route: Route, check: HealthCheck, status: ReplicaHealthStatus) -> Iterator[Count]:
    if route.status is RouteStatus.RUNNING and route.health is not Health.UNHEALTHY:
        failures = status.consecutive_failures
        text = f"{failures} of {check.max_retries} failures in a row before UNHEALTHY (max_retries)"
        yield Count(name="max_retries", value=failures, limit=check.max_retries, text=text)
    if route.health is not Health.HEALTHY:
        passes, needed = status.consecutive_successes, check.healthy_threshold
        text = f"{passes} of {needed} passes in a row before HEALTHY (healthy_threshold)"
        yield Count(name="healthy_threshold", value=passes, limit=needed, text=text)
