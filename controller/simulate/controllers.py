"""One controller process in virtual time: it takes the lease, leads, and may die at any await.

The coordinator, the handlers and the observer are the real ones, with the real periods; what is
played here is what surrounds them: the lease, the loop, the deliverer. Provisioner answers are not
waited for with patience: the simulated one answers, or is away.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from controller.errors import DatabaseUnreachable, LeaseLost
from controller.reconcile.coordinator import Coordinator
from controller.reconcile.handler import Mark
from controller.settings import Settings
from controller.simulate.kernel import Kernel, Task
from controller.simulate.rows import Rows
from probe.errors import BusError

TICK_S: Final = 1.0
"""The grain of periods; a mark is acted on at most this late. The real one is 0.1 s."""
RETRY_S: Final = 2.0


class Controller:
    """One process, which leads or stands by."""

    def __init__(
        self,
        name: str,
        *,
        kernel: Kernel,
        rows: Rows,
        make_term: Callable[[Callable[[], float]], Coordinator],
        settings: Settings,
        tell: Callable[[str], None],
    ) -> None:
        self.name = name
        self._kernel = kernel
        self._rows = rows
        self._make_term = make_term
        self._lease_s = settings.lease_s
        self._tell = tell
        self.clock_offset_s = 0.0
        self.tasks: list[Task] = []
        self.epoch: int | None = None
        self.term: Coordinator | None = None
        self._sure_until_s = float("-inf")
        self._frozen_until_s = float("-inf")
        self._woken = False

    @property
    def acts(self) -> bool:
        """Whether it leads, or believes so, and does not stand still."""
        return self.term is not None and self._frozen_until_s <= self._kernel.now_s

    def clock(self) -> float:
        """Return the time of its own monotonic clock."""
        return self._kernel.now_s + self.clock_offset_s

    def start(self, *, at_s: float = 0.0, epoch: int | None = None) -> None:
        """Begin to live; with an epoch it believes that it leads already, as a clone does."""
        self.epoch = epoch
        if epoch is not None:
            self._sure_until_s = self.clock() + self._lease_s
        self._spawn(self._live(), at_s=at_s)

    def crash(self) -> None:
        """Die where it stands."""
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            task.kill()
        self.term = self.epoch = None
        self._frozen_until_s = float("-inf")

    def freeze(self, until_s: float) -> None:
        """Stand still, and notice nothing of it."""
        self._frozen_until_s = until_s
        for task in self.tasks:
            task.frozen_until_s = until_s

    def mark(self, mark: Mark) -> None:
        """Hear of something, if it leads."""
        if self.term is not None:
            self.term.runner.mark(mark)

    def _spawn(self, work: Coroutine[float, None, Any], *, at_s: float = 0.0) -> Task:
        task = self._kernel.spawn(self.name, work, at_s=at_s)
        self.tasks.append(task)
        return task

    async def _live(self) -> None:
        while True:
            if self.epoch is None:
                try:
                    await self._acquire()
                except DatabaseUnreachable:
                    self.epoch = None
            if self.epoch is None:
                await self._kernel.sleep(RETRY_S)
                continue
            await self._lead(self.epoch)
            self.epoch = self.term = None
            self._tell(f"{self.name} leads no more")
            await self._kernel.sleep(1.0)

    async def _acquire(self) -> None:
        started_s = self.clock()
        await self._rows.reach()
        lease, now_ms = self._rows.lease, self._rows.now_ms()
        if lease.expires_at_ms > now_ms:
            return
        lease.holder, lease.epoch = self.name, lease.epoch + 1
        lease.expires_at_ms = now_ms + int(self._lease_s * 1000)
        self.epoch = lease.epoch
        self._sure_until_s = started_s + self._lease_s
        self._tell(f"{self.name} leads, in epoch {lease.epoch}")

    async def _renew(self) -> None:
        started_s = self.clock()
        await self._rows.reach()
        lease = self._rows.lease
        if self.epoch is None or lease.epoch != self.epoch:
            self.epoch = None
            raise LeaseLost("it is another's now")
        lease.expires_at_ms = self._rows.now_ms() + int(self._lease_s * 1000)
        self._sure_until_s = started_s + self._lease_s

    async def _lead(self, epoch: int) -> None:
        self.term = term = self._make_term(self.clock)
        beside = [self._spawn(self._watch()), self._spawn(self._deliver(term, epoch))]
        stamp, stamped_s = "", float("-inf")
        try:
            while self.epoch is not None:
                try:
                    if self.clock() - stamped_s >= 1.0:
                        stamped_s, before = self.clock(), stamp
                        stamp = await self._stamp()
                        if stamp != before:
                            term.runner.mark(Mark.DEPLOYMENTS)
                    if await term.runner.tick(epoch=epoch, before_each=self._step):
                        self._woken = True
                except DatabaseUnreachable:
                    await self._kernel.sleep(RETRY_S)
                except LeaseLost:
                    self._sure_until_s = float("-inf")
                await self._kernel.sleep(TICK_S)
        finally:
            for task in beside:
                task.kill()
            self.tasks = [task for task in self.tasks if task not in beside]

    async def _stamp(self) -> str:
        """Return what tells that an operator asked for something."""
        await self._rows.reach()
        known = self._rows.tables.deployments
        return f"{len(known)}.{sum(each.version for each in known.values())}"

    async def _step(self) -> None:
        if self.clock() >= self._sure_until_s:
            await self._renew()

    async def _watch(self) -> None:
        """Renew the lease."""
        while self.epoch is not None:
            await self._kernel.sleep(self._lease_s / 3)
            try:
                await self._renew()
            except DatabaseUnreachable:
                continue
            except LeaseLost:
                return

    async def _deliver(self, term: Coordinator, epoch: int) -> None:
        """Deliver what commits want told to proxies, at once and again until it arrived."""
        while True:
            await self._kernel.sleep(TICK_S if self._woken else 1.0)
            self._woken = False
            try:
                await self._deliver_once(term, epoch)
            except DatabaseUnreachable:
                continue
            except LeaseLost:
                continue

    async def _deliver_once(self, term: Coordinator, epoch: int) -> None:
        if not self._rows.tables.outbox:
            return
        await self._rows.reach()
        for effect in [*self._rows.tables.outbox.values()]:
            try:
                await term.sync_proxy.send(
                    effect.subject, effect.epoch, effect.version, effect.payload
                )
            except BusError:
                continue
            await self._rows.reach()
            with self._rows.write(epoch=epoch) as write:
                if write.tables.outbox.get(effect.subject) == effect:
                    del write.tables.outbox[effect.subject]
