"""The controller as a process: puts the parts together, leads while it holds the lease, ends.

Called by the commands. What can go wrong at the start raises; what goes wrong later is ridden
out, but for a lost lease: then somebody else leads, and this process ends at once.
"""

import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from controller.bus import BusFiles, ControlBus, connect
from controller.db import migrate
from controller.db.repository import Repository
from controller.db.session import open_database
from controller.errors import Conflict, ControllerError, DatabaseUnreachable
from controller.lease import Lease
from controller.metrics import ControllerMetrics
from controller.provision.external import ExternalProvisioner
from controller.provision.fleet.client import FleetClient
from controller.provision.mixed import MixedProvisioner
from controller.provision.port import Provisioner
from controller.provision.simulated import SimulatedProvisioner
from controller.reconcile.handler import Mark
from controller.reconcile.leadership import Leadership
from controller.reconcile.runner import Runner
from controller.settings import Settings
from probe import ops
from probe.errors import FleetpulseError
from probe.layers import parse_address
from probe.wire import Keys

log = structlog.get_logger()

TICK_S: Final = 0.1
"""The grain of periods: a mark is acted on at most this late."""
STAMP_S: Final = 1.0
"""How often the deployments are looked at for what an operator did in another process."""
RETRY_S: Final = 2.0
"""How often a standby tries for the lease, and how long an absent database is left alone."""
STUCK_S: Final = 60.0
"""A loop this late will not come back by itself: /livez asks for a restart."""


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
        self._beat = self._renewed_at = time.monotonic()
        self._trouble: str | None = "starting"

    async def run(self, *, once: bool) -> None:
        """Lead whenever the lease can be had, until SIGTERM or SIGINT.

        Raises:
            SettingsError: if a setting cannot work on this machine or with this bus.
            Conflict: if the database's schema is not the one this program needs.
            DatabaseUnreachable: if the database cannot be used at the start.
            BusError: if the bus cannot be used at the start.
            LeaseLost: if another controller took over; start again to be its standby.
        """
        try:
            host, port = parse_address("controller.metrics", self._settings.metrics)
            listener = await ops.bind(host, port)
            await _check_schema(self._settings.database_url)
            await self._bus.hello()
            pages = ops.Pages(
                registry=self._metrics.registry, live=self._is_stuck, ready=self._not_ready
            )
            async with _together() as group:
                group.start_soon(ops.serve, listener, pages)
                self._report(f"metrics on http://{ops.address_of(listener)}/metrics")
                if once:
                    await self._lead(once=True)
                else:
                    await self._until_signal(group)
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._close()

    async def _until_signal(self, group: TaskGroup) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            group.start_soon(self._campaign)
            log.info("ending", signal=(await anext(signals)).name)

    async def _campaign(self) -> None:
        """Take the lease whenever it is free, and lead while it lasts."""
        while True:
            self._beat = time.monotonic()
            try:
                epoch = await self._lease.acquire()
                self._trouble = None  # a standby is ready: it takes over by itself
                if epoch is not None:
                    await self._lead(once=False)
            except DatabaseUnreachable as error:
                self._note_database(error)
            await anyio.sleep(RETRY_S)

    async def _lead(self, *, once: bool) -> None:
        """Run the handlers under the lease.

        Raises:
            Conflict: if another controller leads, and `once` cannot wait until it ends.
            LeaseLost: if another controller took over.
            DatabaseUnreachable: if the database is away, and `once` cannot wait.
        """
        if self._lease.epoch is None and await self._lease.acquire() is None:
            raise Conflict("another controller holds the lease: stop it, or wait until it ends")
        epoch = self._lease.epoch or 0
        self._renewed_at = time.monotonic()
        log.info("leading", epoch=epoch)
        self._metrics.leads(leader=True)
        leadership = Leadership(
            self._settings, self._bus, self._repository, self._metrics, self._provisioner
        )
        try:
            async with _together() as group:
                if once:
                    leadership.runner.hurry()
                    await self._tick(leadership.runner, epoch=epoch)
                else:
                    group.start_soon(leadership.listen)
                    group.start_soon(self._keep_lease)
                    await self._reconcile(leadership.runner, epoch=epoch)
                group.cancel_scope.cancel()
        finally:
            self._metrics.leads(leader=False)

    async def _reconcile(self, runner: Runner, *, epoch: int) -> None:
        stamped_at, stamp = float("-inf"), ""
        while True:
            self._beat = now = time.monotonic()
            try:
                await self._renew()
                if now - stamped_at >= STAMP_S:
                    stamped_at, before = now, stamp
                    stamp = await self._repository.stamp()
                    if stamp != before:
                        runner.mark(Mark.DEPLOYMENTS)
                await self._tick(runner, epoch=epoch)
                self._trouble = None
            except DatabaseUnreachable as error:
                self._note_database(error)
                await anyio.sleep(RETRY_S)
            await anyio.sleep(TICK_S)

    async def _renew(self) -> None:
        """Hold the lease for another term when a third of this one is over.

        Raises:
            LeaseLost: if another controller took over.
            DatabaseUnreachable: if the database is away.
        """
        now = time.monotonic()
        if now - self._renewed_at >= self._settings.lease_s / 3:
            await self._lease.renew()
            self._renewed_at = now

    async def _keep_lease(self) -> None:
        """Renew also in the midst of a tick: a provisioner may take 30 s to say nothing.

        A loop that is stuck is not renewed for, so that another controller takes over.
        """
        while True:
            await anyio.sleep(self._settings.lease_s / 6)
            if self._is_stuck() is None:
                with suppress(DatabaseUnreachable):  # the loop meets it too, and tells
                    await self._renew()

    async def _tick(self, runner: Runner, *, epoch: int) -> None:
        try:
            await runner.tick(epoch=epoch)
        finally:
            self._metrics.wrote(self._repository.sql_writes)

    def _note_database(self, error: DatabaseUnreachable) -> None:
        self._metrics.database_error()
        if self._trouble is None:
            log.warning("database_away", error=str(error), consequence="nothing is changed")
        self._trouble = str(error)

    def _is_stuck(self) -> str | None:
        late_s = time.monotonic() - self._beat
        return f"the reconcile loop is {late_s:.0f} s late" if late_s > STUCK_S else None

    def _not_ready(self) -> str | None:
        return self._trouble

    async def _close(self) -> None:
        with anyio.move_on_after(RETRY_S):
            try:
                await self._lease.release()
            except DatabaseUnreachable as error:
                log.warning("lease_not_released", error=str(error))
        await self._provisioner.close()
        await self._bus.aclose()
        await self._database.close()


@asynccontextmanager
async def _together() -> AsyncIterator[TaskGroup]:
    """Run tasks together; what ends one of them on purpose comes out as itself, not in a group."""
    try:
        async with anyio.create_task_group() as group:
            yield group
    except ExceptionGroup as errors:
        meant: Exception | None = errors.subgroup((ControllerError, FleetpulseError))
        while isinstance(meant, ExceptionGroup):
            meant = meant.exceptions[0]
        if meant is None:
            raise
        raise meant from None


async def _check_schema(database_url: str) -> None:
    found, needed = await migrate.current(database_url), migrate.head()
    if found is not None and not migrate.knows(found):
        raise Conflict(
            f"the database's schema is {found}, which this program does not know: run the version "
            f"of fleetpulse that made it, or newer (this one needs {needed})"
        )
    if found != needed:
        raise Conflict(
            f"the database's schema is {found or 'empty'}, this program needs {needed}: run "
            "`fleetpulse db upgrade` with the same --database"
        )


def _provisioner(settings: Settings) -> Provisioner:
    external = ExternalProvisioner()
    if settings.provisioner == "external":
        return external
    return MixedProvisioner(
        SimulatedProvisioner(FleetClient(Path(settings.fleet_socket))), external=external
    )
