"""History as it is written, for those who follow it.

A row is shown a moment after it was written: rows get their number before their transaction ends,
and one with a lower number may appear after one with a higher. None is shown before all with lower
numbers are, or who follows would never see those.
"""

from dataclasses import fields
from itertools import takewhile
from operator import itemgetter
from typing import Final

from sqlalchemy import func, or_, select

from controller.db.events import HistoryEntry
from controller.db.session import Database, now_ms
from controller.db.tables import history

SETTLE_MS: Final = 1000
"""Longer than a write transaction of ours takes."""


class Feed:
    """The history of all deployments and routes, in order. Raises DatabaseUnreachable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self) -> int:
        """Return where the history stands now; 0 when there is none."""
        async with self._database.read() as connection:
            return int((await connection.execute(select(func.max(history.c.id)))).scalar() or 0)

    async def after(self, last: int, *, limit: int) -> tuple[tuple[int, HistoryEntry], ...]:
        """Return what came after row `last`, oldest first, with its numbers."""
        columns = [history.c[field.name] for field in fields(HistoryEntry)]
        written_ms = history.c.created_at_ms
        # What is of later than now was written before the clock was set back.
        settled = or_(written_ms <= now_ms() - SETTLE_MS, written_ms > now_ms()).label("settled")
        query = (
            select(history.c.id, settled, *columns)
            .where(history.c.id > last)
            .order_by(history.c.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return tuple(
            (
                row["id"],
                HistoryEntry(**{field.name: row[field.name] for field in fields(HistoryEntry)}),
            )
            for row in takewhile(itemgetter("settled"), rows)
        )

    async def latest(self, *, limit: int) -> tuple[HistoryEntry, ...]:
        """Return the newest entries of all, newest first."""
        columns = [history.c[field.name] for field in fields(HistoryEntry)]
        query = select(*columns).order_by(history.c.id.desc()).limit(limit)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings()
            return tuple(HistoryEntry(**row) for row in rows)
