"""One moment of everything: the database, the bus, and how much either can be trusted.

The bus is a witness, not a record. What this keeps between ticks is only what judges the
witness: when each status last moved, since when each partition is watched, and whether the bus
lost its memory. All of that is measured on this process's monotonic clock.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import structlog

from controller.bus import ControlBus, Evidence
from controller.db.repository import Repository
from controller.metrics import ControllerMetrics
from controller.model import Route, RouteId, RouteStatus, Snapshot, Stage
from controller.reconcile.handler import World
from controller.route import guard
from controller.route.guard import BusView, HoldCause, StatusEvidence
from probe.errors import BusError
from probe.wire import PARTITIONS, ReplicaId

log = structlog.get_logger()

_BLIND = BusView(
    reachable=False,
    remembers_for_s=0.0,
    covered_for_s={},
    statuses={},
    unreadable=frozenset(),
    clear_for_s=0.0,
)


class Velocity:
    """Remembers when routes became unhealthy: many within a minute are nobody's deaths (S10)."""

    def __init__(self) -> None:
        self._moments_ms: tuple[int, ...] = ()

    def add(self, newly_unhealthy: int, *, now_ms: int) -> None:
        """Remember what one run of the classification wrote."""
        self._moments_ms = guard.recent(self._moments_ms, newly=newly_unhealthy, now_ms=now_ms)

    def within_a_minute(self, *, now_ms: int) -> int:
        """Return how many routes became unhealthy within the last minute."""
        return len(guard.recent(self._moments_ms, newly=0, now_ms=now_ms))


@dataclass(slots=True)
class _Witness:
    """What judges the bus; times are monotonic seconds."""

    epoch: str | None = None
    amnesia_at: float = float("-inf")
    covered_since: dict[int, float] = field(default_factory=dict)
    moved: dict[ReplicaId, tuple[int, int, float]] = field(default_factory=dict)
    """generation and seq of each status, and when they were first seen."""
    clear_since: float | None = None
    """Since when there is no cause to hold; None while there is one."""
    held: frozenset[HoldCause] = frozenset()


class Observer:
    """Takes the snapshots that handlers decide over."""

    def __init__(
        self,
        repository: Repository,
        bus: ControlBus,
        metrics: ControllerMetrics,
        *,
        clock: Callable[[], float],
        on_amnesia: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._bus = bus
        self._metrics = metrics
        self._clock = clock
        self._on_amnesia = on_amnesia
        self._witness = _Witness()
        self._reachable = True
        self.velocity = Velocity()

    async def observe(self) -> World:
        """Read everything; a bus that is away makes a blind view, not an error.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        snapshot = await self._repository.observe()
        view = await self._view(snapshot.routes)
        # The clock of decisions is read after the statuses, so that no evidence is of later.
        snapshot = replace(snapshot, now_ms=await self._repository.clock_ms())
        return self._world(snapshot, view)

    async def again(self, world: World) -> World:
        """Read the database anew after a commit; the bus is asked once a tick."""
        return self._world(await self._repository.observe(), world.view)

    def _world(self, snapshot: Snapshot, view: BusView) -> World:
        now, witness = self._clock(), self._witness
        newly = self.velocity.within_a_minute(now_ms=snapshot.now_ms)
        held = guard.hold(snapshot.routes, view, newly_unhealthy=newly)
        if held != witness.held:
            if held:
                log.warning("hold", causes=",".join(sorted(held)))
            else:
                log.info("hold_over", causes=",".join(sorted(witness.held)))
            witness.held = held
        if held:
            witness.clear_since = None
        elif witness.clear_since is None:
            witness.clear_since = now
        clear_for_s = 0.0 if witness.clear_since is None else now - witness.clear_since
        self._metrics.observed(snapshot, held)
        return World(snapshot=snapshot, view=replace(view, clear_for_s=clear_for_s), hold=held)

    async def _view(self, routes: Iterable[Route]) -> BusView:
        probed = [route for route in routes if is_probed(route)]
        try:
            evidence = await self._bus.read_evidence([ReplicaId(r.id) for r in probed])
            if evidence.epoch is None or evidence.epoch != self._witness.epoch:
                evidence = replace(evidence, epoch=await self._bus.ensure_epoch())
        except BusError as error:
            if self._reachable:
                log.warning("bus_away", error=str(error), consequence="nothing is evicted")
            self._reachable = False
            self._metrics.bus_error()
            self._witness.covered_since.clear()
            return _BLIND
        if not self._reachable:
            log.info("bus_back")
        self._reachable = True
        return self._judge(evidence)

    def _judge(self, evidence: Evidence) -> BusView:
        now, witness = self._clock(), self._witness
        if evidence.epoch != witness.epoch:
            if witness.epoch is not None:
                log.warning("bus_lost_its_memory", consequence="targets are written again")
                witness.amnesia_at = now
            witness.epoch = evidence.epoch
            self._on_amnesia()
        covered = {p for prober in evidence.probers.values() for p in prober.partitions}
        for partition in range(PARTITIONS):
            if partition in covered:
                witness.covered_since.setdefault(partition, now)
            else:
                witness.covered_since.pop(partition, None)
        return BusView(
            reachable=True,
            remembers_for_s=now - witness.amnesia_at,
            covered_for_s={p: now - since for p, since in witness.covered_since.items()},
            statuses=self._ages(evidence, now),
            unreadable=frozenset(RouteId(i) for i in evidence.unreadable),
            clear_for_s=0.0,
        )

    def _ages(self, evidence: Evidence, now: float) -> dict[RouteId, StatusEvidence]:
        """Tell how long ago each status last moved (S5); forget the ones that are gone.

        One that cannot be read now is not gone: it must not look fresh when it can be again.
        """
        known = self._witness.moved
        moved = {each: known[each] for each in evidence.unreadable if each in known}
        statuses = {}
        for replica_id, status in evidence.statuses.items():
            seen = known.get(replica_id)
            if seen is None or (seen[0], seen[1]) != (status.generation, status.seq):
                seen = (status.generation, status.seq, now)
            moved[replica_id] = seen
            statuses[RouteId(replica_id)] = StatusEvidence(status=status, age_s=now - seen[2])
        self._witness.moved = moved
        return statuses


def is_probed(route: Route) -> bool:
    """Tell whether the prober should be asking this route (R-01, R-51)."""
    return route.health_check is not None and (
        route.status is RouteStatus.RUNNING or route.stage is Stage.WARMING_UP
    )
