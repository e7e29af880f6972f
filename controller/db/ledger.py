"""The books, audited: each route's changes against its rows of history, and the epochs in order.

Asked by `audit_history`, a few routes at a time. An independent count: versions are what
the compare-and-set moved, rows are what was written beside it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import and_, case, func, select

from controller.db.bulk import chunks
from controller.db.session import Database
from controller.db.tables import history, routes
from controller.model import RouteId

ROWS_MAX: Final = 5_000
"""Rows whose epochs are compared at once: more than a busy minute writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epochs:
    """How far the epochs were read."""

    last_id: int
    """Of the rows of history read."""
    highest: int
    """The newest epoch among them."""
    went_back: int
    """Rows of an epoch that was over."""


class Ledger:
    """Reads the books of one database; all raise DatabaseUnreachable when it does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def miscounted(self, route_ids: Iterable[RouteId]) -> tuple[RouteId, ...]:
        """Return those that have more or fewer rows of changes than changes (I7).

        A route whose row of creation was pruned is not judged: the rows after it may be, too.
        """
        rows = func.count(history.c.id)
        first = func.coalesce(func.sum(case((history.c.from_state == "", 1), else_=0)), 0)
        changes = and_(history.c.subject == routes.c.id, history.c.result == "success")
        wrong: list[RouteId] = []
        async with self._database.read() as connection:
            for ids in chunks(route_ids):
                query = (
                    select(routes.c.id)
                    .select_from(routes.outerjoin(history, changes))
                    .where(routes.c.id.in_(ids))
                    .group_by(routes.c.id, routes.c.version)
                    .having((first > 1) | ((first == 1) & (rows != routes.c.version)))
                )
                wrong += (RouteId(found) for (found,) in await connection.execute(query))
        return tuple(wrong)

    async def epochs(self, known: Epochs | None) -> Epochs:
        """Read on from `known`; without it, begin with the newest rows (I8).

        A row that was counted up carries the epoch of its last time, so it tells nothing of when
        it was written.
        """
        async with self._database.read() as connection:
            newest = (await connection.execute(select(func.max(history.c.id)))).scalar_one() or 0
            after = newest - ROWS_MAX if known is None else known.last_id
            query = (
                select(history.c.epoch)
                .where(history.c.id > after, history.c.id <= newest)
                .where(history.c.epoch.is_not(None), history.c.attempts == 1)
                .order_by(history.c.id)
                .limit(ROWS_MAX)
            )
            found = [epoch for (epoch,) in await connection.execute(query)]
        highest, back = 0 if known is None else known.highest, 0
        for epoch in found:
            back += epoch < highest
            highest = max(highest, epoch)
        return Epochs(last_id=newest, highest=highest, went_back=back)
