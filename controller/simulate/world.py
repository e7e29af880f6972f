"""A whole world in virtual time: controllers, probers, fleet, bus and database, by one seed.

`run` is what a scenario comes to. Everything by chance is drawn from generators that are seeded
with text, so that no hash and no clock of this machine has a say.
"""

import uuid
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

import structlog

from controller.errors import ControllerError, DatabaseUnreachable
from controller.model import RevisionSpec, RouteId
from controller.reconcile.handler import Mark
from controller.route.guard import HoldCause
from controller.settings import Settings
from controller.simulate.bus import Board, MemoryBus, MemoryProxy
from controller.simulate.checks import Checks, lowest
from controller.simulate.controllers import Controller, Ports, Term
from controller.simulate.fleet import SimulatedFleet
from controller.simulate.kernel import Kernel
from controller.simulate.metrics import Counts
from controller.simulate.probers import Probers
from controller.simulate.repository import MemoryFailures, MemoryPublications, MemoryRepository
from controller.simulate.rows import Rows, Write
from controller.simulate.scenario import Do, Replicas, Scenario, Step, What
from controller.simulate.timeline import Timeline
from controller.simulate.verbs import MemoryVerbs

START_MS: Final = 1_800_000_000_000
"""The database's clock at the start: an afternoon in 2027."""
LOOK_S: Final = 5.0
"""How often deadlines are looked at from outside."""
RESTART_S: Final = 5.0
"""A supervisor starts a controller again this much later, unless the scenario says."""


class World:
    """Everything of one run."""

    def __init__(self, scenario: Scenario, *, seed: int) -> None:
        self.scenario = scenario
        self.seed = seed
        self.timeline = Timeline()
        self.violations: list[str] = []
        self.held_s = 0
        self.terms = 0
        self.offsets = {What.DATABASE: 0.0, What.BUS: 0.0}
        self._held: frozenset[HoldCause] = frozenset()
        self._lost_until: dict[What, float] = {}
        self._ids = self._chance("ids")
        self.kernel = Kernel(self._chance("order"))
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
            chance=self._chance("probers"),
            on_change=self._announce,
        )
        self.controllers = [self._controller(n) for n in range(scenario.controllers)]

    def _chance(self, of: str) -> Random:
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

    def _controller(self, number: int) -> Controller:
        name = f"controller-{number}"
        return Controller(
            name,
            kernel=self.kernel,
            rows=self.rows,
            make_term=self._term,
            settings=self.settings,
            tell=self._tell,
        )

    def _term(self, clock: Callable[[], float]) -> Term:
        self.terms += 1
        metrics = Counts(broken=self.broken, held=self._hold)
        chance = self._chance(f"proxy-{self.terms}")
        proxy = MemoryProxy(self.board, self._exchange, chance, on_table=self.checks.told_proxy)
        ports = Ports(
            repository=MemoryRepository(self.rows),
            bus=MemoryBus(self.board, self._exchange),
            proxy=proxy,
            provisioner=self.fleet,
            publications=MemoryPublications(self.rows),
            failures=MemoryFailures(self.rows),
        )
        return Term(self.settings, ports, metrics, clock=clock, fresh=self._fresh)

    # What is told.

    def _tell(self, text: str) -> None:
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
        self.held_s += bool(causes)
        text = f"HOLD: {', '.join(sorted(causes))}" if causes else "HOLD is over"
        self._tell(text)

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

    # What happens.

    def run(self) -> None:
        """Let the whole scenario happen."""
        kernel = self.kernel
        for name, fleet in self.scenario.deployments.items():
            self.verbs.apply(name, replicas=fleet.replicas, policy=fleet.policy)
            self._start(name, fleet.behaviour)
        kernel.spawn("probers", self.probers.run())
        for number, controller in enumerate(self.controllers):
            controller.start(at_s=0.1 * number)
        kernel.spawn("look", self._look())
        for place, step in enumerate(sorted(self.scenario.steps, key=lambda each: each.at_s)):
            kernel.spawn(f"step-{place}", self._step(step), at_s=step.at_s)
        try:
            kernel.run(self.scenario.duration_s)
        finally:
            kernel.close()
        if self.scenario.converges:
            self.checks.end()

    async def _look(self) -> None:
        while True:
            acting = any(each.acts for each in self.controllers)
            self.checks.look(blind=self.rows.away or not acting)
            await self.kernel.sleep(LOOK_S)

    def _start(self, name: str, behaviour: Replicas) -> None:
        spec = RevisionSpec(
            command=("serve",), health_check=self.scenario.deployments[name].health_check
        )
        revision = self.verbs.add_revision(name, spec)
        self.fleet.behaviours[revision.id] = behaviour
        self.verbs.activate(name, revision)

    async def _step(self, step: Step) -> None:
        kind = "fault" if step.is_fault else "verb"
        self.timeline.add(self.kernel.now_s, step.of or "world", _words(step), kind=kind)
        try:
            await self._do(step)
        except ControllerError as error:
            refused = f"refused: {error}"
            self.timeline.add(self.kernel.now_s, step.of or "world", refused, kind=kind)

    async def _do(self, step: Step) -> None:
        match step.do:
            case Do.KILL | Do.HANG | Do.FLAP:
                self._hurt(step)
            case Do.LOSE | Do.ISOLATE:
                await self._lose(step)
            case Do.FLUSH:
                self.board.flush()
            case Do.CRASH | Do.FREEZE | Do.CLONE:
                await self._strike(step)
            case Do.STEP_CLOCK:
                self._step_clock(step)
            case _:
                self._ask(step)

    def _ask(self, step: Step) -> None:
        if self.rows.away:
            raise DatabaseUnreachable("the simulated database is away")
        match step.do:
            case Do.START:
                self._start(step.of, step.behaviour)
            case Do.SCALE:
                self.verbs.scale(step.of, step.replicas or 0)
            case Do.APPLY:
                known = self.rows.deployment(step.of)
                first = self.scenario.deployments[step.of]
                replicas = first.replicas if known is None else known.replicas
                self.verbs.apply(
                    step.of,
                    replicas=replicas if step.replicas is None else step.replicas,
                    policy=step.policy or (first.policy if known is None else known.policy),
                )
            case _:
                self._steer(step)

    def _steer(self, step: Step) -> None:
        verbs = self.verbs
        match step.do:
            case Do.PAUSE:
                verbs.pause(step.of)
            case Do.RESUME:
                verbs.resume(step.of)
            case Do.PROMOTE:
                verbs.promote(step.of)
            case Do.ABORT:
                verbs.abort(step.of)
            case Do.RETRY:
                verbs.retry(step.of)
            case Do.ROLLBACK:
                verbs.rollback(step.of)
            case _:
                verbs.delete(step.of)

    def _hurt(self, step: Step) -> None:
        deployment = self.rows.deployment(step.of)
        if deployment is None:
            return
        now_s = self.kernel.now_s
        able = self.fleet.able(deployment.id)
        chosen = self._chance(f"hurt-{now_s}").sample(able, min(step.count, len(able)))
        for replica in chosen:
            match step.do:
                case Do.KILL:
                    replica.dies_at_s = now_s
                case Do.HANG:
                    replica.hangs = (now_s, now_s + step.for_s)
                case _:
                    replica.flaps = (now_s, now_s + step.for_s, FLAP_S)

    async def _lose(self, step: Step) -> None:
        for_s, names = step.for_s, self.probers.names
        if step.do is Do.ISOLATE:
            self.probers.isolated.add(names[0])
            await self.kernel.sleep(for_s)
            self.probers.isolated.discard(names[0])
        elif step.what in (What.PROBER, What.PROBERS):
            gone = names[:1] if step.what is What.PROBER else names
            self.probers.lost.update(gone)
            await self.kernel.sleep(for_s)
            self.probers.lost.difference_update(gone)
        elif step.what is not None:
            until_s = max(self._lost_until.get(step.what, 0.0), self.kernel.now_s + for_s)
            self._lost_until[step.what] = until_s
            self._set_away(step, away=True)
            await self.kernel.sleep(for_s)
            if self.kernel.now_s < self._lost_until[step.what]:
                return  # it is lost once more meanwhile, for longer
            self._set_away(step, away=False)
        self._tell(f"{step.what or step.do} is back")

    def _set_away(self, step: Step, *, away: bool) -> None:
        match step.what:
            case What.BUS:
                self.board.away = away
            case What.DATABASE:
                self.rows.away = away
            case What.PROVISIONER:
                self.fleet.away = away
            case _:
                self.board.proxy_fails = step.share if away else 0.0

    async def _strike(self, step: Step) -> None:
        leader = next((each for each in self.controllers if each.term is not None), None)
        if leader is None:
            return
        now_s = self.kernel.now_s
        if step.do is Do.CRASH:
            leader.crash()
            leader.start(at_s=now_s + (step.for_s or RESTART_S))
        elif step.do is Do.FREEZE:
            leader.freeze(now_s + step.for_s)
        else:
            clone = self._controller(len(self.controllers))
            self.controllers.append(clone)
            clone.start(at_s=now_s, epoch=leader.epoch)
            await self.kernel.sleep(step.for_s)
            clone.crash()
            self._tell(f"{clone.name}, the clone, is gone")

    def _step_clock(self, step: Step) -> None:
        if step.what is What.CONTROLLER:
            for controller in self.controllers:
                controller.clock_offset_s += step.by_s
        elif step.what in self.offsets:
            self.offsets[step.what] += step.by_s


FLAP_S: Final = 40.0
"""A replica that flaps answers badly for so long, and well for as long."""


def _words(step: Step) -> str:
    parts = [str(step.do)]
    if step.what is not None:
        parts.append(str(step.what))
    if step.do in (Do.KILL, Do.HANG, Do.FLAP):
        parts.append(f"{step.count} replicas")
    if step.replicas is not None:
        parts.append(f"to {step.replicas}")
    if step.for_s:
        parts.append(f"for {step.for_s:g} s")
    if step.by_s:
        parts.append(f"by {step.by_s:+g} s")
    return " ".join(parts)


def quiet() -> Callable[[], None]:
    """Keep the coordinator from logging; return what gives its voice back.

    The lines of a run are its history; what the daemon would log has this machine's clock in it.
    """
    kept = structlog.get_config()
    silent = structlog.make_filtering_bound_logger(_SILENT)
    # Not cached: a logger met for the first time in a run would stay silent ever after.
    structlog.configure(wrapper_class=silent, cache_logger_on_first_use=False)
    return lambda: structlog.configure(**kept)


_SILENT: Final = 50
