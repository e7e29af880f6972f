"""The controller's instruments without the instruments: what happened goes to one listener.

Counting is left out, as nobody scrapes a simulation; the invariants that the real instruments
check on the way are checked here by the same functions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from controller.db.outbox import Backlog
from controller.invariants import Invariant, decision_violations, snapshot_violations
from controller.metrics import ControllerMetrics, Publish
from controller.model import Decision, Route, RouteChange, Snapshot
from controller.route.guard import HoldCause


class Counts(ControllerMetrics):
    """Tells `broken` of every breach and every failed handler, and `held` of HOLD."""

    def __init__(
        self,
        *,
        broken: Callable[[str, str], None],
        held: Callable[[frozenset[HoldCause]], None],
    ) -> None:
        self._broken = broken
        self._hold = held

    def handled(self, handler: str, seconds: float) -> None:
        """Count nothing."""

    def failed(self, handler: str) -> None:
        """Tell of a handler that raised."""
        self._broken("handler_failed", handler)

    def lost(self, handler: str, rows: int) -> None:
        """Count nothing: losing a race is in order."""

    def changed(self, changes: Iterable[RouteChange]) -> None:
        """Count nothing."""

    def blocked(self, cause: str, routes: int) -> None:
        """Count nothing."""

    def targets_synced(self, *, written: int, skipped: int, failed: int) -> None:
        """Count nothing."""

    def published(self, outcome: Publish, tables: int = 1) -> None:
        """Count nothing."""

    def publications_refused(self, deployments: int) -> None:
        """Count nothing."""

    def bus_error(self) -> None:
        """Count nothing."""

    def database_error(self) -> None:
        """Count nothing."""

    def outbox(self, waiting: Backlog) -> None:
        """Count nothing."""

    def wrote(self, rows_by_table: Mapping[str, int]) -> None:
        """Count nothing."""

    def observed(self, snapshot: Snapshot, hold: Iterable[HoldCause]) -> None:
        """Check what must always hold of a moment."""
        self.violated(snapshot_violations(snapshot))
        self._hold(frozenset(hold))

    def violated(self, broken: Iterable[Invariant]) -> None:
        """Tell of broken invariants; of a deadline `checks` tells, which knows who was away."""
        for invariant in broken:
            if invariant is not Invariant.DEADLINE:
                self._broken(invariant.value, "")

    def trusted(self, *, coverage: float, held_deployments: int) -> None:
        """Count nothing."""

    def decided(self, decision: Decision, routes: Sequence[Route], now_ms: int) -> None:
        """Check what a decision must never do."""
        del now_ms
        for invariant in decision_violations(decision, routes):
            self._broken(invariant.value, decision.deployment.name)
