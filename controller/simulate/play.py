"""What happens in a world: the steps of its scenario, each at its time, and looks from outside."""

from typing import Final

from controller.errors import ControllerError, DatabaseUnreachable
from controller.model import RevisionSpec
from controller.simulate.scenario import Do, Replicas, Step, What
from controller.simulate.world import World

LOOK_S: Final = 5.0
"""How often deadlines are looked at from outside."""
RESTART_S: Final = 5.0
"""A supervisor starts a controller again this much later, unless the scenario says."""
FLAP_S: Final = 40.0
"""A replica that flaps answers badly for so long, and well for as long."""


class Play:
    """A scenario, let happen in its world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kernel = world.kernel
        self._lost_until: dict[What, float] = {}

    def run(self) -> None:
        """Let the whole scenario happen."""
        world, kernel = self._world, self._kernel
        for name, fleet in world.scenario.deployments.items():
            world.verbs.apply(name, replicas=fleet.replicas, policy=fleet.policy)
            self._start(name, fleet.behaviour)
        kernel.spawn("probers", world.probers.run())
        for number, controller in enumerate(world.controllers):
            controller.start(at_s=0.1 * number)
        kernel.spawn("look", self._look())
        for place, step in enumerate(sorted(world.scenario.steps, key=lambda each: each.at_s)):
            kernel.spawn(f"step-{place}", self._step(step), at_s=step.at_s)
        try:
            kernel.run(world.scenario.duration_s)
        finally:
            kernel.close()
        if world.scenario.converges:
            world.checks.end()

    async def _look(self) -> None:
        while True:
            acting = any(each.acts for each in self._world.controllers)
            self._world.checks.look(blind=self._world.rows.away or not acting)
            await self._kernel.sleep(LOOK_S)

    def _start(self, name: str, behaviour: Replicas) -> None:
        spec = RevisionSpec(
            command=("serve",), health_check=self._world.scenario.deployments[name].health_check
        )
        revision = self._world.verbs.add_revision(name, spec)
        self._world.fleet.behaviours[revision.id] = behaviour
        self._world.verbs.activate(name, revision)

    async def _step(self, step: Step) -> None:
        kind = "fault" if step.is_fault else "verb"
        self._world.timeline.add(self._kernel.now_s, step.of or "world", _words(step), kind=kind)
        try:
            await self._do(step)
        except ControllerError as error:
            refused = f"refused: {error}"
            self._world.timeline.add(self._kernel.now_s, step.of or "world", refused, kind=kind)

    async def _do(self, step: Step) -> None:
        match step.do:
            case Do.KILL | Do.HANG | Do.FLAP:
                self._hurt(step)
            case Do.LOSE | Do.ISOLATE:
                await self._lose(step)
            case Do.FLUSH:
                self._world.board.flush()
            case Do.CRASH | Do.FREEZE | Do.CLONE:
                await self._strike(step)
            case Do.STEP_CLOCK:
                self._step_clock(step)
            case _:
                self._ask(step)

    def _ask(self, step: Step) -> None:
        if self._world.rows.away:
            raise DatabaseUnreachable("the simulated database is away")
        match step.do:
            case Do.START:
                self._start(step.of, step.behaviour)
            case Do.SCALE:
                self._world.verbs.scale(step.of, step.replicas or 0)
            case Do.APPLY:
                known = self._world.rows.deployment(step.of)
                first = self._world.scenario.deployments[step.of]
                replicas = first.replicas if known is None else known.replicas
                self._world.verbs.apply(
                    step.of,
                    replicas=replicas if step.replicas is None else step.replicas,
                    policy=step.policy or (first.policy if known is None else known.policy),
                )
            case _:
                self._steer(step)

    def _steer(self, step: Step) -> None:
        verbs = self._world.verbs
        asked = {
            Do.PAUSE: verbs.pause,
            Do.RESUME: verbs.resume,
            Do.PROMOTE: verbs.promote,
            Do.ABORT: verbs.abort,
            Do.RETRY: verbs.retry,
            Do.ROLLBACK: verbs.rollback,
            Do.DELETE: verbs.delete,
        }
        asked[step.do](step.of)

    def _hurt(self, step: Step) -> None:
        deployment = self._world.rows.deployment(step.of)
        if deployment is None:
            return
        now_s = self._kernel.now_s
        able = self._world.fleet.able(deployment.id)
        chosen = self._world.chance(f"hurt-{now_s}").sample(able, min(step.count, len(able)))
        for replica in chosen:
            match step.do:
                case Do.KILL:
                    replica.dies_at_s = now_s
                case Do.HANG:
                    replica.hangs = (now_s, now_s + step.for_s)
                case _:
                    replica.flaps = (now_s, now_s + step.for_s, FLAP_S)

    async def _lose(self, step: Step) -> None:
        for_s, names = step.for_s, self._world.probers.names
        if step.do is Do.ISOLATE:
            self._world.probers.isolated.add(names[0])
            await self._kernel.sleep(for_s)
            self._world.probers.isolated.discard(names[0])
        elif step.what in (What.PROBER, What.PROBERS):
            gone = names[:1] if step.what is What.PROBER else names
            self._world.probers.lost.update(gone)
            await self._kernel.sleep(for_s)
            self._world.probers.lost.difference_update(gone)
        elif step.what is not None:
            until_s = max(self._lost_until.get(step.what, 0.0), self._kernel.now_s + for_s)
            self._lost_until[step.what] = until_s
            self._set_away(step, away=True)
            await self._kernel.sleep(for_s)
            if self._kernel.now_s < self._lost_until[step.what]:
                return  # it is lost once more meanwhile, for longer
            self._set_away(step, away=False)
        self._world.tell(f"{step.what or step.do} is back")

    def _set_away(self, step: Step, *, away: bool) -> None:
        match step.what:
            case What.BUS:
                self._world.board.away = away
            case What.DATABASE:
                self._world.rows.away = away
            case What.PROVISIONER:
                self._world.fleet.away = away
            case _:
                self._world.board.proxy_fails = step.share if away else 0.0

    async def _strike(self, step: Step) -> None:
        leader = next((each for each in self._world.controllers if each.term is not None), None)
        if leader is None:
            return
        now_s = self._kernel.now_s
        if step.do is Do.CRASH:
            leader.crash()
            leader.start(at_s=now_s + (step.for_s or RESTART_S))
        elif step.do is Do.FREEZE:
            leader.freeze(now_s + step.for_s)
        else:
            clone = self._world.another_controller()
            clone.start(at_s=now_s, epoch=leader.epoch)
            await self._kernel.sleep(step.for_s)
            clone.crash()
            self._world.tell(f"{clone.name}, the clone, is gone")

    def _step_clock(self, step: Step) -> None:
        if step.what is What.CONTROLLER:
            for controller in self._world.controllers:
                controller.clock_offset_s += step.by_s
        elif step.what in self._world.offsets:
            self._world.offsets[step.what] += step.by_s


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
