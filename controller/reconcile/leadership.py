"""What exists while one controller leads: its coordinator, and an ear on the change stream.

Built anew by the daemon for every term of leadership, so that nothing an earlier term believed
outlives it.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Final

import anyio

from controller.bus import ControlBus
from controller.db.failures import Failures
from controller.db.ledger import Ledger
from controller.db.prune import Pruner
from controller.db.publications import KIND as PROXY_TABLE
from controller.db.publications import Publications
from controller.db.repository import Repository
from controller.db.session import Database
from controller.metrics import ControllerMetrics
from controller.provision.patient import Patience
from controller.provision.port import Provisioner
from controller.publish.appproxy import AppProxy
from controller.publish.keys import ProxyKeys
from controller.reconcile.audit import AuditHistory
from controller.reconcile.coordinator import Coordinator, Ports
from controller.reconcile.handler import Mark
from controller.reconcile.outbox import Sender
from controller.reconcile.prune import Prune
from controller.reconcile.runner import Handler
from controller.reconcile.schedules import schedule_of
from controller.settings import Settings
from probe.errors import BusError

RETRY_S: Final = 2.0
"""How long an absent bus is left alone."""


class Leadership:
    """One term: a runner with every handler, and an ear on the change stream."""

    def __init__(
        self,
        settings: Settings,
        bus: ControlBus,
        repository: Repository,
        metrics: ControllerMetrics,
        provisioner: Provisioner,
    ) -> None:
        self._bus = bus
        self._patience = Patience(provisioner, on_late=lambda: self.runner.mark(Mark.ANSWERED))
        database = repository.database
        ports = Ports(
            repository=repository,
            bus=bus,
            proxy=AppProxy(bus.link, ProxyKeys(settings.key_prefix)),
            publications=Publications(database),
            failures=Failures(database),
            ask=self._patience.view,
        )
        coordinator = Coordinator(
            settings,
            ports,
            metrics,
            clock=time.monotonic,
            beside=(*_record_keepers(settings, database, metrics),),
        )
        self.runner = coordinator.runner
        self.senders: Mapping[str, Sender] = {PROXY_TABLE: coordinator.sync_proxy.send}
        """What delivers each kind of effect that waits in the outbox."""

    async def close(self) -> None:
        """Give up on what the provisioner has not answered."""
        await self._patience.close()

    async def listen(self) -> None:
        """Wake the classification when the prober announces a change of verdict.

        And everybody when the bus is not the one it was: at rest the next look, which would find
        that out, may be ten seconds away.
        """
        last_id: str | None = None
        epoch: str | None = None
        while True:
            try:
                found = await self._bus.changes(last_id)
            except BusError:  # the observer says that the bus is away; here it only means: wait
                last_id = None
                await anyio.sleep(RETRY_S)
                continue
            if epoch is not None and found.epoch != epoch:
                self.runner.hurry()
            last_id, epoch = found.last_id, found.epoch
            if found.changes:
                self.runner.mark(Mark.HEALTH)


def _record_keepers(
    settings: Settings, database: Database, metrics: ControllerMetrics
) -> Iterator[Handler]:
    """Make the handlers that look after the records alone."""
    yield AuditHistory(Ledger(database), metrics, schedule_of(settings, "audit_history"))
    pruner = Pruner(
        database,
        history_keep_days=settings.history_keep_days,
        routes_keep_days=settings.terminal_routes_keep_days,
    )
    yield Prune(pruner, schedule_of(settings, "prune"))
