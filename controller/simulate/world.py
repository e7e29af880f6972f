"""A whole world in virtual time: controllers, probers, fleet, bus and database, by one seed.

What happens in it is `controller.simulate.play`. Everything by chance is drawn from
generators that are seeded with text, so that no hash and no clock of this machine has a say.
"""

import uuid
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from controller.model import RouteId
from controller.reconcile.coordinator import Coordinator, Ports
from controller.reconcile.handler import Mark
from controller.route.guard import HoldCause
from controller.settings import Settings
from controller.simulate.bus import Board, MemoryBus, MemoryProxy
from controller.simulate.checks import Checks, lowest
from controller.simulate.controllers import Controller
from controller.simulate.failures import MemoryFailures
from controller.simulate.fleet import SimulatedFleet
from controller.simulate.kernel import Kernel
from controller.simulate.metrics import Counts
from controller.simulate.probers import Probers
from controller.simulate.publications import MemoryPublications
from controller.simulate.repository import MemoryRepository
from controller.simulate.rows import Rows
from controller.simulate.scenario import Scenario, What
from controller.simulate.timeline import Timeline
from controller.simulate.transaction import Write
from controller.simulate.verbs import MemoryVerbs

START_MS: Final = 1_800_000_000_000
"""The database's clock at the start: an afternoon in 2027."""


class World:
    """Everything of one run."""

    def __init__(self, scenario: Scenario, *, seed: int) -> None:
        self.scenario = scenario
        self.seed = seed
        self.timeline = Timeline()
        self.violations: list[str] = []
        self.was_held = False
        self.terms = 0
        self.offsets = {What.DATABASE: 0.0, What.BUS: 0.0}
        self._held: frozenset[HoldCause] = frozenset()
        self._ids = self.chance("ids")
        self.kernel = Kernel(self.chance("order"))
        self.rows = Rows(self._database_ms, exchange=self._exchange, on_commit=self._committed)
        self.fleet = SimulatedFleet(f"{seed}/fleet", clock=self._now_s, exchange=self._exchange)
        self.board = Board(clock=self._bus_s)
        self.settings = Settings(database_url="memory")
        self.checks = Checks(
            rows=self.rows,
            fleet=self.fleet,
            clock=self._now_s,
            broken=self.broken,
            period_s=self.settings.period("deploying").long_s,
        )
        self.verbs = MemoryVerbs(self.rows, self._id)
        self.probers = Probers(
            board=self.board,
            fleet=self.fleet,
            kernel=self.kernel,
            names=tuple(f"prober-{n}" for n in range(scenario.probers)),
            chance=self.chance("probers"),
            on_change=self._announce,
        )
        self.controllers: list[Controller] = []
        for _ in range(scenario.controllers):
            self.another_controller()

    def chance(self, of: str) -> Random:
        """Return a generator of its own for one purpose."""
        return Random(f"{self.seed}/{of}")  # noqa: S311 - repeatable on purpose

    def _now_s(self) -> float:
        return self.kernel.now_s

    def _database_ms(self) -> int:
        return START_MS + int((self.kernel.now_s + self.offsets[What.DATABASE]) * 1000)

    def _bus_s(self) -> float:
        return START_MS / 1000 + self.kernel.now_s + self.offsets[What.BUS]

    async def _exchange(self) -> None:
        await self.kernel.exchange()

    def _id(self) -> str:
        return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))

    def _fresh(self) -> Iterator[RouteId]:
        while True:
            yield RouteId(self._id())

    def another_controller(self) -> Controller:
        """Add a process; it does not live yet."""
        made = Controller(
            f"controller-{len(self.controllers)}",
            kernel=self.kernel,
            rows=self.rows,
            make_term=self._term,
            settings=self.settings,
            tell=self.tell,
        )
        self.controllers.append(made)
        return made

    def _term(self, clock: Callable[[], float]) -> Coordinator:
        self.terms += 1
        metrics = Counts(broken=self.broken, held=self._hold)
        chance = self.chance(f"proxy-{self.terms}")
        proxy = MemoryProxy(self.board, self._exchange, chance, on_table=self.checks.told_proxy)
        ports = Ports(
            repository=MemoryRepository(self.rows),
            bus=MemoryBus(self.board, self._exchange),
            proxy=proxy,
            publications=MemoryPublications(self.rows),
            failures=MemoryFailures(self.rows),
            ask=lambda: self.fleet,
        )
        return Coordinator(self.settings, ports, metrics, clock=clock, fresh=self._fresh)

    def tell(self, text: str) -> None:
        """Take down what happened to the world."""
        self.timeline.add(self.kernel.now_s, "world", text, kind="world")

    def broken(self, what: str, about: str) -> None:
        """Take down that something does not hold."""
        told = f"{what} {about}".strip()
        self.violations.append(f"{self.kernel.now_s:.2f} s: {told}")
        self.timeline.add(self.kernel.now_s, "BROKEN", told, kind="broken")

    def _hold(self, causes: frozenset[HoldCause]) -> None:
        if causes == self._held:
            return
        self._held = causes
        self.was_held |= bool(causes)
        text = f"HOLD: {', '.join(sorted(causes))}" if causes else "HOLD is over"
        self.tell(text)

    def _committed(self, write: Write) -> None:
        self.timeline.committed(self.kernel.now_s, write.events, self.rows.tables)
        if write.written["routes"] or write.written["deployments"]:
            for deployment in self.rows.living().values():
                floor = lowest(deployment)
                self.timeline.sample(self.kernel.now_s, deployment, self.rows.tables, floor)
            self.checks.committed(write)

    def _announce(self) -> None:
        for controller in self.controllers:
            controller.mark(Mark.HEALTH)
