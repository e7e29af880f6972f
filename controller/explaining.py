"""Gathers what `explain` tells: the scene around a route or a deployment, told by the pure rooms.

Called by the command line and by the API, which both look from outside and say the same.
"""

from dataclasses import replace
from typing import Final

from controller.bus import ControlBus
from controller.db import explaining
from controller.db.explaining import Found
from controller.db.failures import Failures
from controller.db.session import Database
from controller.errors import NotFound
from controller.explanation import Clockwork, Explanation
from controller.model import (
    Deployment,
    DeploymentId,
    Route,
    RouteChange,
    RouteStatus,
    Snapshot,
)
from controller.onlooker import Sight, look
from controller.reconcile.handler import World
from controller.reconcile.health import floors
from controller.rollout import explain as of_deployment
from controller.rollout.backoff import WINDOW_S, back_off
from controller.rollout.cycle import StoodStill
from controller.rollout.outlook import turn_of
from controller.rollout.scale import missing
from controller.route import evict, guard
from controller.route import explain as of_route
from controller.route.gates import Bars, Budget, holds
from controller.route.guard import Gate, HoldCause
from controller.route.guard.budget import deployment_allowance, fleet_allowance
from controller.route.guard.clocks import stood_still_ms
from controller.route.orphans import known_revisions
from controller.route.scene import Scene, Watcher
from controller.settings import PERIODS, Settings
from probe.wire import ReplicaId, partition_of

_LEADERS_OWN: Final = frozenset({Gate.COLD_START, Gate.SECOND_SOURCE})
"""What only the leader remembers."""


async def explain(
    database: Database,
    bus: ControlBus | None,
    named: str,
    *,
    settings: Settings,
) -> Explanation:
    """Explain the deployment of that name, or the route whose id is or begins so.

    Raises:
        NotFound: if there is none.
        InvalidInput: if several routes begin so.
        DatabaseUnreachable: if the database does not answer.
    """
    found = await explaining.find(database, named)
    sight = await look(database, bus, found)
    clockwork = clockwork_of(settings)
    if found.route is not None:
        return of_route.explain_route(route_scene(found, found.route, sight, clockwork))
    if found.deployment is None:
        raise NotFound(f"there is no deployment {named!r}; see `fleetpulse deployment list`")
    scene = deployment_scene(found, found.deployment, sight, clockwork)
    return of_deployment.explain_deployment(await _with_back_off(database, scene))


def clockwork_of(settings: Settings) -> Clockwork:
    """Return the periods and limits that an explanation tells of."""
    return Clockwork(
        period_s={name: settings.period(name).long_s for name in PERIODS},
        starting_timeout_s=settings.starting_timeout_s,
        unregister_timeout_s=settings.unregister_timeout_s,
        termination_grace_s=settings.termination_grace_s,
    )


async def _with_back_off(database: Database, scene: of_deployment.Scene) -> of_deployment.Scene:
    """Add what keeps missing replicas from being made (a crash loop)."""
    if missing(scene.deployment, scene.routes) <= 0:
        return scene
    key, since_ms = scene.deployment.id, scene.now_ms - int(WINDOW_S * 1000)
    failures = await Failures(database).of([key], since_ms=since_ms)
    return replace(scene, wait=back_off(failures.get(key, ()), now_ms=scene.now_ms))


def route_scene(found: Found, route: Route, sight: Sight, clockwork: Clockwork) -> Scene:
    """Return all that is known around one route."""
    world, owner = sight.world, route.deployment_id
    # As the numbers around it were counted, when it is among what was counted.
    route = next((one for one in world.snapshot.routes if one.id == route.id), route)
    deployment = world.snapshot.deployments.get(owner, found.deployment)
    now_ms = world.snapshot.now_ms
    return Scene(
        route=route,
        deployment=deployment,
        name=found.name,
        revision=found.revision,
        history=found.history,
        now_ms=now_ms,
        bars=_bars(found, route, sight, period_s=clockwork.period_s["evict"]),
        clockwork=clockwork,
        bus_trouble=sight.trouble,
        watcher=_watcher(route, sight),
        notes=sight.notes if route.active else (),
        still_ms=_still(world, owner)(route.entered_at_ms, now_ms),
        turn=None if deployment is None else _turn(world, route, deployment),
    )


def _turn(world: World, route: Route, deployment: Deployment) -> RouteChange | None:
    rollout = deployment.rollout
    return turn_of(
        route,
        deployment,
        [one for one in world.snapshot.routes if one.deployment_id == deployment.id],
        world.snapshot.now_ms,
        failed=0 if rollout is None else world.snapshot.failed_counts.get(rollout.id, 0),
        held=world.frozen(deployment.id),
        still=_still(world, deployment.id),
    )


def _still(world: World, deployment_id: DeploymentId) -> StoodStill:
    def still(since_ms: int, until_ms: int) -> int:
        spans = world.snapshot.holds
        return stood_still_ms(spans, deployment_id, since_ms=since_ms, until_ms=until_ms)

    return still


def _watcher(route: Route, sight: Sight) -> Watcher | None:
    partition = partition_of(ReplicaId(route.id))
    for beat in sight.probers:
        if partition in beat.partitions or (beat.sick and len(sight.probers) == 1):
            return Watcher(
                instance=beat.instance, sick=beat.sick, interval_stretch=beat.interval_stretch
            )
    for instance, partitions in sight.world.view.probers.items():
        if partition in partitions:
            return Watcher(instance=instance)
    return None


def _bars(found: Found, route: Route, sight: Sight, *, period_s: float) -> Bars:
    world = sight.world
    snapshot, floor_of = world.snapshot, floors(world.snapshot)
    budget = guard.Budget(spent=found.spent)
    wanted = evict.decide(
        snapshot,
        world.view,
        hold=world.hold,
        budget=budget,
        floors=floor_of,
        period_s=period_s,
        held_deployments=world.held_deployments,
        closing=world.closing_deployments,
    )
    stays = wanted.blocked.get(route.id, frozenset())
    owner = snapshot.deployments.get(route.deployment_id)
    forced = owner is not None and owner.forced(snapshot.now_ms)
    return Bars(
        hold=frozenset() if forced else world.hold,
        held=route.deployment_id in world.held_deployments and not forced,
        forced=forced,
        stays=stays - _LEADERS_OWN if sight.notes else stays,
        view=world.view,
        budget=_budget(found, route, world),
        floor=floor_of.get(route.deployment_id, 0),
        ready=_ready(found.deployment, snapshot),
    )


def _budget(found: Found, route: Route, world: World) -> Budget:
    now_ms, budget = world.snapshot.now_ms, guard.Budget(spent=found.spent)
    running = sum(one.status is RouteStatus.RUNNING for one in world.snapshot.routes)
    target = 0 if found.deployment is None else found.deployment.target_count
    return Budget(
        fleet_spent=budget.spent_in_all(now_ms=now_ms),
        fleet_max=fleet_allowance(running),
        own_spent=budget.spent_by(DeploymentId(route.deployment_id), now_ms=now_ms),
        own_max=deployment_allowance(target),
    )


def _ready(deployment: Deployment | None, snapshot: Snapshot) -> int:
    known = {} if deployment is None else known_revisions(deployment)
    return sum(route.serves and route.revision_id in known for route in snapshot.routes)


def deployment_scene(
    found: Found, deployment: Deployment, sight: Sight, clockwork: Clockwork
) -> of_deployment.Scene:
    """Return all that is known around a deployment."""
    world = sight.world
    deployment = world.snapshot.deployments.get(deployment.id, deployment)
    rollout = deployment.rollout
    causes = world.hold_for(deployment.id)
    if not causes and world.frozen(deployment.id):
        causes = frozenset({HoldCause.BUS_UNREACHABLE})
    return of_deployment.Scene(
        deployment=deployment,
        routes=[r for r in world.snapshot.routes if r.deployment_id == deployment.id],
        failed=0 if rollout is None else world.snapshot.failed_counts.get(rollout.id, 0),
        history=found.history,
        now_ms=world.snapshot.now_ms,
        holds=tuple(holds(causes, held=False)),
        clockwork=clockwork,
        still=_still(world, deployment.id),
        notes=sight.notes,
    )
