"""Several real controllers on one database, of which a test stops the one that leads."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, Self

import anyio
from anyio.abc import TaskGroup

from controller.errors import DatabaseUnreachable
from tests.fakes.controller import ControllerProcess
from tests.fakes.ledger import LeaseRow, Ledger
from tests.fakes.prober import until

LEASE_LOST: Final = 4
END_WITHIN_S: Final = 60.0
"""A second or two, but on a machine that has none to spare."""


class Team:
    """Controllers, one of which leads; the lease's row says which."""

    def __init__(self, stack: AsyncExitStack, folder: Path, settings: dict[str, Any]) -> None:
        self.fate: dict[str, object] | None = None
        """What those who join from now on are in for."""
        self._stack = stack
        self._folder = folder
        self._settings = settings
        self._number = count(1)
        self.members: dict[int, ControllerProcess] = {}

    @classmethod
    @asynccontextmanager
    async def of(cls, folder: Path, **settings: Any) -> AsyncIterator[Self]:  # noqa: ANN401 - any setting
        """Let controllers join; kill what is left of them at the end."""
        async with AsyncExitStack() as stack:
            team = cls(stack, folder, settings)
            try:
                yield team
            finally:
                for pid, member in team.members.items():
                    if member.process.returncode is None:
                        os.kill(pid, signal.SIGKILL)  # who stands still ends in no other way

    async def join(self) -> int:
        """Start one more."""
        log = self._folder / f"controller-{next(self._number)}.log"
        running = ControllerProcess.running(log, fate=self.fate, **self._settings)
        member = await self._stack.enter_async_context(running)
        self.members[member.process.pid] = member
        return member.process.pid

    async def gather(self, size: int) -> None:
        """Start several at once."""
        async with anyio.create_task_group() as group:
            for _ in range(size):
                group.start_soon(self.join)

    async def stands_by(self, group: TaskGroup | None = None) -> None:
        """Wait until somebody waits for the lease beside its holder."""

        async def somebody() -> bool:
            if group is not None:
                await self.replace_ended(group)
            logs = [await anyio.Path(m.log).read_text() for m in list(self.members.values())]
            return (
                sum("event=standing_by" in log and "event=leading" not in log for log in logs) > 0
            )

        await until(somebody, within_s=END_WITHIN_S)

    async def replace_ended(self, group: TaskGroup) -> None:
        """Let somebody join for each that lost its lease by itself, on a machine with no time."""
        for pid in [p for p, m in self.members.items() if m.process.returncode is not None]:
            assert (await self.ended(pid))[0] == LEASE_LOST
            group.start_soon(self.join)

    async def stands_still(self, pid: int) -> None:
        """Wait until one that is to stop itself has done so."""

        async def stopped() -> bool:
            status = await anyio.Path(f"/proc/{pid}/stat").read_text()
            return status.rpartition(")")[2].split()[0] == "T"

        await until(stopped, within_s=END_WITHIN_S)

    async def leader(self, ledger: Ledger) -> tuple[int, LeaseRow]:
        """Return who leads, once somebody among us does, and the lease by which."""
        with anyio.fail_after(END_WITHIN_S):
            while True:
                try:
                    lease = await ledger.lease()
                except DatabaseUnreachable:
                    lease = None
                if lease is not None and lease.expires_at_ms > lease.now_ms:
                    pid = int(lease.holder.rpartition("-")[2])
                    if pid in self.members:
                        return pid, lease
                await anyio.sleep(0.02)

    async def ended(self, pid: int) -> tuple[int, str]:
        """Wait for the end of one that is to end by itself; return its code and its last words."""
        member = self.members[pid]
        with anyio.fail_after(END_WITHIN_S):
            code = await member.process.wait()
        del self.members[pid]
        said = member.log.read_text()
        assert "Traceback" not in said, said
        return code, said.splitlines()[-1]

    async def disband(self) -> list[int]:
        """End everybody in order; return their exit codes."""
        return [await self.members.pop(pid).end() for pid in list(self.members)]
