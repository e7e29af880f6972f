"""The controller's instruments, in one list, under the names of the contract.

What happened is counted here when it happens; what is, `controller.gauges` reads at scrape time.
Labels come from closed sets, never from a route, and every one of them is there from the start:
a counter that appears with its first event hides that event from a rate.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from importlib.metadata import version
from itertools import product
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as Total

from controller.db.outbox import Backlog
from controller.gauges import SnapshotGauges
from controller.invariants import Invariant, decision_violations, snapshot_violations
from controller.model import Decision, Outcome, Route, RouteChange, Snapshot
from controller.rollout import scale
from controller.rollout.strategies import STRATEGIES
from controller.route.evict import HEALTH_POLICY
from controller.route.guard import Gate, HoldCause
from controller.route.orphans import ORPHAN
from controller.settings import PERIODS

_VERSION: Final = version("fleetpulse")


class Publish(StrEnum):
    """What became of a table of routes that proxies were to be told."""

    DELIVERED = "delivered"
    """It is on the bus, and so are its events."""
    HEALED = "healed"
    """A sync found it missing or different on the bus, and wrote it again."""
    OLDER = "older"
    """The bus had a newer one, and kept that."""
    FAILED = "failed"
    """The bus did not take it; it is tried again."""
    REFUSED = "refused"
    """It had lost too much without a recorded cause; proxies keep the routes they have (S16)."""


_RECONCILE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROLLOUT_BUCKETS_S = (5, 15, 60, 300, 900, 1800, 3600, 7200)
_HANDLERS: Final = {"handler": tuple(PERIODS)}
_ENDINGS: Final = {"strategy": tuple(STRATEGIES), "outcome": tuple(Outcome)}


class ControllerMetrics:
    """Every instrument of the controller, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._rows: Counter[str] = Counter()
        self._now = SnapshotGauges()
        self.registry.register(self._now)
        self._reconcile = self._histogram(
            "reconcile_seconds", "Time of one run of a handler.", _RECONCILE_BUCKETS_S, _HANDLERS
        )
        self._last_success = self._gauge(
            "reconcile_last_success_timestamp_seconds",
            "When a handler last ran to its end, unix time.",
            ["handler"],
        )
        self._failures = self._total(
            "reconcile_failures", "Runs, routes or deployments a handler failed on.", _HANDLERS
        )
        self._lost = self._total(
            "compare_and_set_lost",
            "Rows not written because they had changed meanwhile; the next run sees them afresh.",
            _HANDLERS,
        )
        self._sql_writes = self._total("sql_writes", "Rows written.", {"table": ()})
        self._evictions = self._total(
            "evictions", "Routes evicted.", {"cause": (ORPHAN.lower(), HEALTH_POLICY.lower())}
        )
        self._blocked = self._total(
            "evictions_blocked",
            "Evictions that a safety rule held back, counted at each run.",
            {"cause": (*HoldCause, *Gate)},
        )
        self._targets = self._total(
            "targets_synced",
            "Probe targets by what became of them.",
            {"result": ("written", "skipped", "failed")},
        )
        self._publishes = self._total(
            "publishes",
            "Tables of routes by what became of them on their way to proxies.",
            {"outcome": tuple(Publish)},
        )
        self._delayed = self._total(
            "replacements_delayed",
            "Runs in which a deployment made no replica because the last ones ended early.",
            {},
        )
        self._bus_errors = self._total("bus_errors", "Failed operations on the bus.", {})
        self._database_errors = self._total("database_errors", "Ticks lost to the database.", {})
        self._rollouts = self._total("rollouts", "Rollouts that ended.", _ENDINGS)
        self._rollout_duration = self._histogram(
            "rollout_duration_seconds",
            "From the start of a rollout to its end.",
            _ROLLOUT_BUCKETS_S,
            {"strategy": (), "outcome": ()},
        )
        self._violations = self._total(
            "invariant_violations",
            "Broken safety invariants: each one is a bug, please report it.",
            {"invariant": tuple(Invariant)},
        )
        self._leader = self._gauge("leader", "1 while this controller leads.", [])
        self._epoch = self._gauge(
            "leader_epoch", "Of the term of leadership that runs; 0 on a standby.", []
        )
        self._outbox = self._gauge(
            "outbox_pending", "Effects outside the database that are not delivered yet.", []
        )
        self._outbox_age = self._gauge(
            "outbox_oldest_age_seconds",
            "How long the longest waiting subject of the outbox has been behind; 0 when none.",
            [],
        )
        self._coverage = self._gauge(
            "coverage_ratio", "Share of the running, checked routes with recent evidence.", []
        )
        self._coverage.set(1)
        self._held_deployments = self._gauge(
            "held_deployments", "Deployments that a breaker of their own holds.", []
        )
        build = self._gauge(
            "build_info", "1; what runs here is in the labels.", ["version", "component"]
        )
        build.labels(_VERSION, "controller").set(1)

    def _total(self, name: str, text: str, labels: Mapping[str, Sequence[str]]) -> Total:
        total = Total(f"fleetpulse_{name}", text, list(labels), registry=self.registry)
        for values in product(*labels.values()) if labels else ():
            total.labels(*map(str, values))
        return total

    def _histogram(
        self,
        name: str,
        text: str,
        buckets_s: Sequence[float],
        labels: Mapping[str, Sequence[str]],
    ) -> Histogram:
        histogram = Histogram(
            f"fleetpulse_{name}", text, list(labels), buckets=buckets_s, registry=self.registry
        )
        for values in product(*labels.values()):
            histogram.labels(*map(str, values))
        return histogram

    def _gauge(self, name: str, text: str, labels: Sequence[str]) -> Gauge:
        return Gauge(f"fleetpulse_{name}", text, labels, registry=self.registry)

    def handled(self, handler: str, seconds: float) -> None:
        """Count one run of a handler to its end."""
        self._reconcile.labels(handler).observe(seconds)
        self._last_success.labels(handler).set_to_current_time()

    def failed(self, handler: str) -> None:
        """Count a failure of a handler on one entity."""
        self._failures.labels(handler).inc()

    def lost(self, handler: str, rows: int) -> None:
        """Count rows a handler lost to a concurrent change."""
        if rows:
            self._lost.labels(handler).inc(rows)

    def changed(self, changes: Iterable[RouteChange]) -> None:
        """Count what a commit of route changes did."""
        for change in changes:
            if change.category == "evict":
                self._evictions.labels(change.error_code.lower()).inc()

    def blocked(self, cause: str, routes: int) -> None:
        """Count evictions held back."""
        if routes:
            self._blocked.labels(cause).inc(routes)

    def targets_synced(self, *, written: int, skipped: int, failed: int) -> None:
        """Count one run of the target sync (R-10)."""
        for result, count in (("written", written), ("skipped", skipped), ("failed", failed)):
            self._targets.labels(result).inc(count)

    def published(self, outcome: Publish, tables: int = 1) -> None:
        """Count what became of a table on its way to proxies."""
        self._publishes.labels(outcome.value).inc(tables)

    def publications_refused(self, deployments: int) -> None:
        """Say how many deployments have a table that was refused."""
        self._now.refused = deployments

    @property
    def held(self) -> Collection[HoldCause]:
        """Return the causes to hold that were seen last."""
        return self._now.hold

    def bus_error(self) -> None:
        """Count a failed operation on the bus."""
        self._bus_errors.inc()

    def database_error(self) -> None:
        """Count a tick lost to the database."""
        self._database_errors.inc()

    def leads(self, epoch: int | None) -> None:
        """Say in which epoch this controller leads; None: it does not."""
        self._leader.set(epoch is not None)
        self._epoch.set(epoch or 0)

    def outbox(self, waiting: Backlog) -> None:
        """Say what waits to be delivered."""
        self._outbox.set(waiting.count)
        self._outbox_age.set(waiting.oldest_age_ms / 1000)

    def wrote(self, rows_by_table: Mapping[str, int]) -> None:
        """Take over the repository's running totals of rows written."""
        for table, total in rows_by_table.items():
            self._sql_writes.labels(table).inc(total - self._rows[table])
            self._rows[table] = total

    def observed(self, snapshot: Snapshot, hold: Iterable[HoldCause]) -> None:
        """Keep the newest snapshot for the next scrape, and check what must always hold."""
        self._now.snapshot, self._now.hold = snapshot, frozenset(hold)
        self.violated(snapshot_violations(snapshot))

    def violated(self, broken: Iterable[Invariant]) -> None:
        """Count broken invariants."""
        for invariant in broken:
            self._violations.labels(invariant.value).inc()

    def trusted(self, *, coverage: float, held_deployments: int) -> None:
        """Say how much of the fleet was seen lately, and how many breakers of one are open."""
        self._coverage.set(coverage)
        self._held_deployments.set(held_deployments)

    def decided(self, decision: Decision, routes: Sequence[Route], now_ms: int) -> None:
        """Count what a commit of a decision did, and check what it must never do."""
        self.violated(decision_violations(decision, routes))
        self._delayed.inc(sum(note.category == scale.CATEGORY for note in decision.notes))
        rollout, change = decision.deployment.rollout, decision.change
        if rollout is None or change is None or change.end_rollout is None:
            return
        labels = (rollout.policy.strategy, change.end_rollout.value)
        self._rollouts.labels(*labels).inc()
        self._rollout_duration.labels(*labels).observe((now_ms - rollout.started_at_ms) / 1000)
