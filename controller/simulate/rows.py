"""The database in memory; it is written whole or not at all, under the epoch of its lease."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from controller.errors import DatabaseUnreachable, LeaseLost
from controller.model import Deployment, DeploymentId
from controller.simulate.tables import Tables, copied, is_gone
from controller.simulate.transaction import Write

Commit = Callable[[Write], None]


async def _at_once() -> None:
    """Let an exchange take no time."""


@dataclass(slots=True)
class Lease:
    """Who leads, and until when."""

    holder: str = ""
    epoch: int = 0
    expires_at_ms: int = 0


class Rows:
    """One database; every controller of a simulated world shares it."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        *,
        exchange: Callable[[], Awaitable[None]] = _at_once,
        on_commit: Commit | None = None,
    ) -> None:
        """Prepare an empty one; `exchange` is awaited once before and once after each access."""
        self.now_ms = now_ms
        self.exchange = exchange
        self.tables = Tables()
        self.lease = Lease()
        self.away = False
        self._on_commit = on_commit

    async def reach(self) -> None:
        """Pass the way to the database.

        Raises:
            DatabaseUnreachable: if it is away.
        """
        await self.exchange()
        if self.away:
            raise DatabaseUnreachable("the simulated database is away")

    @contextmanager
    def write(self, *, epoch: int | None) -> Iterator[Write]:
        """Open a transaction; nothing of it is left when anything in it raises.

        Raises:
            LeaseLost: if `epoch` does not lead any more.
        """
        now_ms = self.now_ms()
        if epoch is not None and (self.lease.epoch != epoch or self.lease.expires_at_ms <= now_ms):
            raise LeaseLost(f"epoch {epoch} has ended; stop writing and start again")
        before = self.tables
        write = Write(copied(before), now_ms=now_ms, epoch=epoch)
        yield write
        self.tables = write.tables
        if self._on_commit is not None:
            self._on_commit(write)

    def deployment(self, name: str) -> Deployment | None:
        """Return the living deployment called `name`."""
        for deployment in self.tables.deployments.values():
            if deployment.name == name and not is_gone(deployment):
                return self.seen(deployment)
        return None

    def seen(self, deployment: Deployment) -> Deployment:
        """Return a deployment as a reader sees it now: with its rollout's row, and what is kept."""
        rollout, kept = deployment.rollout, deployment.kept
        until_ms = deployment.kept_until_ms
        if kept is not None and (until_ms is None or until_ms <= self.now_ms()):
            kept = None
        row = None if rollout is None else self.tables.rollouts[rollout.id]
        if row is rollout and kept is deployment.kept:
            return deployment
        return replace(deployment, rollout=row, kept=kept)

    def living(self) -> Mapping[DeploymentId, Deployment]:
        """Return the deployments that are not destroyed, oldest first."""
        return {
            key: self.seen(each)
            for key, each in self.tables.deployments.items()
            if not is_gone(each)
        }
