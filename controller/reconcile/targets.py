"""Keeping the prober's targets as they should be: what it is to ask, and what not any more.

Writes what is new or changed when a mark says so, and everything each full period, which renews
every time to live and heals a bus that lost its memory (R-51).
"""

from collections.abc import Sequence

import structlog

from controller.bus import ControlBus
from controller.metrics import ControllerMetrics
from controller.model import Route
from controller.reconcile.handler import Plan, RouteHandler, Schedule, World
from controller.route import targets
from probe.errors import BusError
from probe.wire import ReplicaId, ReplicaProbeTarget

log = structlog.get_logger()


class SyncProbeTargets(RouteHandler):
    """WARMING_UP and RUNNING routes have a target; no other route has."""

    name = "sync_probe_targets"
    divisible = False  # what is to be removed is what the whole does not contain

    def __init__(self, bus: ControlBus, metrics: ControllerMetrics, schedule: Schedule) -> None:
        super().__init__(schedule)
        self._bus = bus
        self._metrics = metrics
        self._written: dict[ReplicaId, ReplicaProbeTarget] = {}
        self._renewed_at_ms: int | None = None

    def forget(self) -> None:
        """Write everything at the next run: the bus lost its memory."""
        self._renewed_at_ms = None

    def select(self, world: World) -> Sequence[Route]:
        """Select all: also an empty fleet may have targets to remove."""
        return world.snapshot.routes if world.snapshot.routes or self._written else ()

    async def decide(self, world: World, routes: Sequence[Route]) -> Plan:
        """Write and remove on the bus; the database stays as it is."""
        written = self._written.keys() - world.snapshot.left_alone
        wanted = targets.diff(routes, world.snapshot.deployments, written=written)
        now_ms, renewed = world.snapshot.now_ms, self._renewed_at_ms
        everything = renewed is None or now_ms - renewed >= self.schedule.period_s * 1000
        write = [
            target
            for target in wanted.write
            if everything or self._written.get(target.replica_id) != target
        ]
        try:
            await self._sync(write, wanted)
        except BusError as error:
            self._metrics.bus_error()
            log.warning("targets_not_synced", targets=len(write), error=str(error))
            self.forget()
            return Plan()
        if everything:
            self._renewed_at_ms = now_ms
        return Plan()

    async def _sync(self, write: Sequence[ReplicaProbeTarget], wanted: targets.Targets) -> None:
        failed: dict[ReplicaId, str] = {}
        if write:
            report = await self._bus.write_targets(write)
            failed.update(report.failed)
        for target in write:
            if target.replica_id not in failed:
                self._written[target.replica_id] = target
        if wanted.remove:
            await self._bus.remove_targets(wanted.remove)
            for replica_id in wanted.remove:
                del self._written[replica_id]
        self._metrics.targets_synced(
            written=len(write) - len(failed), skipped=len(wanted.skipped), failed=len(failed)
        )
        if failed:
            why = next(iter(failed.values()))
            log.warning("targets_refused", failed=len(failed), first=why)
        log.debug("targets_synced", written=len(write), removed=len(wanted.remove))
