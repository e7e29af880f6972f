"""Leadership: one row that says who may write, until when, and for the how-manieth time.

Held by the controller daemon; the fence that uses it is in `controller.db.session`. Only the
database's clock decides; a takeover increments the epoch, and an old epoch cannot commit.
"""

from typing import Final

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from controller.db.session import LEASE_NAME, Database
from controller.db.tables import leader_lease
from controller.errors import LeaseLost

LEASE_S: Final = 15.0
"""Three renewals of 5 s may fail before another controller takes over."""

_of: Final = leader_lease.c


class Lease:
    """One holder's hold on the lease; not to be shared by two holders."""

    def __init__(self, database: Database, *, holder: str, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._holder = holder
        self._lease_ms = int(lease_s * 1000)
        self._epoch: int | None = None

    @property
    def epoch(self) -> int | None:
        """Return the epoch held; None before `acquire` and after the lease is gone."""
        return self._epoch

    async def acquire(self) -> int | None:
        """Take the lease when nobody holds it; return its new epoch, or None to try again later.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        try:
            async with self._database.write(epoch=None) as write:
                row = {"name": LEASE_NAME, "holder": self._holder}
                until = {"expires_at_ms": write.now_ms + self._lease_ms}
                known = select(_of.epoch).where(_of.name == LEASE_NAME)
                if (await write.connection.execute(known)).scalar_one_or_none() is None:
                    first = insert(leader_lease).values(row | until | {"epoch": 1})
                    await write.connection.execute(first)
                    taken: int | None = 1
                else:
                    taking = (
                        update(leader_lease)
                        .where(_of.name == LEASE_NAME, _of.expires_at_ms <= write.now_ms)
                        .values(row | until | {"epoch": _of.epoch + 1})
                        .returning(_of.epoch)
                    )
                    taken = (await write.connection.execute(taking)).scalar_one_or_none()
        except IntegrityError:  # another holder wrote the very first row in this moment
            taken = None
        self._epoch = taken
        return taken

    async def renew(self) -> None:
        """Hold the lease for another term, also when it ran out and nobody has taken it since.

        Raises:
            LeaseLost: if it is another's now; stop writing at once.
            DatabaseUnreachable: if the database does not answer.
        """
        epoch = self._epoch
        if epoch is None or not await self._set_expiry(epoch, self._lease_ms):
            self._epoch = None
            raise LeaseLost(
                f"{self._holder} does not hold the lease {LEASE_NAME!r}; stop and start again"
            )

    async def release(self) -> None:
        """Give the lease up, so that another holder need not wait; harmless when it is gone.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            await self._set_expiry(epoch, 0)

    async def _set_expiry(self, epoch: int, from_now_ms: int) -> bool:
        async with self._database.write(epoch=None) as write:
            holding = (
                update(leader_lease)
                .where(_of.name == LEASE_NAME, _of.epoch == epoch, _of.holder == self._holder)
                .values(expires_at_ms=write.now_ms + from_now_ms)
            )
            return (await write.connection.execute(holding)).rowcount == 1
