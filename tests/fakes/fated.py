"""A controller whose fate a test decides: `python -m tests.fakes.fated`, with FATE as JSON.

It is the real program on the real database; only its luck is not. `die_at` n with `when` before
or after: it kills itself (SIGKILL) around the n-th commit that changes more than the lease, of
those since a file called `since` exists, where one is named.
`stop_at` n: it stops itself (SIGSTOP) in the n-th write under an epoch, once it knows that it
leads and before it writes. `fenced` false: it asks whether it leads, and writes afterwards, as two
transactions: what every write did if there were no fence.
"""

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from sqlalchemy import event, select
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import PoolProxiedConnection

from controller.cli.daemon import controller
from controller.db import session
from controller.db.server import Server
from controller.db.session import TALLY, Database, Write, now_ms
from controller.db.tables import leader_lease
from controller.errors import LeaseLost

NOTHING_LOST = {"leader_lease"}
"""Writes of these tables come with time, not with work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What a test wants to happen to one process."""

    die_at: int = 0
    when: str = "before"
    since: str = ""
    stop_at: int = 0
    fenced: bool = True


class Commits:
    """Counts commits, and ends the process around one of them."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate
        self._seen = 0
        self._counts = False

    def listen_to(self, server: Server) -> None:
        engine = server.engine.sync_engine
        event.listen(engine, "commit", self._note)
        engine.dialect.do_commit = self._around(  # type: ignore[method-assign, assignment]
            engine.dialect.do_commit
        )

    def _note(self, connection: Connection) -> None:
        tally = connection.get_execution_options().get(TALLY, {})
        changes = bool({table for table, rows in tally.items() if rows} - NOTHING_LOST)
        since = self._fate.since
        self._counts = changes and (not since or os.path.exists(since))  # noqa: PTH110 - a string
        self._seen += self._counts

    def _around(
        self, commit: Callable[[PoolProxiedConnection], None]
    ) -> Callable[[PoolProxiedConnection], None]:
        def do_commit(dbapi_connection: PoolProxiedConnection) -> None:
            # What was noted just before is of this very commit: nothing was awaited in between.
            ends = self._counts and self._seen == self._fate.die_at
            self._counts = False
            if ends and self._fate.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            commit(dbapi_connection)
            if ends:
                os.kill(os.getpid(), signal.SIGKILL)

        return do_commit


def arrange(fate: Fate) -> None:
    """Let every database that is opened from now on share `fate`."""
    opened, write = Database.__init__, Database.write
    fence = session._pass_fence
    writes = [0]

    def stop_when_told(epoch: int | None) -> None:
        if epoch is not None:
            writes[0] += 1
            if writes[0] == fate.stop_at:
                os.kill(os.getpid(), signal.SIGSTOP)

    def init(self: Database, server: Server) -> None:
        opened(self, server)
        if fate.die_at:
            Commits(fate).listen_to(server)

    async def pass_fence(connection: AsyncConnection, epoch: int | None) -> int:
        now = await fence(connection, epoch)
        stop_when_told(epoch)
        return now

    @asynccontextmanager
    async def check_then_write(self: Database, *, epoch: int | None) -> AsyncIterator[Write]:
        if epoch is not None:
            async with self.read() as connection:
                await _leads(connection, epoch)
            stop_when_told(epoch)
        async with write(self, epoch=None) as unfenced:
            yield replace(unfenced, epoch=epoch)

    Database.__init__ = init  # type: ignore[method-assign]
    if fate.fenced:
        session._pass_fence = pass_fence
    else:
        Database.write = check_then_write  # type: ignore[method-assign]


async def _leads(connection: AsyncConnection, epoch: int) -> None:
    """Ask as the fence does, but lock nothing."""
    of = leader_lease.c
    leading = await connection.execute(select(of.epoch).where(of.expires_at_ms > now_ms()))
    if leading.scalar_one_or_none() != epoch:
        raise LeaseLost(f"epoch {epoch} has ended, as a look before the write told")


if __name__ == "__main__":
    arrange(Fate(**json.loads(os.environ["FATE"])))
    controller()
