"""One term of leadership, from the lease taken to the lease gone.

Run by the daemon. Three things side by side: the ticks, the watch that renews the lease while
the ticks come round, and the delivery of what commits want outside the database.
"""

import time
from typing import Final

import anyio
import structlog

from controller.db.repository import Repository
from controller.errors import DatabaseUnreachable, LeaseLost
from controller.lease import RETRY_S, Lease
from controller.metrics import ControllerMetrics
from controller.reconcile.handler import Mark
from controller.reconcile.leadership import Leadership
from controller.reconcile.outbox import Deliverer
from controller.reconcile.pulse import Pulse
from controller.reconcile.together import together

log = structlog.get_logger()

TICK_S: Final = 0.1
"""The grain of periods: a mark is acted on at most this late."""
STAMP_S: Final = 1.0
"""How often the deployments are looked at for what an operator did in another process."""
RENEWALS: Final = 3
"""Renewals in the time of one lease: two may fail."""
LOOKS: Final = 2
"""Looks of the watch between two renewals: one that failed is tried again this much sooner."""


class Term:
    """What leads while the lease is held."""

    def __init__(
        self,
        leadership: Leadership,
        deliverer: Deliverer,
        *,
        lease: Lease,
        epoch: int,
        lease_s: float,
        repository: Repository,
        metrics: ControllerMetrics,
        pulse: Pulse,
    ) -> None:
        """Prepare; `lease` is held already, in `epoch`."""
        self._leadership = leadership
        self._runner = leadership.runner
        self._deliverer = deliverer
        self._lease = lease
        self._epoch = epoch
        self._lease_s = lease_s
        self._repository = repository
        self._metrics = metrics
        self._pulse = pulse
        self._stamped_at, self._stamp = float("-inf"), ""

    async def once(self) -> None:
        """Run every handler once, and deliver what came of it.

        Raises:
            LeaseLost: if another controller took over.
            DatabaseUnreachable: if the database does not answer.
        """
        async with together() as group:
            group.start_soon(self._watch)
            self._runner.hurry()
            await self._tick()
            await self._deliverer.deliver()
            group.cancel_scope.cancel()

    async def run(self) -> None:
        """Lead until cancelled; a database that is away is waited for.

        Raises:
            LeaseLost: if another controller took over, or this one is stuck and gives up.
        """
        async with together() as group:
            group.start_soon(self._leadership.listen)
            group.start_soon(self._watch)
            group.start_soon(self._deliver)
            await self._reconcile()

    async def _reconcile(self) -> None:
        while True:
            self._pulse.beat()
            try:
                await self._look_for_orders()
                await self._tick()
                self._pulse.well()
            except DatabaseUnreachable as error:
                self._pulse.database_away(error)
                await anyio.sleep(RETRY_S)
            except LeaseLost as error:
                self._doubt_lease(error)
            await anyio.sleep(TICK_S)

    async def _look_for_orders(self) -> None:
        """Notice what an operator did in another process."""
        now = time.monotonic()
        if now - self._stamped_at < STAMP_S:
            return
        self._stamped_at, before = now, self._stamp
        self._stamp = await self._repository.stamp()
        if self._stamp != before:
            self._runner.mark(Mark.DEPLOYMENTS)

    async def _deliver(self) -> None:
        while True:
            try:
                await self._deliverer.run()
            except LeaseLost as error:
                self._doubt_lease(error)
            await anyio.sleep(RETRY_S)

    def _doubt_lease(self, error: LeaseLost) -> None:
        """Let the next step renew a lease whose time ran out; when it is another's, that tells.

        Raises:
            LeaseLost: if it was told already.
        """
        if self._lease.epoch is None:
            raise error
        self._lease.doubt()

    async def _tick(self) -> None:
        try:
            if await self._runner.tick(epoch=self._epoch, before_each=self._step):
                self._deliverer.wake()
        finally:
            self._metrics.wrote(self._repository.sql_writes)

    async def _step(self) -> None:
        """Come round once more; what acts outside the database acts only under a sure lease.

        The fence keeps a controller that was stopped from writing, but not from starting a
        session that its successor has ended meanwhile.
        """
        self._pulse.beat()
        if not self._lease.sure:
            await self._lease.renew()
            log.warning("lease_lapsed", epoch=self._epoch, consequence="nobody took over meanwhile")

    async def _watch(self) -> None:
        """Renew the lease for as long as the ticks come round.

        Also in the midst of one: a provisioner may take 30 s to say nothing. A loop that is stuck
        gives up, so that another controller takes over.

        Raises:
            LeaseLost: if another controller took over, or the loop is stuck.
        """
        pause_s = self._lease_s / RENEWALS / LOOKS
        renewed_at = time.monotonic()
        while True:
            await anyio.sleep(pause_s)
            if stuck := self._pulse.stuck():
                raise LeaseLost(f"{stuck}: the lease is given up; start again")
            if time.monotonic() - renewed_at < self._lease_s / RENEWALS - pause_s / 2:
                continue
            try:
                await self._lease.renew()
                renewed_at = time.monotonic()
            except DatabaseUnreachable as error:
                log.info("lease_not_renewed", error=str(error))
