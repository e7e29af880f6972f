"""What is, as gauges: read from the newest snapshot at scrape time.

Part of the controller's exposition. A series ends with its object, because it is drawn anew each
time (R-67).
"""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.model import Lifecycle, RouteStatus, Snapshot
from controller.rollout.rolling import bounds_of
from controller.route.guard import HoldCause

_EMPTY = Snapshot(now_ms=0, deployments={}, routes=(), failed_counts={})


class SnapshotGauges(Collector):
    """Shows the snapshot and the causes to hold that it was last given."""

    def __init__(self) -> None:
        self.snapshot = _EMPTY
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
    floor = GaugeMetricFamily(
        "fleetpulse_rollout_ready_floor",
        "Ready routes a rollout keeps: target less unavailable.",
        labels=["deployment"],
    )
    started = GaugeMetricFamily(
        "fleetpulse_rollout_started_timestamp_seconds",
        "When a rollout began, database time.",
        labels=["deployment"],
    )
    deadline = GaugeMetricFamily(
        "fleetpulse_rollout_deadline_timestamp_seconds",
        "When a rollout ends by itself, database time.",
        labels=["deployment"],
    )
    for deployment in snapshot.deployments.values():
        rollout = deployment.rollout
        if deployment.lifecycle is not Lifecycle.DEPLOYING or rollout is None:
            continue
        counts = Counter(
            (
                "new" if route.revision_id == rollout.revision_id else "old",
                "ready" if route.ready else "not_ready",
            )
            for route in snapshot.routes
            if route.deployment_id == deployment.id and route.active
        )
        for side in ("old", "new"):
            for state in ("ready", "not_ready"):
                replicas.add_metric([deployment.name, side, state], counts[side, state])
        floor.add_metric(
            [deployment.name], bounds_of(rollout.policy, deployment.target_count).min_avail
        )
        started.add_metric([deployment.name], rollout.started_at_ms / 1000)
        deadline.add_metric([deployment.name], rollout.deadline_at_ms / 1000)
    yield from (replicas, floor, started, deadline)
