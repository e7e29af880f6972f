"""What is, as gauges: read from the newest snapshot at scrape time.

Part of the controller's exposition. A series ends with its object, because it is drawn anew each
time (R-67).
"""

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import product
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.cycles import cycles
from controller.model import (
    Lifecycle,
    RevisionId,
    Route,
    RouteStatus,
    Snapshot,
    SubStep,
    Traffic,
)
from controller.rollout.progress import KEPT, READY, Clock, deadline
from controller.route.guard import HoldCause

PUBLICATION_REFUSED: Final = "publication_refused"
"""The kind of incident that is no cause to hold: a table of routes that is not believed."""
DEPLOYMENT_UNREADABLE: Final = "deployment_unreadable"
"""The kind of incident in which a deployment is left alone: a row of it cannot be read."""
AWAITING: Final = SubStep.AWAITING_PROMOTION
_EMPTY = Snapshot(now_ms=0, deployments={}, routes=(), failed_counts={})


class SnapshotGauges(Collector):
    """Shows the snapshot and the causes to hold that it was last given."""

    def __init__(self) -> None:
        self.snapshot = _EMPTY
        self.hold: frozenset[HoldCause] = frozenset()
        self.refused = 0
        """Deployments whose table for proxies shrank without a cause (S16)."""

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of the moment."""
        incident = GaugeMetricFamily(
            "fleetpulse_incident_active",
            "1 while a safety rule holds something back: irreversible actions, or a table.",
            labels=["kind"],
        )
        for cause in HoldCause:
            incident.add_metric([cause.value], float(cause in self.hold))
        incident.add_metric([PUBLICATION_REFUSED], float(self.refused > 0))
        incident.add_metric([DEPLOYMENT_UNREADABLE], float(bool(self.snapshot.unreadable)))
        yield incident
        yield from _deployments(self.snapshot)
        yield from _rollouts(self.snapshot)


def _deployments(snapshot: Snapshot) -> Iterator[Metric]:
    wanted = GaugeMetricFamily("fleetpulse_replicas_wanted", "Target count.", labels=["deployment"])
    routes = GaugeMetricFamily(
        "fleetpulse_routes", "Routes by state.", labels=["deployment", "state"]
    )
    kept = {each.kept.id for each in snapshot.deployments.values() if each.kept is not None}
    states = Counter((route.deployment_id, _state(route, kept)) for route in snapshot.routes)
    for deployment in snapshot.deployments.values():
        wanted.add_metric([deployment.name], deployment.target_count)
        for state in (READY, KEPT, *RouteStatus):
            if count := states[deployment.id, str(state)]:
                routes.add_metric([deployment.name, str(state)], count)
    yield from (wanted, routes)


def _state(route: Route, kept: Collection[RevisionId]) -> str:
    """Return what a route counts as; one that is kept to switch back to makes up for nobody."""
    if not route.ready:
        return route.status.value
    idle = route.traffic is Traffic.INACTIVE
    return KEPT if idle and route.revision_id in kept else READY


def _rollouts(snapshot: Snapshot) -> Iterator[Metric]:
    floor, started, ends = (
        GaugeMetricFamily(f"fleetpulse_rollout_{name}", text, labels=["deployment"])
        for name, text in (
            ("ready_floor", "Ready routes a rollout keeps: target less unavailable."),
            ("started_timestamp_seconds", "When a rollout began, database time."),
            (
                "deadline_timestamp_seconds",
                "When a rollout ends by itself, database time; HOLD and a pause move it.",
            ),
        )
    )
    stands = GaugeMetricFamily(
        "fleetpulse_rollout_stands",
        "1 while a rollout stands still: under HOLD, paused, or waiting for its promotion.",
        labels=["deployment", "cause"],
    )
    for cycle in cycles(snapshot, skip_failing=True):
        name, clock = cycle.deployment.name, deadline(cycle)
        floor.add_metric([name], cycle.bounds.min_avail)
        started.add_metric([name], cycle.rollout.started_at_ms / 1000)
        ends.add_metric([name], round(snapshot.now_ms + clock.left_s * 1000) / 1000)
        causes = {
            Clock.HELD.value: clock.clock is Clock.HELD,
            Clock.PAUSED.value: clock.clock is Clock.PAUSED,
            AWAITING.value: cycle.deployment.sub_step is AWAITING,
        }
        for cause, does in causes.items():
            stands.add_metric([name, cause], float(does))
    yield from (_sides(snapshot), floor, started, ends, stands)


def _sides(snapshot: Snapshot) -> Metric:
    replicas = GaugeMetricFamily(
        "fleetpulse_rollout_replicas",
        "Active routes of deployments in rollout, old and new side.",
        labels=["deployment", "side", "state"],
    )
    new = {
        deployment.id: deployment.rollout.revision_id
        for deployment in snapshot.deployments.values()
        if deployment.lifecycle is Lifecycle.DEPLOYING and deployment.rollout is not None
    }
    counts = Counter(
        (
            route.deployment_id,
            "new" if route.revision_id == new[route.deployment_id] else "old",
            "ready" if route.ready else "not_ready",
        )
        for route in snapshot.routes
        if route.active and route.deployment_id in new
    )
    for deployment_id in new:
        name = snapshot.deployments[deployment_id].name
        for side, state in product(("old", "new"), ("ready", "not_ready")):
            replicas.add_metric([name, side, state], counts[deployment_id, side, state])
    return replicas
