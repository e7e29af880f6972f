"""The bus in memory, as a controller meets it: targets, statuses, heartbeats and proxy tables.

`Board` is the memory itself; the probers write on it, too. Its clock is its own.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from controller.bus import ControlBus, Evidence, Written
from controller.model import DeploymentId
from controller.publish.appproxy import AppProxy, Outcome
from controller.route.table import Publication
from probe.errors import BusUnreachable
from probe.wire import (
    TARGET_TTL_S,
    ProberHeartbeat,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
)


@dataclass(slots=True)
class Board:
    """What the bus holds, each with the moment at which its time to live is over."""

    clock: Callable[[], float]
    """The bus's own, in seconds."""
    epoch: str | None = None
    epochs: int = 0
    targets: dict[ReplicaId, tuple[ReplicaProbeTarget, float]] = field(default_factory=dict)
    statuses: dict[ReplicaId, tuple[ReplicaHealthStatus, float]] = field(default_factory=dict)
    beats: dict[str, tuple[ProberHeartbeat, float]] = field(default_factory=dict)
    tables: dict[DeploymentId, Publication] = field(default_factory=dict)
    away: bool = False
    proxy_fails: float = 0.0
    """The share of writes for proxies that fail."""

    def flush(self) -> None:
        """Forget everything."""
        self.epoch = None
        for each in (self.targets, self.statuses, self.beats, self.tables):
            each.clear()


class MemoryBus(ControlBus):
    """A controller's side of a `Board`."""

    def __init__(self, board: Board, exchange: Callable[[], Awaitable[None]]) -> None:
        self._board = board
        self._exchange = exchange

    async def ensure_epoch(self) -> str:
        """Return the epoch, and write a new one if there is none."""
        await self._reach()
        board = self._board
        if board.epoch is None:
            board.epochs += 1
            board.epoch = f"memory-{board.epochs}"
        return board.epoch

    async def read_evidence(self, replica_ids: Iterable[ReplicaId]) -> Evidence:
        """Read time, epoch, living probers, and the statuses asked for."""
        await self._reach()
        board = self._board
        now_s = board.clock()
        found = {key: board.statuses[key] for key in replica_ids if key in board.statuses}
        return Evidence(
            time_s=now_s,
            epoch=board.epoch,
            probers={name: beat for name, (beat, end_s) in board.beats.items() if end_s > now_s},
            statuses={key: status for key, (status, end_s) in found.items() if end_s > now_s},
            unreadable={},
        )

    async def write_targets(self, targets: Iterable[ReplicaProbeTarget]) -> Written:
        """Write targets for an hour."""
        await self._reach()
        given = [*targets]
        end_s = self._board.clock() + TARGET_TTL_S
        self._board.targets |= {target.replica_id: (target, end_s) for target in given}
        return Written(written=len(given), failed=())

    async def remove_targets(self, replica_ids: Iterable[ReplicaId]) -> None:
        """Delete targets with their statuses."""
        await self._reach()
        for replica_id in replica_ids:
            self._board.targets.pop(replica_id, None)
            self._board.statuses.pop(replica_id, None)

    async def _reach(self) -> None:
        await self._exchange()
        if self._board.away:
            raise BusUnreachable("the simulated bus is away")


class MemoryProxy(AppProxy):
    """What proxies read, on a `Board`; never replaced by an older table (R-50)."""

    def __init__(
        self,
        board: Board,
        exchange: Callable[[], Awaitable[None]],
        chance: Random,
        *,
        on_table: Callable[[Publication], None],
    ) -> None:
        self._board = board
        self._exchange = exchange
        self._chance = chance
        self._on_table = on_table

    async def write(
        self, publications: Sequence[Publication], *, announce: bool
    ) -> tuple[Outcome, ...]:
        """Write tables; return what became of each."""
        del announce
        await self._exchange()
        board = self._board
        if board.away:
            raise BusUnreachable("the simulated bus is away")
        if board.proxy_fails and self._chance.random() < board.proxy_fails:
            raise BusUnreachable("the simulated proxy does not take it")
        return tuple(map(self._put, publications))

    def _put(self, publication: Publication) -> Outcome:
        known = self._board.tables.get(publication.deployment_id)
        if known is not None and known.version > publication.version:
            return Outcome.OLDER
        self._board.tables[publication.deployment_id] = publication
        if known is not None and known.table == publication.table:
            return Outcome.SAME if known.version == publication.version else Outcome.CHANGED
        self._on_table(publication)
        return Outcome.CHANGED
