"""One moment of everything: the database, the bus, and how much either can be trusted.

The bus is a witness, not a record: `witness` judges it. What this keeps between looks besides is
HOLD itself, since when, and what the clocks showed. All of it is of one term of leadership.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from controller.bus import ControlBus
from controller.db.repository import Repository
from controller.metrics import ControllerMetrics
from controller.model import DeploymentId, HoldSpan, Route, RouteStatus, Snapshot, Stage
from controller.reconcile.handler import World
from controller.reconcile.witness import Witness
from controller.route import guard
from controller.route.guard import BusView, HoldCause
from controller.route.guard.budget import CLOSING_S, START_COVERAGE_PERCENT
from controller.route.guard.clocks import ClockGuard, ClockReading, jumped_over
from controller.route.guard.evidence import checked
from probe.errors import BusError
from probe.wire import ReplicaId

log = structlog.get_logger()

JUMPS_MAX: Final = 16
"""So many jumps of the database's clock are remembered; more are no clock to go by."""


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
        on_failed_look: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._bus = bus
        self._metrics = metrics
        self._clock = clock
        self._on_amnesia = on_amnesia
        self._on_failed_look = on_failed_look
        self._reachable = True
        self._clocks = ClockGuard()
        self._jumps: tuple[HoldSpan, ...] = ()
        self._bus_s: float | None = None
        self._bus_at_s = 0.0
        self._clear_since: float | None = None
        self._inherited = False
        self._broke_at: dict[DeploymentId, float] = {}
        """When the breaker of each deployment last held it, while that still matters."""
        self._held: frozenset[HoldCause] = frozenset()
        self._held_before = False
        self._seen_enough = False
        self.witness = Witness()
        self.velocity = Velocity()

    async def observe(self) -> World:
        """Read everything; a bus that is away makes a blind view, not an error.

        Raises:
            DatabaseUnreachable: if the database does not answer.
        """
        snapshot = await self._repository.observe()
        if not self._inherited:
            # A HOLD that an earlier leader left is closed as slowly as one of this term (S21).
            left = await self._repository.open_holds()
            self._held_before = None in left
            self._broke_at = dict.fromkeys((one for one in left if one), self._clock())
            self._inherited = True
        view = await self._view(snapshot.routes)
        # The clock of decisions is read after the statuses, so that no evidence is of later.
        snapshot = replace(snapshot, now_ms=await self._repository.clock_ms())
        self._read_clocks(snapshot.now_ms)
        return self._world(snapshot, replace(view, clocks_agree=self._clocks.agree))

    async def again(self, world: World) -> World:
        """Read the database anew after a commit; the bus is asked once a tick."""
        return self._world(await self._repository.observe(), world.view)

    def _read_clocks(self, now_ms: int) -> None:
        before, last = self._clocks.agree, self._clocks.last
        reading = ClockReading(
            database_s=now_ms / 1000,
            database_at_s=self._clock(),
            bus_s=self._bus_s,
            bus_at_s=self._bus_at_s,
        )
        self._clocks = self._clocks.after(reading)
        if last is not None and (jump := jumped_over(last, reading)) is not None:
            self._jumps = (*self._jumps, jump)[-JUMPS_MAX:]
        if before and not self._clocks.agree:
            log.warning("clocks_disagree", consequence="nothing is evicted for two looks")

    def _world(self, snapshot: Snapshot, view: BusView) -> World:
        now = self._clock()
        newly = self.velocity.within_a_minute(now_ms=snapshot.now_ms)
        settled = guard.settled(snapshot.routes, snapshot.deployments)
        coverage = guard.coverage_percent(settled, view)
        held = guard.hold(
            settled, view, coverage=coverage, newly_unhealthy=newly, before=self._held
        )
        self._tell(held)
        if held:
            self._clear_since = None
            # With nobody to protect yet, what ends is a start, and no incident.
            self._held_before |= bool(checked(settled))
        elif self._clear_since is None:
            self._clear_since = now
        clear_for_s = 0.0 if self._clear_since is None else now - self._clear_since
        self._seen_enough |= view.reachable and coverage >= START_COVERAGE_PERCENT
        view = replace(
            view,
            clear_for_s=clear_for_s,
            held_before=self._held_before,
            seen_enough=self._seen_enough,
        )
        broken = guard.held_deployments(snapshot)
        world = World(
            snapshot=replace(snapshot, holds=(*snapshot.holds, *self._jumps)),
            jumps=self._jumps,
            view=view,
            hold=held,
            held_deployments=broken,
            closing_deployments=self._closing(broken, now),
        )
        self._metrics.observed(snapshot, world.causes)
        self._metrics.trusted(coverage=coverage / 100, held_deployments=len(world.held_deployments))
        return world

    def _closing(self, broken: frozenset[DeploymentId], now: float) -> frozenset[DeploymentId]:
        """Return whom a breaker let go only lately: who recovers does not do so at once."""
        held = self._broke_at | dict.fromkeys(broken, now)
        self._broke_at = {one: at for one, at in held.items() if now - at < CLOSING_S}
        return frozenset(self._broke_at) - broken

    def _tell(self, held: frozenset[HoldCause]) -> None:
        if held == self._held:
            return
        if held:
            log.warning("hold", causes=",".join(sorted(held)))
        else:
            log.info("hold_over", causes=",".join(sorted(self._held)))
        self._held = held

    async def _view(self, routes: Sequence[Route]) -> BusView:
        probed = [route for route in routes if is_probed(route)]
        second = [*self.witness.asked.values()]
        self._bus_at_s = self._clock()
        try:
            evidence = await self._bus.read_evidence([*(ReplicaId(r.id) for r in probed), *second])
            forgot = self.witness.forgot(evidence, probed)
            if evidence.epoch is None or evidence.epoch != self.witness.epoch:
                evidence = replace(evidence, epoch=await self._bus.ensure_epoch())
        except BusError as error:
            if self._reachable:
                log.warning("bus_away", error=str(error), consequence="nothing is evicted")
            self._reachable, self._bus_s = False, None
            self._metrics.bus_error()
            self._on_failed_look()
            return self.witness.nothing()
        if not self._reachable:
            log.info("bus_back")
        self._reachable, self._bus_s = True, evidence.time_s
        if forgot:
            log.warning("bus_lost_its_memory", consequence="targets are written again")
        if forgot or self.witness.epoch is None:
            self._on_amnesia()
        return self.witness.judge(evidence, probed, now=self._clock(), forgot=forgot)


def is_probed(route: Route) -> bool:
    """Tell whether the prober should be asking this route (R-01, R-51)."""
    return route.health_check is not None and (
        route.status is RouteStatus.RUNNING or route.stage is Stage.WARMING_UP
    )
