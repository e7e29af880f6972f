"""What the reconcile shell reads and writes: one moment of all, and changes on top of it.

Every write is a compare-and-set on what was seen, in one transaction with its history. Who wins
is decided here, what should happen is not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import func, select

from controller.change import changes_anything
from controller.db import evictions, history, holds
from controller.db.deciding import write_decision
from controller.db.deployments import ALIVE
from controller.db.events import HistoryEntry
from controller.db.moving import write_changes
from controller.db.readable import readable
from controller.db.rollouts import lost_of
from controller.db.rows import select_deployments, select_routes
from controller.db.session import Database, Write, now_ms
from controller.db.tables import LIVE, deployments, routes
from controller.model import (
    Decision,
    Deployment,
    DeploymentId,
    Note,
    Route,
    RouteChange,
    RouteId,
    Snapshot,
    Stage,
)
from controller.route.grounds import Eviction

log = structlog.get_logger()

_LIVE: Final = routes.c.status.in_(LIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What came of a batch of changes."""

    applied: int
    lost: tuple[RouteId, ...]
    """Changed by somebody else meanwhile: untouched, and without history (R-17)."""


class Repository:
    """Reads snapshots; writes changes and decisions under a lease's epoch."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unreadable: Mapping[DeploymentId, str] = {}
        """Those last told of."""

    @property
    def database(self) -> Database:
        """Return the database this reads and writes, for what is written beside it."""
        return self._database

    @property
    def sql_writes(self) -> Mapping[str, int]:
        """Return rows written per table since the start, by everyone who uses this database."""
        return self._database.sql_writes

    async def observe(self) -> Snapshot:
        """Return the database at one moment; `now_ms` is read last, so no age is negative.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        in_flight = select(deployments.c.rollout_id).where(deployments.c.rollout_id.is_not(None))
        async with self._database.read() as connection:
            known = (await connection.execute(select_deployments(ALIVE))).mappings().all()
            rows = (await connection.execute(select_routes(_LIVE))).all()
            found = readable(known, rows)
            counts = await lost_of(connection, in_flight)
            since_ms = _oldest_clock(found.deployments.values(), found.routes)
            held = () if since_ms is None else await holds.spans(connection, since_ms=since_ms)
            now = (await connection.execute(select(now_ms()))).scalar_one()
        self._tell_unreadable(found.unreadable)
        return Snapshot(
            now_ms=now,
            deployments=found.deployments,
            routes=found.routes,
            failed_counts=counts,
            holds=held,
            unreadable=found.unreadable,
            left_alone=found.left_alone,
        )

    def _tell_unreadable(self, unreadable: Mapping[DeploymentId, str]) -> None:
        if unreadable == self._unreadable:
            return
        for deployment_id in unreadable.keys() - self._unreadable.keys():
            log.error(
                "deployment_unreadable",
                deployment_id=deployment_id,
                why=unreadable[deployment_id],
                consequence="it is left alone, with its routes",
            )
        for deployment_id in self._unreadable.keys() - unreadable.keys():
            log.info("deployment_readable", deployment_id=deployment_id)
        self._unreadable = unreadable

    async def open_holds(self) -> frozenset[DeploymentId | None]:
        """Return who was held when it was last recorded; None stands for the fleet.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        async with self._database.read() as connection:
            return await holds.open_holds(connection)

    async def record_holds(self, held: holds.Held, *, epoch: int) -> int:
        """Begin and end what differs from `held`; return how many rows that took.

        Raises:
            LeaseLost: if `epoch` does not lead any more.
            DatabaseUnreachable: if the database does not answer.
        """
        async with self._database.write(epoch=epoch) as write:
            return await holds.write_holds(write, held)

    async def clock_ms(self) -> int:
        """Return the database's time now.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        async with self._database.read() as connection:
            return int((await connection.execute(select(now_ms()))).scalar_one())

    async def stamp(self) -> str:
        """Return a text that differs whenever a deployment was written since; one cheap query.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        query = select(func.count(), func.sum(deployments.c.version))
        async with self._database.read() as connection:
            count, versions = (await connection.execute(query)).one()
        return f"{count}.{versions or 0}"

    async def apply(
        self, changes: Sequence[RouteChange], notes: Sequence[Note] = (), *, epoch: int
    ) -> Applied:
        """Write the changes whose route is still as it was seen; the others are lost, not written.

        A change that would alter nothing is neither. Nothing to do means no I/O at all (R-04).

        Raises:
            LeaseLost: if `epoch` does not lead any more; nothing is written.
            DatabaseUnreachable: if the database does not answer; nothing is written.
        """
        wanted = [change for change in changes if changes_anything(change)]
        if not wanted and not notes:
            return Applied(applied=0, lost=())

        async def work(write: Write) -> Sequence[RouteId]:
            lost = await write_changes(write, wanted)
            await history.write_notes(write, notes)
            return lost

        lost = await self._database.transact(work, epoch=epoch)
        return Applied(applied=len(wanted) - len(lost), lost=tuple(lost))

    async def record(self, note: Note, *, epoch: int) -> int:
        """Write a note; return how often it was made in a row (R-12).

        Raises:
            LeaseLost: if `epoch` does not lead any more.
            DatabaseUnreachable: if the database does not answer.
        """

        async def work(write: Write) -> int:
            await history.write_notes(write, [note])
            return await history.attempts_of(write.connection, note)

        return await self._database.transact(work, epoch=epoch)

    async def evict(self, wanted: Sequence[Eviction], *, epoch: int) -> Applied:
        """Write the evictions whose grounds still are what they were (S14); the others are lost.

        Raises:
            LeaseLost: if `epoch` does not lead any more; nothing is written.
            DatabaseUnreachable: if the database does not answer; nothing is written.
        """
        if not wanted:
            return Applied(applied=0, lost=())
        async with self._database.write(epoch=epoch) as write:
            admitted = await evictions.admit(write, wanted)
            changed = await write_changes(write, [each.change for each in admitted])
            done = [each for each in admitted if each.change.route.id not in changed]
            await evictions.record(write, done)
        return Applied(applied=len(done), lost=evictions.lost_of(wanted, done))

    async def commit(self, decision: Decision, *, epoch: int) -> None:
        """Write a decision whole, or not at all (R-13).

        Raises:
            Conflict: if the deployment or a route is not as it was seen, or may not go there.
            LeaseLost: if `epoch` does not lead any more.
            DatabaseUnreachable: if the database does not answer.
        """
        if decision.empty:
            return

        async def work(write: Write) -> None:
            await write_decision(write, decision)

        await self._database.transact(work, epoch=epoch)

    async def history_of(
        self, subject: DeploymentId | RouteId, *, limit: int = 50
    ) -> tuple[HistoryEntry, ...]:
        """Return the newest entries of one deployment or one route, newest first.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        async with self._database.read() as connection:
            return await history.history_of(connection, subject, limit=limit)


def _oldest_clock(found: Iterable[Deployment], seen: Iterable[Route]) -> int | None:
    """Return since when the oldest clock runs that HOLD can stop; None: none runs."""
    rollouts = [each.rollout.started_at_ms for each in found if each.rollout is not None]
    warming = [each.entered_at_ms for each in seen if each.stage is Stage.WARMING_UP]
    return min(rollouts + warming, default=None)
