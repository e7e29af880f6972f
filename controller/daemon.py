"""The controller as a process: puts the parts together, leads while it holds the lease, ends.

Called by the commands. What can go wrong at the start raises; what goes wrong later is ridden
out, but for a lost lease: then somebody else leads, and this process ends at once.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from controller.api.front import Front
from controller.api.page import Standing
from controller.bus import BusFiles, ControlBus, connect
from controller.db import migrate
from controller.db.repository import Repository
from controller.db.session import open_database
from controller.errors import Conflict, DatabaseUnreachable, LeaseLost
from controller.lease import RETRY_S, Lease
from controller.metrics import ControllerMetrics
from controller.provision.external import ExternalProvisioner
from controller.provision.fleet.client import FleetClient
from controller.provision.mixed import MixedProvisioner
from controller.provision.port import Provisioner
from controller.provision.processes import ProcessProvisioner
from controller.provision.simulated import SimulatedProvisioner
from controller.reconcile.leadership import Leadership
from controller.reconcile.outbox import Deliverer
from controller.reconcile.pulse import Pulse
from controller.reconcile.term import Term
from controller.reconcile.together import together
from controller.settings import Settings
from probe import ops
from probe.wire import Keys

log = structlog.get_logger()

RELEASE_WITHIN_S: Final = 2.0
"""An ending controller waits no longer for the database: the lease runs out by itself."""
END_WITHIN_S: Final = 8.0
"""A server that is there and says nothing holds each transaction for up to 12 s."""


class Controller:
    """One controller process."""

    def __init__(self, settings: Settings, *, report: Callable[[str], None]) -> None:
        """Prepare; `report` is told where the metrics are."""
        self._settings = settings
        self._report = report
        self._metrics = ControllerMetrics()
        self._database = open_database(settings.database_url)
        self._repository = Repository(self._database)
        client = connect(settings.redis_url, files=BusFiles.of(settings))
        self._bus = ControlBus(client, Keys(settings.key_prefix))
        self._provisioner = _provisioner(settings)
        holder = settings.instance or f"{socket.gethostname()}-{os.getpid()}"
        self._lease = Lease(self._database, holder=holder, lease_s=settings.lease_s)
        self._pulse = Pulse(self._metrics)
        self._end_anyway = threading.Timer(END_WITHIN_S, _end_now)
        self._end_anyway.daemon = True

    async def run(self, *, once: bool) -> None:
        """Lead whenever the lease can be had, until SIGTERM or SIGINT.

        Raises:
            SettingsError: if a setting cannot work on this machine or with this bus.
            Conflict: if the database's schema is of a newer program.
            DatabaseUnreachable: if the database cannot be used at the start, or lacks the schema
                this program needs.
            BusError: if the bus cannot be used at the start.
            LeaseLost: if another controller took over; start again to be its standby.
        """
        try:
            pages = ops.Pages(
                registry=self._metrics.registry, live=self._pulse.stuck, ready=self._pulse.not_ready
            )
            front = await Front.open(self._settings, pages, standing=self._standing, bus=self._bus)
            await _check_schema(self._settings.database_url)
            await self._bus.hello()
            async with together() as group:
                group.start_soon(front.serve)
                self._report(f"metrics on {front.url}/metrics")
                if once:
                    await self._lead_once()
                else:
                    await self._until_signal(group)
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._close()
            self._end_anyway.cancel()

    def _standing(self) -> Standing:
        return Standing(
            leads=self._lease.epoch is not None,
            trouble=self._pulse.not_ready(),
            hold=self._metrics.held,
        )

    async def _until_signal(self, group: TaskGroup) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            group.start_soon(self._campaign)
            log.info("ending", signal=(await anext(signals)).name)
            self._end_anyway.start()

    async def _campaign(self) -> None:
        """Take the lease whenever it is free, and lead while it lasts."""
        stands_by = False
        while True:
            self._pulse.beat()
            pause_s = RETRY_S
            try:
                epoch = await self._lease.acquire()
                self._pulse.well()  # a standby is ready: it takes over by itself
                if epoch is not None:
                    await self._lead(epoch, once=False)
                if not stands_by:
                    log.info("standing_by")
                stands_by, pause_s = True, self._lease.pause_s
            except DatabaseUnreachable as error:
                self._pulse.database_away(error)
            await anyio.sleep(pause_s)

    async def _lead_once(self) -> None:
        """Run every handler once under the lease.

        Raises:
            Conflict: if another controller leads.
            LeaseLost: if another controller took over.
            DatabaseUnreachable: if the database is away.
        """
        epoch = await self._lease.acquire()
        if epoch is None:
            raise Conflict("another controller holds the lease: stop it, or wait until it ends")
        await self._lead(epoch, once=True)

    async def _lead(self, epoch: int, *, once: bool) -> None:
        """Run the handlers under the lease just taken.

        Raises:
            LeaseLost: if another controller took over.
            DatabaseUnreachable: if the database is away, and `once` cannot wait.
        """
        log.info("leading", epoch=epoch)
        leadership = Leadership(
            self._settings, self._bus, self._repository, self._metrics, self._provisioner
        )
        deliverer = Deliverer(
            leadership.senders,
            database=self._database,
            metrics=self._metrics,
            epoch=epoch,
            clock=time.monotonic,
        )
        term = Term(
            leadership,
            deliverer,
            lease=self._lease,
            epoch=epoch,
            lease_s=self._settings.lease_s,
            repository=self._repository,
            metrics=self._metrics,
            pulse=self._pulse,
        )
        self._metrics.leads(epoch)
        try:
            await (term.once() if once else term.run())
        except LeaseLost as error:
            log.error("lease_lost", epoch=epoch, why=str(error))  # noqa: TRY400 - no accident
            raise
        finally:
            self._metrics.leads(None)
            await leadership.close()

    async def _close(self) -> None:
        with anyio.move_on_after(RELEASE_WITHIN_S):
            try:
                await self._lease.release()
            except DatabaseUnreachable as error:
                log.warning("lease_not_released", error=str(error))
        await self._provisioner.close()
        await self._bus.aclose()
        await self._database.close()


def _end_now() -> None:
    """End as a crash would, which costs nothing but the wait for the lease."""
    log.warning("lease_not_released", error=f"still waiting after {END_WITHIN_S:g} s")
    os._exit(0)


async def _check_schema(database_url: str) -> None:
    found, needed = await migrate.current(database_url), migrate.head()
    if found is not None and not migrate.knows(found):
        raise Conflict(
            f"the database's schema is {found}, which this program does not know: run the version "
            f"of fleetpulse that made it, or newer (this one needs {needed})"
        )
    if found != needed:
        raise DatabaseUnreachable(
            f"the database's schema is {found or 'empty'}, this program needs {needed}: run "
            "`fleetpulse db upgrade` with the same --database"
        )


def _provisioner(settings: Settings) -> Provisioner:
    external = ExternalProvisioner()
    match settings.provisioner:
        case "external":
            return external
        case "simulated":
            own: Provisioner = SimulatedProvisioner(FleetClient(Path(settings.fleet_socket)))
        case "process":
            own = ProcessProvisioner(
                Path(settings.process_directory),
                host=settings.process_host,
                ports=settings.port_range,
                grace_s=settings.termination_grace_s,
            )
    return MixedProvisioner(own, external=external)
