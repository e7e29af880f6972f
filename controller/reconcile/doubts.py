"""The handlers of doubt: HOLD goes on record, and a failing route is asked about once more.

Neither changes a route. The one makes HOLD durable, so that deadlines know of it under the next
leader, too (S15); the other sees to it that a second witness can speak at all (S11).
"""

from collections.abc import Mapping
from typing import Final

import msgspec
import structlog

from controller.bus import ControlBus
from controller.db.repository import Repository
from controller.metrics import ControllerMetrics
from controller.model import DeploymentId, Route, RouteId
from controller.reconcile.handler import FleetHandler, Schedule, World
from controller.reconcile.witness import Witness
from controller.route.guard import HoldCause, second_source
from controller.route.guard.evidence import SETTLE_MIN_S, checked
from controller.route.targets import target_of
from probe.errors import BusError
from probe.wire import ReplicaId, ReplicaProbeTarget

log = structlog.get_logger()

RENEWED_MS: Final = 600_000
"""A second target lives for an hour, and is written again long before."""


class RecordHold(FleetHandler):
    """Writes when HOLD begins and ends; its period is how soon the bus is looked at again."""

    name = "record_hold"

    def __init__(self, repository: Repository, schedule: Schedule) -> None:
        super().__init__(schedule)
        self._repository = repository
        self._recorded: frozenset[DeploymentId | None] | None = None
        """Who is held as of the last writing; None: what an earlier leader left is not known."""

    async def commit(self, world: World, *, epoch: int) -> int:
        """Record what differs, and nothing while nothing does (I10)."""
        held: dict[DeploymentId | None, str] = dict.fromkeys(
            world.held_deployments, HoldCause.DEPLOYMENT_BREAKER.value
        )
        if world.hold:
            held[None] = ",".join(sorted(world.hold))
        if self._recorded is None:
            self._recorded = await self._repository.open_holds()
        if held.keys() == self._recorded:
            return 0
        written = await self._repository.record_holds(held, epoch=epoch)
        self._recorded = frozenset(held)
        return written


class SecondOpinion(FleetHandler):
    """Has routes that one prober calls dead probed by another one, under a second id."""

    name = "second_opinion"

    def __init__(
        self, bus: ControlBus, witness: Witness, metrics: ControllerMetrics, schedule: Schedule
    ) -> None:
        super().__init__(schedule)
        self._bus = bus
        self._witness = witness
        self._metrics = metrics
        self._written: dict[ReplicaId, tuple[ReplicaProbeTarget, int]] = {}
        """What was written, and when."""

    async def commit(self, world: World, *, epoch: int) -> int:
        """Write the targets of those to ask about, and remove the others'; no row changes."""
        del epoch  # a target is no state: the next leader's are the same ones
        if not world.view.reachable or not (world.view.cases or self._written):
            return 0
        asked = second_source.to_ask(
            world.view.cases,
            world.view,
            asked=self._witness.asked,
            fleet=len(checked(world.snapshot.routes)),
            now_s=self._witness.looked_at_s,
        )
        wanted = _targets(world, asked)
        try:
            await self._sync(wanted, world)
        except BusError as error:
            self._metrics.bus_error()
            log.warning("second_opinion_not_asked", routes=len(wanted), error=str(error))
            return 0
        known = {target.replica_id for target in wanted}
        self._witness.asked = {r: twin for r, twin in asked.items() if twin in known}
        return 0

    async def _sync(self, wanted: tuple[ReplicaProbeTarget, ...], world: World) -> None:
        now_ms = world.snapshot.now_ms
        forgetful = world.view.remembers_for_s < SETTLE_MIN_S
        write = [target for target in wanted if forgetful or self._is_stale(target, now_ms=now_ms)]
        if write:
            await self._bus.write_targets(write)
            self._written |= {target.replica_id: (target, now_ms) for target in write}
        gone = sorted(self._written.keys() - {target.replica_id for target in wanted})
        if gone:
            await self._bus.remove_targets(gone)
            for replica_id in gone:
                del self._written[replica_id]

    def _is_stale(self, target: ReplicaProbeTarget, *, now_ms: int) -> bool:
        known = self._written.get(target.replica_id)
        return known is None or known[0] != target or now_ms - known[1] > RENEWED_MS


def _targets(world: World, asked: Mapping[RouteId, ReplicaId]) -> tuple[ReplicaProbeTarget, ...]:
    """Return the second target of each route asked about: the same, sooner, under another id."""
    found = (_target(world, route, asked[route.id]) for route in _asked_about(world, asked))
    return tuple(target for target in found if target is not None)


def _asked_about(world: World, asked: Mapping[RouteId, ReplicaId]) -> list[Route]:
    return [route for route in world.snapshot.routes if route.id in asked]


def _target(world: World, route: Route, twin: ReplicaId) -> ReplicaProbeTarget | None:
    deployment = world.snapshot.deployments.get(route.deployment_id)
    target = None if deployment is None else target_of(route, deployment)
    if not isinstance(target, ReplicaProbeTarget):
        return None
    interval_s = min(target.interval_s, second_source.ASK_INTERVAL_MAX_S)
    return msgspec.structs.replace(target, replica_id=twin, interval_s=interval_s)
