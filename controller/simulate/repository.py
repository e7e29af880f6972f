"""The repository over rows in memory: the same questions, the same answers.

The contract suite of `controller.db.repository` runs on it. Each controller of a simulated world
has one of its own, so that it counts what this one wrote.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from controller.change import created, moved
from controller.db import evictions, holds
from controller.db.events import HistoryEntry, deployment_changed
from controller.db.repository import Applied, Repository
from controller.errors import Conflict
from controller.model import (
    Decision,
    Deployment,
    DeploymentId,
    HoldSpan,
    Lifecycle,
    Note,
    Outcome,
    RolloutId,
    Route,
    RouteChange,
    RouteId,
    Snapshot,
    Stage,
)
from controller.route.evict import HEALTH_POLICY
from controller.route.grounds import Eviction
from controller.route.guard.budget import WINDOW_MS
from controller.simulate.rows import Rows
from controller.simulate.tables import LOST
from controller.simulate.transaction import Write, changing

_GOING = (Lifecycle.DESTROYING, Lifecycle.DESTROYED)


class MemoryRepository(Repository):
    """A repository on `Rows`."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._written: Counter[str] = Counter()

    @property
    def sql_writes(self) -> Mapping[str, int]:
        """Return rows written per table, by this controller."""
        return self._written

    async def observe(self) -> Snapshot:
        """Return the rows at one moment."""
        await self.rows.reach()
        deployments, tables = self.rows.living(), self.rows.tables
        routes = tuple(sorted(tables.routes.values(), key=lambda r: (r.created_at_ms, r.id)))
        since_ms = _oldest_clock(deployments.values(), routes)
        return Snapshot(
            now_ms=self.rows.now_ms(),
            deployments=deployments,
            routes=routes,
            failed_counts=self._failed(deployments.values()),
            holds=() if since_ms is None else _spans(tables.holds, since_ms),
        )

    def _failed(self, deployments: Iterable[Deployment]) -> dict[RolloutId, int]:
        in_flight = {each.rollout.id for each in deployments if each.rollout is not None}
        tables = self.rows.tables
        counts: Counter[RolloutId] = Counter()
        for route_id, rollout_id in tables.made_by.items():
            if rollout_id not in in_flight:
                continue
            route = tables.routes.get(route_id)
            counts[rollout_id] += route is None or route.status in LOST
        return {key: count for key, count in counts.items() if count}

    async def open_holds(self) -> frozenset[DeploymentId | None]:
        """Return who was held when it was last recorded."""
        await self.rows.reach()
        return _open(self.rows.tables.holds)

    async def record_holds(self, held: holds.Held, *, epoch: int) -> int:
        """Begin and end what differs from `held`."""
        await self.rows.reach()
        with self.rows.write(epoch=epoch) as write:
            known = _open(write.tables.holds)
            over = known - held.keys()
            write.tables.holds = [
                HoldSpan(deployment_id=span.deployment_id, from_ms=span.from_ms, to_ms=write.now_ms)
                if span.to_ms is None and span.deployment_id in over
                else span
                for span in write.tables.holds
            ]
            new = sorted(held.keys() - known, key=str)
            write.tables.holds += [
                HoldSpan(deployment_id=key, from_ms=write.now_ms, to_ms=None) for key in new
            ]
        await self._done(write)
        return len(over) + len(new)

    async def clock_ms(self) -> int:
        """Return the database's time now."""
        await self.rows.reach()
        return self.rows.now_ms()

    async def stamp(self) -> str:
        """Return a text that differs whenever a deployment was written since."""
        await self.rows.reach()
        known = self.rows.tables.deployments
        return f"{len(known)}.{sum(each.version for each in known.values())}"

    async def apply(
        self, changes: Sequence[RouteChange], notes: Sequence[Note] = (), *, epoch: int
    ) -> Applied:
        """Write the changes whose route is still as it was seen."""
        wanted = changing(changes)
        if not wanted and not notes:
            return Applied(applied=0, lost=())
        await self.rows.reach()
        with self.rows.write(epoch=epoch) as write:
            lost = write.route_changes(wanted)
            write.write_notes(notes)
        await self._done(write)
        return Applied(applied=len(wanted) - len(lost), lost=tuple(lost))

    async def record(self, note: Note, *, epoch: int) -> int:
        """Write a note; return how often it was made in a row (R-12)."""
        await self.rows.reach()
        with self.rows.write(epoch=epoch) as write:
            write.write_notes([note])
            subject = note.route_id or note.deployment_id
            newest = write.tables.history[write.tables.newest[subject, note.category]]
        await self._done(write)
        return newest.attempts

    async def evict(self, wanted: Sequence[Eviction], *, epoch: int) -> Applied:
        """Write the evictions whose grounds still are what they were (S14)."""
        if not wanted:
            return Applied(applied=0, lost=())
        await self.rows.reach()
        with self.rows.write(epoch=epoch) as write:
            tables = write.tables
            admitted = evictions.choose(
                wanted,
                {key: evictions.pointers_of(each) for key, each in tables.deployments.items()},
                Counter(
                    key
                    for key, cause, at_ms in tables.evictions
                    if at_ms > write.now_ms - WINDOW_MS and cause == HEALTH_POLICY
                ),
                now_ms=write.now_ms,
            )
            changed = write.route_changes([each.change for each in admitted])
            done = [each for each in admitted if each.change.route.id not in changed]
            tables.evictions += [
                (each.deployment.id, each.change.error_code, write.now_ms) for each in done
            ]
        await self._done(write)
        return Applied(applied=len(done), lost=evictions.lost_of(wanted, done))

    async def commit(self, decision: Decision, *, epoch: int) -> None:
        """Write a decision whole, or not at all (R-13)."""
        if decision.empty:
            return
        await self.rows.reach()
        with self.rows.write(epoch=epoch) as write:
            _write_decision(write, decision)
        await self._done(write)

    async def history_of(
        self, subject: DeploymentId | RouteId, *, limit: int = 50
    ) -> tuple[HistoryEntry, ...]:
        """Return the newest entries of one deployment or one route, newest first."""
        await self.rows.reach()
        mine = [each for each in self.rows.tables.history if each.subject == subject]
        return tuple(mine[::-1][:limit])

    async def _done(self, write: Write) -> None:
        """Hear that it is committed; who dies here does not know."""
        self._written.update(write.written)
        await self.rows.exchange()


def _write_decision(write: Write, decision: Decision) -> None:
    seen, change = decision.deployment, decision.change
    if decision.create or decision.routes or change:
        _may(write, decision)
        if change is None:
            write.move(seen)
        else:
            write.put(moved(write.still(seen), change, now_ms=write.now_ms))
    lost = write.route_changes(changing(decision.routes))
    if lost:
        raise Conflict(
            f"deployment {seen.name!r}: {len(lost)} of {len(decision.routes)} routes "
            f"changed meanwhile, among them {lost[0]}; decide again from a new snapshot"
        )
    for wanted in decision.create:
        route = created(wanted, now_ms=write.now_ms)
        write.add_route(route, wanted.rollout_id, category="create")
    if change is not None:
        leaves = change.lifecycle is not Lifecycle.DEPLOYING or change.end_rollout is not None
        if leaves and seen.rollout is not None:
            outcome = change.end_rollout or Outcome.FAILED
            write.end_rollout(seen.rollout.id, outcome=outcome, message=change.message)
        write.write_events([deployment_changed(seen, change)])
    write.write_notes(decision.notes)


def _may(write: Write, decision: Decision) -> None:
    """Refuse what a deployment may not take, beyond being as seen (R-14, R-38).

    Raises:
        Conflict: if it may not.
    """
    seen, change = decision.deployment, decision.change
    known = write.tables.deployments.get(seen.id)
    if known is None:
        return
    comes_back = change is not None and change.lifecycle not in _GOING
    ok = not (known.lifecycle in _GOING and (decision.create or comes_back))
    mine = None if seen.rollout is None else seen.rollout.id
    its = None if known.rollout is None else known.rollout.id
    if change is None:
        pass
    elif change.end_rollout is not None:
        deploys = known.lifecycle is Lifecycle.DEPLOYING and known.deploying is not None
        ok = ok and deploys and its is not None and its == mine
    elif change.lifecycle is Lifecycle.DEPLOYING:
        ok = ok and its is not None
    else:
        ok = ok and (its is None or known.deploying is None)
    if not ok:
        raise Conflict(
            f"deployment {seen.name!r} may not go where a decision sends it; decide anew"
        )


def _oldest_clock(found: Iterable[Deployment], seen: Iterable[Route]) -> int | None:
    rollouts = [each.rollout.started_at_ms for each in found if each.rollout is not None]
    warming = [each.entered_at_ms for each in seen if each.stage is Stage.WARMING_UP]
    return min(rollouts + warming, default=None)


def _open(spans: Iterable[HoldSpan]) -> frozenset[DeploymentId | None]:
    return frozenset(span.deployment_id for span in spans if span.to_ms is None)


def _spans(spans: Iterable[HoldSpan], since_ms: int) -> tuple[HoldSpan, ...]:
    return tuple(span for span in spans if span.to_ms is None or span.to_ms > since_ms)
