"""What exists while one controller leads: its handlers, their marks, and what wakes them.

Built anew by the daemon for every term of leadership, so that nothing an earlier term believed
outlives it.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import anyio

from controller.bus import ControlBus
from controller.db.failures import Failures
from controller.db.ledger import Ledger
from controller.db.prune import Pruner
from controller.db.publications import KIND as PROXY_TABLE
from controller.db.publications import Publications
from controller.db.repository import Repository
from controller.metrics import ControllerMetrics
from controller.provision.patient import Patience
from controller.provision.port import Provisioner
from controller.publish.appproxy import AppProxy
from controller.publish.keys import ProxyKeys
from controller.reconcile.audit import AuditHistory
from controller.reconcile.deployments import CheckReplicas, Deploying, Destroying
from controller.reconcile.doubts import RecordHold, SecondOpinion
from controller.reconcile.handler import Mark, Schedule
from controller.reconcile.health import CheckWarmingUp, ClassifyHealth, Evict
from controller.reconcile.observe import Observer
from controller.reconcile.outbox import Sender
from controller.reconcile.provision import CheckRunning, CheckStarting, Provision
from controller.reconcile.prune import Prune
from controller.reconcile.publish import SyncProxy
from controller.reconcile.runner import Handler, Runner
from controller.reconcile.targets import SyncProbeTargets
from controller.reconcile.traffic import Drain, Terminate
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
        observer = Observer(
            repository,
            bus,
            metrics,
            clock=time.monotonic,
            on_amnesia=self._rewrite,
            on_failed_look=lambda: self.runner.mark(Mark.DOUBT),
        )
        schedule = partial(schedule_of, settings)
        self._patience = Patience(provisioner, on_late=lambda: self.runner.mark(Mark.ANSWERED))
        self._sync = SyncProbeTargets(bus, metrics, schedule("sync_probe_targets"))
        self._sync_proxy = SyncProxy(
            Publications(repository.database),
            AppProxy(bus.link, ProxyKeys(settings.key_prefix)),
            metrics,
            schedule("sync_proxy"),
            on_delivered=lambda: self.runner.mark(Mark.UNREGISTERED),
        )
        self.senders: Mapping[str, Sender] = {PROXY_TABLE: self._sync_proxy.send}
        """What delivers each kind of effect that waits in the outbox."""
        handlers: Sequence[Handler] = (
            Provision(
                self._patience.view(),
                schedule("provision"),
                timeout_s=settings.starting_timeout_s,
            ),
            CheckStarting(
                self._patience.view(),
                schedule("check_starting"),
                timeout_s=settings.starting_timeout_s,
            ),
            CheckWarmingUp(schedule("check_warming_up")),
            CheckRunning(self._patience.view(), schedule("check_running")),
            ClassifyHealth(schedule("classify_health"), observer.velocity),
            SecondOpinion(bus, observer.witness, metrics, schedule("second_opinion")),
            Evict(schedule("evict"), metrics),
            Deploying(schedule("deploying")),
            CheckReplicas(schedule("check_replicas"), Failures(repository.database)),
            Destroying(schedule("destroying")),
            self._sync,
            self._sync_proxy,
            Drain(
                schedule("drain"),
                self._sync_proxy.registry,
                timeout_s=settings.unregister_timeout_s,
            ),
            RecordHold(repository, schedule("record_hold")),
            Terminate(
                self._patience.view(),
                bus,
                schedule("terminate"),
                grace_s=settings.termination_grace_s,
            ),
            AuditHistory(Ledger(repository.database), metrics, schedule("audit_history")),
            Prune(
                Pruner(
                    repository.database,
                    history_keep_days=settings.history_keep_days,
                    routes_keep_days=settings.terminal_routes_keep_days,
                ),
                schedule("prune"),
            ),
        )
        self.runner = Runner(
            handlers,
            repository=repository,
            observer=observer,
            metrics=metrics,
            clock=time.monotonic,
        )

    def _rewrite(self) -> None:
        """Write everything again: the bus lost its memory."""
        self._sync.forget()
        self._sync_proxy.forget()
        self.runner.mark(Mark.TARGETS)

    async def close(self) -> None:
        """Give up on what the provisioner has not answered."""
        await self._patience.close()

    async def listen(self) -> None:
        """Wake the classification when the prober announces a change of verdict."""
        last_id: str | None = None
        while True:
            try:
                found = await self._bus.changes(last_id)
            except BusError:  # the observer says that the bus is away; here it only means: wait
                last_id = None
                await anyio.sleep(RETRY_S)
                continue
            last_id = found.last_id
            if found.changes:
                self.runner.mark(Mark.HEALTH)


WAKES: Final = {
    "provision": ({Mark.ANSWERED, Mark.PENDING}, {Mark.STARTING, Mark.READINESS}),
    "check_starting": (
        {Mark.ANSWERED, Mark.STARTING},
        {Mark.WARMING_UP, Mark.TARGETS, Mark.DRAINING},
    ),
    "check_warming_up": ({Mark.WARMING_UP, Mark.HEALTH}, {Mark.READINESS, Mark.DRAINING}),
    "check_running": ({Mark.ANSWERED, Mark.HEALTH}, {Mark.READINESS, Mark.DRAINING}),
    "classify_health": ({Mark.HEALTH}, {Mark.READINESS}),
    "second_opinion": ({Mark.HEALTH, Mark.READINESS}, set()),
    "record_hold": ({Mark.DOUBT}, set()),
    "evict": (set(), {Mark.READINESS, Mark.DRAINING}),
    "deploying": (
        {Mark.DEPLOYMENTS, Mark.READINESS},
        {Mark.PENDING, Mark.DRAINING, Mark.DEPLOYMENTS},
    ),
    "check_replicas": (
        {Mark.DEPLOYMENTS, Mark.READINESS},
        {Mark.PENDING, Mark.DRAINING},
    ),
    "destroying": ({Mark.DEPLOYMENTS, Mark.READINESS}, {Mark.DRAINING}),
    "sync_probe_targets": ({Mark.TARGETS, Mark.DEPLOYMENTS}, set()),
    "sync_proxy": (
        {Mark.READINESS, Mark.DRAINING, Mark.DEPLOYMENTS, Mark.TARGETS},
        set(),
    ),
    "audit_history": (set(), set()),
    "prune": (set(), set()),
    "drain": (
        {Mark.DRAINING, Mark.UNREGISTERED, Mark.DEPLOYMENTS},
        {Mark.TARGETS, Mark.COOLING_DOWN},
    ),
    "terminate": ({Mark.ANSWERED, Mark.COOLING_DOWN}, {Mark.READINESS}),
}
"""What wakes each handler, and what it wakes when it changed something (R-49)."""


def schedule_of(settings: Settings, handler: str) -> Schedule:
    """Return when a handler runs, and what wakes it."""
    period = settings.period(handler)
    consumes, produces = WAKES[handler]
    return Schedule(
        period_s=period.long_s,
        on_mark_s=period.on_mark_s,
        first_after_s=period.first_after_s,
        consumes=frozenset(consumes),
        produces=frozenset(produces),
    )
