"""What must hold from one look at the database to the next: the live half of `invariants`.

The coordinator shows every look to a `Vigil` of its term. Pure: time comes with the snapshots, in
the database's milliseconds; what it remembers is one snapshot and since when things stand still.
Each breach is told once. 10,000 routes cost a few milliseconds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from controller.invariants import Invariant, floor_of
from controller.model import (
    Deployment,
    DeploymentId,
    Lifecycle,
    RolloutId,
    Route,
    RouteId,
    RouteStatus,
    Snapshot,
    SubStep,
)
from controller.route.guard.clocks import stood_still_ms
from controller.route.orphans import known_revisions

SLACK_MS: Final = 60_000
"""A look, a transaction and a busy machine between two moments that should meet."""
STILL_MS: Final = 900_000
"""A deployment that waits for something moves more often: back-offs end after minutes."""
_Late = tuple[Invariant, DeploymentId, str]
"""What should have happened, whose it is, and to what."""
_ORDER: Final = {status: place for place, status in enumerate(RouteStatus)}


@dataclass(frozen=True, slots=True)
class _Count:
    """What of one deployment is judged, counted when it last moved."""

    orphans: tuple[Route, ...]
    """Active, and of no revision in use."""
    ready: int
    """Of the revisions in use."""
    active: int
    """Of the current one."""


class Vigil:
    """Watches over the looks of one term of leadership."""

    def __init__(self, *, evict_s: float, deploying_s: float) -> None:
        """Prepare; the periods say how late a handler may be in order."""
        self._evict_ms = 2 * int(evict_s * 1000) + SLACK_MS
        self._deploying_ms = 2 * int(deploying_s * 1000) + SLACK_MS
        self._routes: dict[RouteId, Route] = {}
        self._deployments: dict[DeploymentId, int] = {}
        self._counts: dict[DeploymentId, _Count] = {}
        self._seen_at_ms: int | None = None
        self._written = 0
        self._restless = False
        self._overdue: dict[tuple[RolloutId, SubStep | None], int] = {}
        self._orphans: dict[RouteId, int] = {}
        self._unbalanced: dict[DeploymentId, int] = {}
        self._told: set[tuple[Invariant, str]] = set()

    def see(
        self,
        snapshot: Snapshot,
        *,
        held: bool,
        held_deployments: AbstractSet[DeploymentId] = frozenset(),
        written: int = 0,
    ) -> tuple[Invariant, ...]:
        """Return what does not hold any more; `written` counts the rows changed so far.

        How long something has been wrong counts in one row of looks: while nobody could look,
        nobody could mend it either.
        """
        if self._seen_at_ms is None or snapshot.now_ms - self._seen_at_ms > SLACK_MS:
            self._overdue, self._orphans, self._unbalanced = {}, {}, {}
        moved, broken = self._compare(snapshot)
        self._recount(snapshot, moved)
        broken += self._rest(moved=bool(moved), written=written)
        broken += self._told_once(self._deadlines(snapshot, held=held))
        free = {} if held else snapshot.deployments
        late = (*self._left_behind(snapshot, free), *self._stuck(snapshot, free, moved))
        broken += self._told_once(
            (found, key) for found, owner, key in late if owner not in held_deployments
        )
        self._seen_at_ms = snapshot.now_ms
        return tuple(broken)

    def _compare(self, snapshot: Snapshot) -> tuple[set[DeploymentId], list[Invariant]]:
        """Return the deployments of which anything changed, and a breach for what came back (I5).

        Most routes are as they were, so that is asked first.
        """
        known, current = self._routes, {route.id: route for route in snapshot.routes}
        moved: set[DeploymentId] = set()
        broken: list[Invariant] = []
        for route_id, route in current.items():
            before = known.get(route_id)
            if before is not None and before.version == route.version:
                continue
            moved.add(route.deployment_id)
            if self._came_back(before, route):
                broken.append(Invariant.TERMINAL)
        if len(known) != len(current) or moved:
            moved |= {known[gone].deployment_id for gone in known.keys() - current.keys()}
        versions = {one.id: one.version for one in snapshot.deployments.values()}
        if versions != self._deployments:
            moved |= {key for key, _ in versions.items() ^ self._deployments.items()}
        self._routes, self._deployments = current, versions
        return moved, broken

    def _came_back(self, before: Route | None, route: Route) -> bool:
        if before is None:  # new; or gone at the look before, and here again
            seen_at_ms = self._seen_at_ms
            if seen_at_ms is None or route.deployment_id not in self._deployments:
                return False  # as its whole deployment: that could not be read
            return route.created_at_ms < seen_at_ms - SLACK_MS
        return _ORDER[route.status] < _ORDER[before.status]

    def _recount(self, snapshot: Snapshot, moved: AbstractSet[DeploymentId]) -> None:
        """Count what moved anew."""
        if not moved:
            return
        routes: dict[DeploymentId, list[Route]] = {key: [] for key in moved}
        for route in snapshot.routes:
            if route.deployment_id in moved:
                routes[route.deployment_id].append(route)
        for key, mine in routes.items():
            deployment = snapshot.deployments.get(key)
            if deployment is None:
                self._counts.pop(key, None)
            else:
                self._counts[key] = _count(deployment, mine)

    def _rest(self, *, moved: bool, written: int) -> Iterator[Invariant]:
        """Yield a breach when rows were written and neither this look nor the next shows any (I10).

        One look later, because a write may commit between a look and the count.
        """
        if self._restless and not moved:
            yield Invariant.REST
        self._restless = written > self._written and not moved and self._seen_at_ms is not None
        self._written = written

    def _deadlines(self, snapshot: Snapshot, *, held: bool) -> Iterator[tuple[Invariant, str]]:
        """Yield each rollout that should have ended by itself (I6).

        Counted from the first look that finds it overdue.
        """
        now_ms = snapshot.now_ms
        before, self._overdue = self._overdue, {}
        for deployment in snapshot.deployments.values():
            rollout = deployment.rollout
            if rollout is None or held or deployment.lifecycle is not Lifecycle.DEPLOYING:
                continue
            if rollout.paused_at_ms is not None:
                continue
            began_ms, ends_ms = rollout.started_at_ms, rollout.deadline_at_ms
            if deployment.sub_step is SubStep.ROLLING_BACK:
                began_ms = deployment.phase_entered_at_ms
                ends_ms = began_ms + int(rollout.policy.rollout_timeout_s * 1000)
            still_ms = stood_still_ms(
                snapshot.holds, deployment.id, since_ms=began_ms, until_ms=now_ms
            )
            if now_ms <= ends_ms + still_ms:
                continue
            key = (rollout.id, deployment.sub_step)
            self._overdue[key] = before.get(key, now_ms)
            if now_ms - self._overdue[key] > self._deploying_ms:
                yield Invariant.DEADLINE, f"{rollout.id}/{deployment.sub_step}"

    def _left_behind(
        self, snapshot: Snapshot, free: Mapping[DeploymentId, Deployment]
    ) -> Iterator[_Late]:
        """Yield each orphan that should have left (I9)."""
        now_ms, since, owners = snapshot.now_ms, {}, {}
        for key, count in self._counts.items():
            if not count.orphans or (deployment := free.get(key)) is None:
                continue
            floor = floor_of(deployment)
            if isinstance(floor, str):
                continue  # nothing of it is evicted; `evict` says so
            spare = count.ready >= floor
            for route in count.orphans:
                if spare or not route.serves:
                    since[route.id] = self._orphans.get(route.id, now_ms)
                    owners[route.id] = key
        self._orphans = since
        for route_id, at_ms in since.items():
            if now_ms - at_ms > self._evict_ms:
                yield Invariant.ORPHANS, owners[route_id], route_id

    def _stuck(
        self,
        snapshot: Snapshot,
        free: Mapping[DeploymentId, Deployment],
        moved: AbstractSet[DeploymentId],
    ) -> Iterator[_Late]:
        """Yield each deployment that stays at a wrong number of routes, and does not move (I12)."""
        now_ms, wrong = snapshot.now_ms, {}
        for key, one in free.items():
            if self._counts[key].active == one.target_count or not _kept(one):
                continue
            wrong[key] = now_ms if key in moved else self._unbalanced.get(key, now_ms)
        self._unbalanced = wrong
        for key, at_ms in wrong.items():
            if now_ms - at_ms > STILL_MS:
                yield Invariant.CONVERGENCE, key, key

    def _told_once(self, found: Iterable[tuple[Invariant, str]]) -> Iterator[Invariant]:
        for breach in found:
            if breach not in self._told:
                self._told.add(breach)
                yield breach[0]


def _kept(deployment: Deployment) -> bool:
    """Tell whether `check_replicas` keeps the count of this one."""
    current = deployment.current
    return (
        deployment.lifecycle is Lifecycle.READY
        and current is not None
        and not current.spec.external
    )


def _count(deployment: Deployment, routes: Sequence[Route]) -> _Count:
    gone = deployment.lifecycle in (Lifecycle.DESTROYING, Lifecycle.DESTROYED)
    used = set() if gone else known_revisions(deployment).keys()
    current = None if deployment.current is None else deployment.current.id
    return _Count(
        orphans=tuple(r for r in routes if used and r.revision_id not in used and r.active),
        ready=sum(route.revision_id in used and route.serves for route in routes),
        active=sum(route.revision_id == current and route.active for route in routes),
    )
