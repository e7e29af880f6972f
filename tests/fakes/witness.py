"""A bus that says what a test wants it to say, and an observer that looks at it.

Time moves when told to, on every clock alike; what was asked of whom, and in which order, is kept
in `asked`.
"""

from collections.abc import Callable, Iterable, Sequence

from controller.bus import ControlBus, Evidence
from controller.db.repository import Repository
from controller.metrics import ControllerMetrics
from controller.model import Deployment, DeploymentId, Route, Snapshot
from controller.reconcile.handler import World
from controller.reconcile.observe import Observer
from controller.route.guard import generation_of
from probe.errors import BusUnreachable
from probe.wire import (
    PARTITIONS,
    OutcomeKind,
    ProberHeartbeat,
    Reason,
    ReplicaHealthStatus,
    ReplicaId,
)
from tests.fakes.nouns import NOW_MS, snapshot_of

EVERYWHERE = tuple(range(PARTITIONS))


def heartbeat(
    partitions: Sequence[int] = EVERYWHERE, *, instance: str = "p-1", sick: str = ""
) -> ProberHeartbeat:
    """Let a prober say that it lives and what it covers."""
    return ProberHeartbeat(
        instance=instance,
        sick=sick,
        partitions=tuple(partitions),
        targets=0,
        probes_per_second=0.0,
        loop_lag_ms=0.0,
        version="1",
        started_at=0.0,
        at=0.0,
    )


def said(route: Route, *, seq: int, generation: int | None = None) -> ReplicaHealthStatus:
    """Let a prober say that `route` passes, for the how-manieth time."""
    return ReplicaHealthStatus(
        replica_id=ReplicaId(route.id),
        healthy=True,
        outcome=OutcomeKind.PASSED,
        reason=Reason.OK,
        seq=seq,
        generation=generation_of(route) if generation is None else generation,
    )


class WitnessBus(ControlBus):
    """Says `epoch`, `probers`, `statuses` and `unreadable`; `away` makes it say nothing."""

    def __init__(self, asked: list[str], clock: Callable[[], float]) -> None:
        self.away = False
        self.skew_s = 0.0
        self._clock = clock
        self.epoch: str | None = "first"
        self.probers: dict[str, ProberHeartbeat] = {"p-1": heartbeat()}
        self.statuses: dict[ReplicaId, ReplicaHealthStatus] = {}
        self.unreadable: dict[ReplicaId, str] = {}
        self.asked_for: list[ReplicaId] = []
        self._asked = asked

    def say(self, *statuses: ReplicaHealthStatus) -> None:
        """Hold exactly these statuses."""
        self.statuses = {status.replica_id: status for status in statuses}

    async def read_evidence(self, replica_ids: Iterable[ReplicaId]) -> Evidence:
        self._reach("statuses")
        self.asked_for = list(replica_ids)
        return Evidence(
            time_s=self._clock() + self.skew_s,
            epoch=self.epoch,
            probers=dict(self.probers),
            statuses={k: v for k, v in self.statuses.items() if k not in self.unreadable},
            unreadable=dict(self.unreadable),
        )

    async def ensure_epoch(self) -> str:
        self._reach("epoch")
        self.epoch = self.epoch or "written by the controller"
        return self.epoch

    def _reach(self, what: str) -> None:
        self._asked.append(what)
        if self.away:
            raise BusUnreachable("the witness is away: set `away` to False")


class Ledger(Repository):
    """Holds the routes a test wants; each reading of its clock takes a millisecond."""

    def __init__(self, asked: list[str], clock: Callable[[], float]) -> None:
        self.routes: list[Route] = []
        self.deployments: tuple[Deployment, ...] = ()
        self.skew_s = 0.0
        self.held: frozenset[DeploymentId | None] = frozenset()
        """Who was held when an earlier leader wrote it last."""
        self._readings = 0
        self._clock = clock
        self._asked = asked

    @property
    def now_ms(self) -> int:
        """Return the moment of the last reading."""
        return NOW_MS + int((self._clock() + self.skew_s) * 1000) + self._readings

    async def observe(self) -> Snapshot:
        self._asked.append("database")
        return snapshot_of(self.routes, *self.deployments, now_ms=self._read())

    async def open_holds(self) -> frozenset[DeploymentId | None]:
        return self.held

    async def clock_ms(self) -> int:
        self._asked.append("clock")
        return self._read()

    def _read(self) -> int:
        self._readings += 1
        return self.now_ms


class Watch:
    """An observer on both, and everything it says."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self.asked: list[str] = []
        self.now_s = 1000.0
        self.bus = WitnessBus(self.asked, lambda: self.now_s)
        self.ledger = Ledger(self.asked, lambda: self.now_s)
        self.ledger.routes = list(routes)
        self.bus.say(*(said(route, seq=1) for route in routes))
        self.metrics = ControllerMetrics()
        self.amnesias = 0
        self.failed_looks = 0
        self.observer = Observer(
            self.ledger,
            self.bus,
            self.metrics,
            clock=lambda: self.now_s,
            on_amnesia=self._on_amnesia,
            on_failed_look=self._on_failed_look,
        )

    async def look(self, *, after_s: float = 0.0) -> World:
        """Let time pass, then look."""
        self.now_s += after_s
        return await self.observer.observe()

    def _on_amnesia(self) -> None:
        self.amnesias += 1

    def _on_failed_look(self) -> None:
        self.failed_looks += 1
