"""The controller's instruments, in one list, under the names of the contract.

What happened is counted when it happens; what is, is read from the newest snapshot at scrape
time, so that a series ends with its object (R-67). Labels come from closed sets and deployment
names, never from a route.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, Histogram, Info
from prometheus_client import Counter as Total
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.invariants import Invariant, decision_violations, snapshot_violations
from controller.model import Decision, Lifecycle, Route, RouteChange, RouteStatus, Snapshot
from controller.route.guard import HoldCause

RECONCILE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ROLLOUT_BUCKETS_S = (5, 15, 60, 300, 900, 1800, 3600, 7200)


class ControllerMetrics:
    """Every instrument of the controller, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        prefix = "fleetpulse"
        self._reconcile = Histogram(
            f"{prefix}_reconcile_seconds",
            "Time of one run of a handler.",
            ["handler"],
            buckets=RECONCILE_BUCKETS_S,
            registry=registry,
        )
        self._last_success = Gauge(
            f"{prefix}_reconcile_last_success_timestamp_seconds",
            "When a handler last ran to its end, unix time.",
            ["handler"],
            registry=registry,
        )
        self._failures = Total(
            f"{prefix}_reconcile_failures_total",
            "Runs, routes or deployments a handler failed on.",
            ["handler"],
            registry=registry,
        )
        self._lost = Total(
            f"{prefix}_compare_and_set_lost_total",
            "Rows not written because they had changed meanwhile; the next run sees them afresh.",
            ["handler"],
            registry=registry,
        )
        self._sql_writes = Total(
            f"{prefix}_sql_writes_total", "Rows written.", ["table"], registry=registry
        )
        self._evictions = Total(
            f"{prefix}_evictions_total", "Routes evicted.", ["cause"], registry=registry
        )
        self._blocked = Total(
            f"{prefix}_evictions_blocked_total",
            "Evictions that a safety rule held back, counted at each run.",
            ["cause"],
            registry=registry,
        )
        self._targets = Total(
            f"{prefix}_targets_synced_total",
            "Probe targets by what became of them.",
            ["result"],
            registry=registry,
        )
        self._bus_errors = Total(
            f"{prefix}_bus_errors_total", "Failed operations on the bus.", registry=registry
        )
        self._database_errors = Total(
            f"{prefix}_database_errors_total", "Ticks lost to the database.", registry=registry
        )
        self._rollouts = Total(
            f"{prefix}_rollouts_total",
            "Rollouts that ended.",
            ["strategy", "outcome"],
            registry=registry,
        )
        self._rollout_duration = Histogram(
            f"{prefix}_rollout_duration_seconds",
            "From the start of a rollout to its end.",
            ["strategy", "outcome"],
            buckets=ROLLOUT_BUCKETS_S,
            registry=registry,
        )
        self._violations = Total(
            f"{prefix}_invariant_violations_total",
            "Broken safety invariants: each one is a bug, please report it.",
            ["invariant"],
            registry=registry,
        )
        for invariant in Invariant:
            self._violations.labels(invariant.value)
        self._leader = Gauge(
            f"{prefix}_leader", "1 while this controller leads.", registry=registry
        )
        Info(f"{prefix}_build", "What runs here.", registry=registry).info(
            {"version": version("fleetpulse"), "component": "controller"}
        )
        self._now = _FromSnapshot()
        registry.register(self._now)
        self._rows: Counter[str] = Counter()

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

    def bus_error(self) -> None:
        """Count a failed operation on the bus."""
        self._bus_errors.inc()

    def database_error(self) -> None:
        """Count a tick lost to the database."""
        self._database_errors.inc()

    def leads(self, *, leader: bool) -> None:
        """Say whether this controller leads."""
        self._leader.set(leader)

    def wrote(self, rows_by_table: Mapping[str, int]) -> None:
        """Take over the repository's running totals of rows written."""
        for table, total in rows_by_table.items():
            self._sql_writes.labels(table).inc(total - self._rows[table])
            self._rows[table] = total

    def observed(self, snapshot: Snapshot, hold: Iterable[HoldCause]) -> None:
        """Keep the newest snapshot for the next scrape, and check what must always hold."""
        self._now.snapshot, self._now.hold = snapshot, frozenset(hold)
        for invariant in snapshot_violations(snapshot):
            self._violations.labels(invariant.value).inc()

    def decided(self, decision: Decision, routes: Sequence[Route], now_ms: int) -> None:
        """Count what a commit of a decision did, and check what it must never do."""
        for invariant in decision_violations(decision, routes):
            self._violations.labels(invariant.value).inc()
        rollout, change = decision.deployment.rollout, decision.change
        if rollout is None or change is None or change.end_rollout is None:
            return
        labels = (rollout.policy.strategy.value, change.end_rollout.value)
        self._rollouts.labels(*labels).inc()
        self._rollout_duration.labels(*labels).observe((now_ms - rollout.started_at_ms) / 1000)


class _FromSnapshot(Collector):
    """What is, read from the newest snapshot at scrape time."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.hold: frozenset[HoldCause] = frozenset()

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of the moment."""
        incident = GaugeMetricFamily(
            "fleetpulse_incident_active",
            "1 while a safety rule freezes irreversible actions (HOLD).",
            labels=["kind"],
        )
        for cause in HoldCause:
            incident.add_metric([cause.value], float(cause in self.hold))
        yield incident
        if self.snapshot is not None:
            yield from _deployments(self.snapshot)
            yield from _rollouts(self.snapshot)


def _deployments(snapshot: Snapshot) -> Iterator[Metric]:
    wanted = GaugeMetricFamily("fleetpulse_replicas_wanted", "Target count.", labels=["deployment"])
    routes = GaugeMetricFamily(
        "fleetpulse_routes", "Routes by state.", labels=["deployment", "state"]
    )
    states = Counter(
        (route.deployment_id, "ready" if route.ready else route.status.value)
        for route in snapshot.routes
    )
    for deployment in snapshot.deployments.values():
        wanted.add_metric([deployment.name], deployment.target_count)
        for state in ("ready", *RouteStatus):
            if count := states[deployment.id, str(state)]:
                routes.add_metric([deployment.name, str(state)], count)
    yield from (wanted, routes)


def _rollouts(snapshot: Snapshot) -> Iterator[Metric]:
    replicas = GaugeMetricFamily(
        "fleetpulse_rollout_replicas",
        "Active routes of deployments in rollout, old and new side.",
        labels=["deployment", "side", "state"],
    )
    deadline = GaugeMetricFamily(
        "fleetpulse_rollout_deadline_timestamp_seconds",
        "When a rollout ends by itself, database time.",
        labels=["deployment"],
    )
    for deployment in snapshot.deployments.values():
        if deployment.lifecycle is not Lifecycle.DEPLOYING or deployment.rollout is None:
            continue
        new_revision = deployment.rollout.revision_id
        counts = Counter(
            (
                "new" if route.revision_id == new_revision else "old",
                "ready" if route.ready else "not_ready",
            )
            for route in snapshot.routes
            if route.deployment_id == deployment.id and route.active
        )
        for side in ("old", "new"):
            for state in ("ready", "not_ready"):
                replicas.add_metric([deployment.name, side, state], counts[side, state])
        deadline.add_metric([deployment.name], deployment.rollout.deadline_at_ms / 1000)
    yield from (replicas, deadline)
