"""The handlers of one term and what they share: an observer, a runner, what others were told.

Made anew for each term, by `controller.reconcile.leadership` over the real parts and by the
simulator over parts in memory: what is simulated is what runs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from controller.bus import ControlBus
from controller.db.failures import Failures
from controller.db.publications import Publications
from controller.db.repository import Repository
from controller.metrics import ControllerMetrics
from controller.provision.port import Provisioner
from controller.publish.appproxy import AppProxy
from controller.reconcile.deployments import (
    CheckReplicas,
    Deploying,
    Destroying,
    Fresh,
    fresh_ids,
)
from controller.reconcile.doubts import RecordHold, SecondOpinion
from controller.reconcile.handler import Mark
from controller.reconcile.health import CheckWarmingUp, ClassifyHealth, Evict
from controller.reconcile.observe import Observer
from controller.reconcile.provision import CheckRunning, CheckStarting, Provision
from controller.reconcile.publish import SyncProxy
from controller.reconcile.runner import Handler, Runner
from controller.reconcile.schedules import schedule_of
from controller.reconcile.targets import SyncProbeTargets
from controller.reconcile.traffic import Drain, Terminate
from controller.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What a coordinator reaches of the world."""

    repository: Repository
    bus: ControlBus
    proxy: AppProxy
    publications: Publications
    failures: Failures
    ask: Callable[[], Provisioner]
    """The way to the provisioner for one handler."""


class Coordinator:
    """One term's handlers, in the order in which a tick runs them."""

    def __init__(
        self,
        settings: Settings,
        ports: Ports,
        metrics: ControllerMetrics,
        *,
        clock: Callable[[], float],
        fresh: Fresh = fresh_ids,
        beside: tuple[Handler, ...] = (),
    ) -> None:
        """Make them; `beside` are handlers that only some worlds have."""
        self._settings, self._ports, self._metrics = settings, ports, metrics
        self._fresh = fresh
        self._schedule = partial(schedule_of, settings)
        self._observer = Observer(
            ports.repository,
            ports.bus,
            metrics,
            clock=clock,
            on_amnesia=self._rewrite,
            on_failed_look=lambda: self.runner.mark(Mark.DOUBT),
        )
        self._sync = SyncProbeTargets(ports.bus, metrics, self._schedule("sync_probe_targets"))
        self.sync_proxy = SyncProxy(
            ports.publications,
            ports.proxy,
            metrics,
            self._schedule("sync_proxy"),
            on_delivered=lambda: self.runner.mark(Mark.UNREGISTERED),
        )
        self.runner = Runner(
            (*self._coming(), *self._judged(), *self._counted(), *beside, *self._leaving()),
            repository=ports.repository,
            observer=self._observer,
            metrics=metrics,
            clock=clock,
        )

    def _coming(self) -> Iterator[Handler]:
        """Make the handlers of a route's way up, and of its session while it runs."""
        ask, schedule = self._ports.ask, self._schedule
        limit_s = self._settings.starting_timeout_s
        yield Provision(ask(), schedule("provision"), timeout_s=limit_s)
        yield CheckStarting(ask(), schedule("check_starting"), timeout_s=limit_s)
        yield CheckWarmingUp(schedule("check_warming_up"))
        yield CheckRunning(ask(), schedule("check_running"))

    def _judged(self) -> Iterator[Handler]:
        """Make the handlers of health."""
        bus, observer, schedule = self._ports.bus, self._observer, self._schedule
        yield ClassifyHealth(schedule("classify_health"), observer.velocity)
        yield SecondOpinion(bus, observer.witness, self._metrics, schedule("second_opinion"))
        yield Evict(schedule("evict"), self._metrics)

    def _counted(self) -> Iterator[Handler]:
        """Make the handlers of whole deployments, and those that tell others of them."""
        ports, schedule = self._ports, self._schedule
        yield Deploying(schedule("deploying"), fresh=self._fresh)
        yield CheckReplicas(schedule("check_replicas"), ports.failures, fresh=self._fresh)
        yield Destroying(schedule("destroying"))
        yield self._sync
        yield self.sync_proxy
        yield RecordHold(ports.repository, schedule("record_hold"))

    def _leaving(self) -> Iterator[Handler]:
        """Make the handlers of a route's last steps."""
        settings, ports, schedule = self._settings, self._ports, self._schedule
        limit_s, grace_s = settings.unregister_timeout_s, settings.termination_grace_s
        yield Drain(schedule("drain"), self.sync_proxy.registry, timeout_s=limit_s)
        yield Terminate(ports.ask(), ports.bus, schedule("terminate"), grace_s=grace_s)

    def _rewrite(self) -> None:
        """Write everything again: the bus lost its memory."""
        self._sync.forget()
        self.sync_proxy.forget()
        self.runner.mark(Mark.TARGETS)
