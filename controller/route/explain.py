"""Why a route is where it is, and what comes next; the text of `fleetpulse explain ROUTE`.

Pure: everything known around one route comes in as a `Scene`, facts and sentences go out. It
tells what the other modules of this room would decide, and decides nothing.
"""

from controller.explanation import Explanation, Gate, change_to, in_words, newest_of
from controller.model import Health, Route, RouteStatus, Stage
from controller.route import outlook, seen
from controller.route.gates import evictions, holds, of_orphan
from controller.route.guard import blind_to
from controller.route.scene import Scene


def explain_route(scene: Scene) -> Explanation:
    """Tell all of it."""
    route = scene.route
    rule, tried = newest_of(scene.history)
    if not route.active:
        rule = change_to("terminating/draining", scene.history) or rule
    probe, unseen = seen.last_probe(scene)
    facts = Explanation(
        kind="route",
        id=route.id,
        deployment=scene.name,
        title=f"route {route.id} of {scene.name}, revision {scene.revision}",
        state=_state(route),
        since_ms=route.entered_at_ms,
        now_ms=scene.now_ms,
        probe=probe,
        unseen=unseen,
        counts=tuple(seen.counts(scene)),
        rule=rule,
        tried=tried,
        gates=_gates(scene),
        next=outlook.steps(scene),
    )
    return in_words(facts, where=_whereabouts(route), seen=seen.told(scene), notes=scene.notes)


def _state(route: Route) -> str:
    words = [route.status.value if route.stage is None else f"{route.status}/{route.stage}"]
    if route.status is RouteStatus.RUNNING:
        words += [route.health.value, f"traffic {route.traffic}"]
    return ", ".join(words).replace("_", " ")


def _whereabouts(route: Route) -> str:
    return "" if route.host is None else f", at {route.host}:{route.port}"


def _gates(scene: Scene) -> tuple[Gate, ...]:
    route, deployment, bars = scene.route, scene.deployment, scene.bars
    if deployment is None or not route.active or outlook.leaves(scene.turn):
        return ()
    if scene.orphaned:
        return () if outlook.is_refused(route, deployment) else tuple(of_orphan(route, bars))
    if route.stage is Stage.WARMING_UP and route.health_check is not None:
        blind = Gate(
            name="nobody looked",
            text="the time of warming up runs only while somebody looks",
            waits_for="a prober that covers it for half a minute",
        )
        unwatched = blind_to(route, bars.view) and not bars.hold
        return (*holds(bars.hold, held=bars.held), *((blind,) if unwatched else ()))
    if outlook.is_listed(scene):
        return evictions(route, deployment, bars)
    checked = route.status is RouteStatus.RUNNING and route.health_check is not None
    worse = outlook.verdict(scene) is not None or route.health is not Health.UNHEALTHY
    return tuple(holds(bars.hold, held=False)) if checked and worse else ()
