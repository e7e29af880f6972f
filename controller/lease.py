"""Leadership: one row that says who may write, until when, and for the how-manieth time.

Held by the controller daemon; the fence that uses it is in `controller.db.session`. Only the
database's clock decides; a takeover increments the epoch, and an old epoch cannot commit. This
process's own clock only says how long to wait, and how long the lease is surely still held.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

import anyio
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from controller.db.cut import clears_the_way
from controller.db.session import LEASE_NAME, Database, Write, now_ms
from controller.db.tables import leader_lease
from controller.errors import LeaseLost

LEASE_S: Final = 15.0
"""Three renewals of 5 s may fail before another controller takes over."""
RETRY_S: Final = 2.0
"""A standby looks at the lease this often: it may be given up before its time."""
MARGIN_S: Final = 0.02
"""So much later than its expiry a lease is tried for: both clocks have a grain of milliseconds."""

PATIENCE_S: Final = 1.0
"""A leader whose time ran out may say nothing for so long in the midst of a write."""

_of: Final = leader_lease.c


class Lease:
    """One holder's hold on the lease; not to be shared by two holders."""

    def __init__(
        self,
        database: Database,
        *,
        holder: str,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._holder = holder
        self._lease_s = lease_s
        self._clock = clock
        self._epoch: int | None = None
        self._sure_until = float("-inf")
        self._free_in_s = 0.0
        self._renewing = anyio.Lock()
        self._lost = f"{holder} does not hold the lease {LEASE_NAME!r}"

    @property
    def epoch(self) -> int | None:
        """Return the epoch held; None before `acquire` and after the lease is gone."""
        return self._epoch

    @property
    def sure(self) -> bool:
        """Tell whether nobody else can have taken the lease yet."""
        return self._epoch is not None and self._clock() < self._sure_until

    def doubt(self) -> None:
        """Be no longer sure: the database refused a write under this epoch."""
        self._sure_until = float("-inf")

    @property
    def pause_s(self) -> float:
        """Return how long to wait before another `acquire`: no longer than the lease of others."""
        return min(RETRY_S, self._free_in_s + MARGIN_S)

    async def acquire(self) -> int | None:
        """Take the lease when nobody holds it; return its new epoch, or None to try again later.

        While another holds it this only reads, so that standbys cost the leader no lock.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        started, taken = self._clock(), None
        self._free_in_s = await self._held_for_s()
        if self._free_in_s <= 0:
            try:
                async with self._database.write(epoch=None) as write:
                    taken = await self._take(write)
            except IntegrityError:  # another holder wrote the very first row in this moment
                taken = None
        if taken is not None:
            self._sure_until = started + self._lease_s
        self._epoch = taken
        return taken

    async def renew(self) -> None:
        """Hold the lease for another term, also when it ran out and nobody has taken it since.

        Raises:
            LeaseLost: if it is another's now; stop writing at once.
            DatabaseUnreachable: if the database does not answer.
        """
        async with self._renewing:  # so that whoever asks second is told the same as the first
            epoch, started = self._epoch, self._clock()
            if epoch is None:
                raise LeaseLost(self._lost)
            if not await self._set_expiry(epoch, int(self._lease_s * 1000)):
                self._epoch = None
                self._lost = (
                    f"{self._holder} does not hold the lease {LEASE_NAME!r} any more: "
                    f"{await self._whose()}; stop and start again, to be its standby"
                )
                raise LeaseLost(self._lost)
            self._sure_until = started + self._lease_s

    async def release(self) -> None:
        """Give the lease up, so that another holder need not wait; harmless when it is gone.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            await self._set_expiry(epoch, 0)

    async def _held_for_s(self) -> float:
        """Return how much longer somebody holds the lease, by the database's clock."""
        query = select(_of.expires_at_ms - now_ms()).where(_of.name == LEASE_NAME)
        async with self._database.read() as connection:
            left_ms = (await connection.execute(query)).scalar_one_or_none()
        return 0.0 if left_ms is None else max(0.0, left_ms / 1000)

    async def _take(self, write: Write) -> int | None:
        row: dict[str, object] = {"name": LEASE_NAME, "holder": self._holder}
        until = {"expires_at_ms": write.now_ms + int(self._lease_s * 1000)}
        known = select(_of.epoch).where(_of.name == LEASE_NAME)
        if (await write.connection.execute(known)).scalar_one_or_none() is None:
            first = insert(leader_lease).values(row | until | {"epoch": 1})
            await write.connection.execute(first)
            return 1
        async with clears_the_way(self._database, write.connection, after_s=PATIENCE_S):
            return await self._take_over(write, row | until)

    async def _take_over(self, write: Write, values: Mapping[str, object]) -> int | None:
        taking = (
            update(leader_lease)
            .where(_of.name == LEASE_NAME, _of.expires_at_ms <= write.now_ms)
            .values({**values, "epoch": _of.epoch + 1})
            .returning(_of.epoch)
        )
        taken: int | None = (await write.connection.execute(taking)).scalar_one_or_none()
        return taken

    async def _set_expiry(self, epoch: int, from_now_ms: int) -> bool:
        async with self._database.write(epoch=None) as write:
            holding = (
                update(leader_lease)
                .where(_of.name == LEASE_NAME, _of.epoch == epoch, _of.holder == self._holder)
                .values(expires_at_ms=write.now_ms + from_now_ms)
            )
            return (await write.connection.execute(holding)).rowcount == 1

    async def _whose(self) -> str:
        query = select(_of.holder, _of.epoch).where(_of.name == LEASE_NAME)
        async with self._database.read() as connection:
            found = (await connection.execute(query)).one_or_none()
        return "its row is gone" if found is None else f"{found[0]} leads, in epoch {found[1]}"
