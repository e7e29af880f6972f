"""What must hold in a simulated world, checked after every commit and at the end.

Decisions, snapshots and successive looks are checked by the controller's own `invariants` and
`vigil`; here is what only a world can tell, as it knows the truth and every commit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from controller.db.events import HistoryEntry
from controller.invariants import Invariant
from controller.model import (
    Deployment,
    DeploymentId,
    Lifecycle,
    Route,
    RouteId,
    RouteStatus,
    SubStep,
    Traffic,
)
from controller.rollout.strategies import limits
from controller.route.evict import CATEGORY as EVICT
from controller.route.evict import HEALTH_POLICY
from controller.route.guard.clocks import stood_still_ms
from controller.route.table import Publication
from controller.simulate.fleet import SimulatedFleet
from controller.simulate.rows import Rows
from controller.simulate.transaction import Write

BLUE_GREEN: Final = "blue-green"
TRUTH_S: Final = 120.0
"""A replica that could not serve within this time may rightly be taken out."""
DEADLINE_SLACK_S: Final = 15.0
"""A tick, a change of leaders' minds, and what a transaction takes."""


@dataclass(slots=True)
class Checks:
    """Watches one world; `broken` is told what, of whom."""

    rows: Rows
    fleet: SimulatedFleet
    clock: Callable[[], float]
    broken: Callable[[str, str], None]
    period_s: float
    """Of the rollout's handler: how late it may notice that time is over."""
    evicted: int = 0
    """Replicas taken out for their health."""
    _epoch: int = 0
    _told: set[tuple[str, str]] = field(default_factory=set)
    _blind_s: float = 0.0
    _seen_s: float = 0.0

    def committed(self, write: Write) -> None:
        """Check one transaction."""
        for entry in write.events:
            if entry.epoch is not None:
                if entry.epoch < self._epoch:
                    self._tell(Invariant.EPOCHS, f"epoch {entry.epoch} after {self._epoch}")
                self._epoch = max(self._epoch, entry.epoch)
            if entry.category == EVICT and entry.error_code == HEALTH_POLICY:
                self._evicted(entry)
        changed = [each for each in write.events if each.route_id is not None]
        if len(changed) != write.written["routes"]:
            self._tell(Invariant.HISTORY, f"{write.written['routes']} rows, {len(changed)} entries")
        for deployment in self.rows.living().values():
            self._traffic(deployment)

    def _evicted(self, entry: HistoryEntry) -> None:
        self.evicted += 1
        replica = None if entry.route_id is None else self.fleet.replicas.get(entry.route_id)
        if replica is None or replica.dead(self.clock()):
            return
        if replica.loaded_at_s < self.clock() and (
            self.clock() - replica.failed_at_s > TRUTH_S and not replica.broken
        ):
            self._tell(Invariant.OUTAGE, f"{entry.route_id} was alive")

    def _traffic(self, deployment: Deployment) -> None:
        """Check that blue-green gives traffic to no set but the promoted one (I4)."""
        rollout = deployment.rollout
        if deployment.policy.strategy != BLUE_GREEN:
            return
        if rollout is not None and rollout.policy.strategy != BLUE_GREEN:
            return
        serving = {r.revision_id for r in self._serving(deployment.id)}
        current = None if deployment.current is None else deployment.current.id
        if serving - {current}:
            self._tell("I4_traffic", deployment.name)

    def _serving(self, deployment_id: DeploymentId) -> Iterator[Route]:
        for route in self.rows.tables.routes.values():
            mine = route.deployment_id == deployment_id and route.status is RouteStatus.RUNNING
            if mine and route.traffic is Traffic.ACTIVE and route.traffic_ratio > 0:
                yield route

    def told_proxy(self, publication: Publication) -> None:
        """Check a table as proxies have it: a blue-green one is of one revision (I4)."""
        tables = self.rows.tables
        deployment = tables.deployments[publication.deployment_id]
        if deployment.policy.strategy != BLUE_GREEN:
            return
        found = {self._revision(each) for each in publication.table.route_ids}
        if len(found) > 1:
            self._tell("I4_traffic", f"{deployment.name}: proxies have a mixed set")

    def _revision(self, route_id: RouteId) -> str:
        tables = self.rows.tables
        return (tables.routes.get(route_id) or tables.ended[route_id]).revision_id

    def look(self, *, blind: bool) -> None:
        """Check deadlines once in a while; while `blind` nobody could have ended anything (I6)."""
        now_s = self.clock()
        if blind:
            self._blind_s += now_s - self._seen_s
        self._seen_s = now_s
        now_ms = self.rows.now_ms()
        for deployment in self.rows.living().values():
            rollout = deployment.rollout
            if rollout is None or rollout.paused_at_ms is not None:
                continue
            began_ms, ends_ms = rollout.started_at_ms, rollout.deadline_at_ms
            if deployment.sub_step is SubStep.ROLLING_BACK:
                began_ms = deployment.phase_entered_at_ms
                ends_ms = began_ms + int(rollout.policy.rollout_timeout_s * 1000)
            still_ms = stood_still_ms(
                self.rows.tables.holds, deployment.id, since_ms=began_ms, until_ms=now_ms
            )
            late_s = (now_ms - ends_ms - still_ms) / 1000 - self._blind_s
            if late_s > self.period_s + DEADLINE_SLACK_S:
                self._tell(Invariant.DEADLINE, f"{deployment.name} rollout {rollout.id}")

    def end(self) -> None:
        """Check that all has come to rest as it should (I12)."""
        for deployment in self.rows.living().values():
            why = self._unwell(deployment)
            if why:
                self._tell(Invariant.CONVERGENCE, f"{deployment.name}: {why}")

    def _unwell(self, deployment: Deployment) -> str:
        if deployment.lifecycle is not Lifecycle.READY:
            return f"is {deployment.lifecycle}/{deployment.sub_step}"
        current = deployment.current
        behaviour = None if current is None else self.fleet.behaviours.get(current.id)
        if behaviour is not None and behaviour.broken:
            return ""  # promoted while no replica was wanted; nothing makes it well
        kept = {each.id for each in (current, deployment.kept) if each is not None}
        mine = [r for r in self.rows.tables.routes.values() if r.deployment_id == deployment.id]
        table = self.rows.tables.publications.get(deployment.id)
        found = {
            "ready": sum(
                r.ready and current is not None and r.revision_id == current.id for r in mine
            ),
            "with traffic": sum(1 for _ in self._serving(deployment.id)),
            "known to proxies": 0 if table is None else len(table.table.routes),
        }
        want = deployment.target_count
        wrong = [f"{count} of {want} {what}" for what, count in found.items() if count != want]
        others = sum(r.active and r.revision_id not in kept for r in mine)
        if others:
            wrong.append(f"{others} of another revision")
        return ", ".join(wrong)

    def _tell(self, what: str, about: str) -> None:
        if (what, about) not in self._told:
            self._told.add((what, about))
            self.broken(str(what), about)


def lowest(deployment: Deployment) -> int:
    """Return the floor of ready replicas of a deployment now."""
    return limits(deployment).min_avail
