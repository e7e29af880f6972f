"""A fleet of a thousand routes, four probers and a bus, in virtual time, under the real rules.

Real: runner, observer, classification, second opinion, eviction. Played: what the probers write,
in closed form over time, and a database that is a dictionary. A scenario says who fails, as seen
by whom, and since when; the farm of this world is as alive as the scenario says.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controller.bus import ControlBus, Evidence, Written
from controller.change import applied
from controller.db.repository import Applied, Repository
from controller.metrics import ControllerMetrics
from controller.model import DeploymentId, HealthCheck, Note, Route, RouteChange, RouteId, Snapshot
from controller.reconcile.doubts import SecondOpinion
from controller.reconcile.handler import Schedule
from controller.reconcile.health import ClassifyHealth, Evict
from controller.reconcile.observe import Observer
from controller.reconcile.runner import Runner
from controller.route.grounds import Eviction
from controller.route.guard import generation_of
from probe.errors import BusUnreachable
from probe.wire import (
    PARTITIONS,
    OutcomeKind,
    ProberHeartbeat,
    Reason,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    partition_of,
    status_ttl_s,
)
from tests.fakes.nouns import a_deployment, a_route, route_id, snapshot_of
from tests.fakes.witness import heartbeat

PROBERS = ("p-0", "p-1", "p-2", "p-3")
CHECK = HealthCheck(path="/health", interval_s=5, max_retries=3)
START_S = 1000.0
EPOCH_MS = 1_000_000_000

FailsSince = Callable[[RouteId, str], float | None]
"""Since when a route fails as one prober sees it; None: it passes."""


def prober_of(replica_id: ReplicaId) -> str:
    """Return who owns a replica's partition."""
    return PROBERS[partition_of(replica_id) % len(PROBERS)]


def thousand(size: int = 1000, deployments: int = 50) -> list[Route]:
    """Build a fleet of which every prober owns the same share."""
    left = Counter(dict.fromkeys(PROBERS, size // len(PROBERS)))
    routes: list[Route] = []
    number = 0
    while len(routes) < size:
        number += 1
        owner = prober_of(ReplicaId(route_id(number)))
        if left[owner]:
            left[owner] -= 1
            deployment_id = DeploymentId(f"deployment-{len(routes) % deployments}")
            routes.append(
                a_route(number, deployment_id=deployment_id, health_check=CHECK, created_at_ms=0)
            )
    return routes


@dataclass
class Farm:
    """What is true, and what the probers do; times are those of the virtual clock."""

    fails_since: FailsSince = lambda _route, _prober: None
    bus_away: tuple[float, float] = (0.0, 0.0)
    probers_away: tuple[float, float] = (0.0, 0.0)
    sick: frozenset[str] = frozenset()


@dataclass
class World:
    """The clock, the rows and the bus, for one scenario."""

    farm: Farm
    look_s: float = 10.0
    routes: list[Route] = field(default_factory=thousand)
    now_s: float = START_S
    evicted_at: dict[RouteId, float] = field(default_factory=dict)
    extra: dict[ReplicaId, tuple[RouteId, float]] = field(default_factory=dict)
    """Targets under a second id: of which route, and since when."""

    def __post_init__(self) -> None:
        metrics = ControllerMetrics()
        repository = Rows(self)
        bus = Probed(self)
        self.metrics = metrics
        observer = Observer(
            repository,
            bus,
            metrics,
            clock=lambda: self.now_s,
            on_amnesia=lambda: None,
            on_failed_look=lambda: None,
        )
        schedule = Schedule(period_s=self.look_s)
        self.runner = Runner(
            (
                ClassifyHealth(schedule, observer.velocity),
                SecondOpinion(bus, observer.witness, metrics, schedule),
                Evict(schedule, metrics),
            ),
            repository=repository,
            observer=observer,
            metrics=metrics,
            clock=lambda: self.now_s,
        )

    async def run(self, for_s: float) -> None:
        """Let time pass, a look every so often."""
        until_s = self.now_s + for_s
        while self.now_s < until_s:
            await self.runner.tick(epoch=1)
            self.now_s += self.look_s


class Rows(Repository):
    """A database that is a dictionary; its clock is the virtual one."""

    def __init__(self, world: World) -> None:
        self._world = world
        names = sorted({route.deployment_id for route in world.routes})
        sizes = Counter(route.deployment_id for route in world.routes)
        self._deployments = [a_deployment(id=n, name=n, replicas=sizes[n]) for n in names]

    @property
    def sql_writes(self) -> Mapping[str, int]:
        return {}

    def _now_ms(self) -> int:
        return EPOCH_MS + int(self._world.now_s * 1000)

    async def observe(self) -> Snapshot:
        return snapshot_of(self._world.routes, *self._deployments, now_ms=self._now_ms())

    async def open_holds(self) -> frozenset[DeploymentId | None]:
        return frozenset()

    async def clock_ms(self) -> int:
        return self._now_ms()

    async def apply(
        self, changes: Sequence[RouteChange], notes: Sequence[Note] = (), *, epoch: int
    ) -> Applied:
        del notes, epoch
        after = {c.route.id: applied(c, now_ms=self._now_ms()) for c in changes}
        self._world.routes = [after.get(route.id, route) for route in self._world.routes]
        return Applied(applied=len(after), lost=())

    async def evict(self, wanted: Sequence[Eviction], *, epoch: int) -> Applied:
        done = await self.apply([each.change for each in wanted], epoch=epoch)
        for each in wanted:
            self._world.evicted_at[each.change.route.id] = self._world.now_s
        return done


class Probed(ControlBus):
    """Statuses as the probers of the scenario would have written them by now."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._by_id = {ReplicaId(route.id): route for route in world.routes}

    async def ensure_epoch(self) -> str:
        return "first"

    async def write_targets(self, targets: Iterable[ReplicaProbeTarget]) -> Written:
        by_generation = {generation_of(route): route.id for route in self._by_id.values()}
        given = list(targets)
        for target in given:
            owner = (by_generation[target.generation], self._world.now_s)
            self._world.extra.setdefault(target.replica_id, owner)
        return Written(written=len(given), failed=())

    async def remove_targets(self, replica_ids: Iterable[ReplicaId]) -> None:
        for replica_id in replica_ids:
            self._world.extra.pop(replica_id, None)

    async def read_evidence(self, replica_ids: Iterable[ReplicaId]) -> Evidence:
        world, farm = self._world, self._world.farm
        if farm.bus_away[0] <= world.now_s < farm.bus_away[1]:
            raise BusUnreachable("the bus of this scenario is away: wait for its end")
        away = farm.probers_away[0] <= world.now_s < farm.probers_away[1]
        found = ((key, self._status(key, farm)) for key in replica_ids)
        return Evidence(
            time_s=world.now_s,
            epoch="first",
            probers={} if away else _heartbeats(farm),
            statuses={key: status for key, status in found if status is not None},
            unreadable={},
        )

    def _status(self, key: ReplicaId, farm: Farm) -> ReplicaHealthStatus | None:
        """Return what the owner wrote last, in closed form; None: nothing, or it expired."""
        of, since_s = self._world.extra.get(key, (RouteId(key), 0.0))
        route = self._by_id[ReplicaId(of)]
        now_s, owner = self._world.now_s, prober_of(key)
        if farm.probers_away[0] <= now_s < farm.probers_away[1]:
            if now_s - farm.probers_away[0] > status_ttl_s(CHECK.interval_s):
                return None
            now_s = farm.probers_away[0]
        interval_s = CHECK.interval_s
        first_s = since_s + (partition_of(key) % 50) / 50 * interval_s
        if now_s < first_s:
            return None
        seq = int((now_s - first_s) // interval_s) + 1
        fails = farm.fails_since(of, owner)
        failures = 0
        if fails is not None and now_s >= fails:
            before = int((max(fails, first_s) - first_s) // interval_s) + (fails > first_s)
            failures = max(0, seq - before)
        passes = failures == 0
        return ReplicaHealthStatus(
            replica_id=key,
            healthy=failures < CHECK.max_retries,
            outcome=OutcomeKind.PASSED if passes else OutcomeKind.FAILED,
            reason=Reason.OK if passes else Reason.CONNECT_TIMEOUT,
            consecutive_failures=failures,
            consecutive_successes=seq if passes else 0,
            prober=owner,
            generation=generation_of(route),
            seq=seq,
        )


def _heartbeats(farm: Farm) -> Mapping[str, ProberHeartbeat]:
    return {
        prober: heartbeat(
            [p for p in range(PARTITIONS) if PROBERS[p % len(PROBERS)] == prober],
            instance=prober,
            sick="it fails its own test" if prober in farm.sick else "",
        )
        for prober in PROBERS
    }
