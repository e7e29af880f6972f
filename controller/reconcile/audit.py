"""The handler that audits what all others wrote: I7 and I8, each period, and only what changed."""

from typing import Final

import structlog

from controller.db.ledger import Epochs, Ledger
from controller.invariants import Invariant
from controller.metrics import ControllerMetrics
from controller.model import RouteId
from controller.reconcile.handler import FleetHandler, Schedule, World

log = structlog.get_logger()

ROUTES_MAX: Final = 1_000
"""So many are audited in one run; the others wait for the next."""


class AuditHistory(FleetHandler):
    """Every change of a route has one row of history, and no epoch in it goes back."""

    name = "audit_history"

    def __init__(self, ledger: Ledger, metrics: ControllerMetrics, schedule: Schedule) -> None:
        super().__init__(schedule)
        self._ledger = ledger
        self._metrics = metrics
        self._audited: dict[RouteId, int] = {}
        self._epochs: Epochs | None = None

    async def commit(self, world: World, *, epoch: int) -> int:
        """Audit what changed since the last run; nothing did: nothing is asked."""
        del epoch  # only reads
        versions = {route.id: route.version for route in world.snapshot.routes}
        changed = [key for key, version in versions.items() if self._audited.get(key) != version]
        due = [*changed, *(self._audited.keys() - versions.keys())][:ROUTES_MAX]
        if not due:
            return 0
        wrong = await self._ledger.miscounted(due)
        self._epochs = await self._ledger.epochs(self._epochs)
        for route_id in due:
            if route_id in versions:
                self._audited[route_id] = versions[route_id]
            else:
                del self._audited[route_id]
        if wrong:
            log.error("history_miscounted", routes=len(wrong), first=wrong[0])
        self._metrics.violated(Invariant.HISTORY for _ in wrong)
        self._metrics.violated(Invariant.EPOCHS for _ in range(self._epochs.went_back))
        return 0
