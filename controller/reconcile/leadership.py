"""What exists while one controller leads: its handlers, their marks, and what wakes them.

Built anew by the daemon for every term of leadership, so that nothing an earlier term believed
outlives it.
"""

import time
from collections.abc import Iterator, Mapping
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
        self._settings = settings
        self._bus = bus
        self._repository = repository
        self._metrics = metrics
        self._schedule = partial(schedule_of, settings)
        self._observer = Observer(
            repository,
            bus,
            metrics,
            clock=time.monotonic,
            on_amnesia=self._rewrite,
            on_failed_look=lambda: self.runner.mark(Mark.DOUBT),
        )
        self._patience = Patience(provisioner, on_late=lambda: self.runner.mark(Mark.ANSWERED))
        self._sync = SyncProbeTargets(bus, metrics, self._schedule("sync_probe_targets"))
        self._sync_proxy = SyncProxy(
            Publications(repository.database),
            AppProxy(bus.link, ProxyKeys(settings.key_prefix)),
            metrics,
            self._schedule("sync_proxy"),
            on_delivered=lambda: self.runner.mark(Mark.UNREGISTERED),
        )
        self.senders: Mapping[str, Sender] = {PROXY_TABLE: self._sync_proxy.send}
        """What delivers each kind of effect that waits in the outbox."""
        self.runner = Runner(
            (*self._coming(), *self._judged(), *self._counted(), *self._told(), *self._leaving()),
            repository=repository,
            observer=self._observer,
            metrics=metrics,
            clock=time.monotonic,
        )

    def _coming(self) -> Iterator[Handler]:
        """Make the handlers of a route's way up, and of its session while it runs."""
        limit_s = self._settings.starting_timeout_s
        ask, schedule = self._patience.view, self._schedule
        yield Provision(ask(), schedule("provision"), timeout_s=limit_s)
        yield CheckStarting(ask(), schedule("check_starting"), timeout_s=limit_s)
        yield CheckWarmingUp(schedule("check_warming_up"))
        yield CheckRunning(ask(), schedule("check_running"))

    def _judged(self) -> Iterator[Handler]:
        """Make the handlers of health."""
        observer, schedule = self._observer, self._schedule
        yield ClassifyHealth(schedule("classify_health"), observer.velocity)
        yield SecondOpinion(self._bus, observer.witness, self._metrics, schedule("second_opinion"))
        yield Evict(schedule("evict"), self._metrics)

    def _counted(self) -> Iterator[Handler]:
        """Make the handlers of whole deployments."""
        failures = Failures(self._repository.database)
        yield Deploying(self._schedule("deploying"))
        yield CheckReplicas(self._schedule("check_replicas"), failures)
        yield Destroying(self._schedule("destroying"))

    def _told(self) -> Iterator[Handler]:
        """Make the handlers that tell others, and those that keep the records."""
        settings, database, schedule = self._settings, self._repository.database, self._schedule
        yield self._sync
        yield self._sync_proxy
        yield RecordHold(self._repository, schedule("record_hold"))
        yield AuditHistory(Ledger(database), self._metrics, schedule("audit_history"))
        pruner = Pruner(
            database,
            history_keep_days=settings.history_keep_days,
            routes_keep_days=settings.terminal_routes_keep_days,
        )
        yield Prune(pruner, schedule("prune"))

    def _leaving(self) -> Iterator[Handler]:
        """Make the handlers of a route's last steps."""
        settings, schedule = self._settings, self._schedule
        registry, limit_s = self._sync_proxy.registry, settings.unregister_timeout_s
        grace_s = settings.termination_grace_s
        yield Drain(schedule("drain"), registry, timeout_s=limit_s)
        yield Terminate(self._patience.view(), self._bus, schedule("terminate"), grace_s=grace_s)

    def _rewrite(self) -> None:
        """Write everything again: the bus lost its memory."""
        self._sync.forget()
        self._sync_proxy.forget()
        self.runner.mark(Mark.TARGETS)

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
