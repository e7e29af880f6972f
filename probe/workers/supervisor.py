"""Several workers as one prober: kept alive, ended together, shown on one port.

Called by `fleetpulse probe --workers`. A worker is the prober itself as a process of its own, a
member among the others; here nobody probes. What a dead worker watched its fellows take over,
until it is back.
"""

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import anyio
import structlog
from msgspec.structs import replace

from probe import ops
from probe.errors import WorkerFailed
from probe.layers import parse_address
from probe.metrics import Buckets, registry_of
from probe.ownership import Shard
from probe.parts import bus_of, name_of_process
from probe.settings import Settings
from probe.workers.crew import Worker
from probe.workers.gather import Gathering, Labels
from probe.workers.worker import EXIT_USAGE, Post

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0
STEADY_S: Final = 60.0
"""Who ran for so long ended by accident, not at its start."""
END_S: Final = 9.0
"""Workers get so long to drain: the whole ends within 10 s."""

_log = structlog.get_logger("probe.workers.supervisor")


@dataclass(frozen=True, slots=True)
class _Failure:
    """A worker that another start would not mend."""

    number: int
    code: int


class Supervisor:
    """Runs `count` workers of one prober."""

    def __init__(self, settings: Settings, *, count: int, once: bool) -> None:
        each = settings_of_workers(settings, count=count, once=once)
        names = tuple(one.instance for one in each)
        self._settings = settings
        self._once = once
        self._clock = time.monotonic
        self._gathering = Gathering()
        self._workers = [
            Worker(number, Post(one, once, names), self._gathering, clock=self._clock)
            for number, one in enumerate(each)
        ]
        self._restarts = 0
        self._failure: _Failure | None = None

    async def run(self, report: Callable[[str], None]) -> None:
        """Keep the workers until SIGTERM or SIGINT, or, with `once`, until all have ended.

        `report` is told where the metrics are.

        Raises:
            SettingsError: if a setting cannot work on this machine or with this bus.
            BusError: if the bus cannot be used at the start.
            WorkerFailed: if a worker ended in a way that another start would not mend.
        """
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await self._try_the_bus()
            listener = await ops.bind(*parse_address("probe.metrics", self._settings.metrics))
            report(f"metrics on http://{ops.address_of(listener)}/metrics")
            _log.info("supervising", workers=len(self._workers))
            pages = ops.Pages(
                registry_of(self._read), live=self._dead, ready=self._idle, before=self._ask_all
            )
            async with anyio.create_task_group() as group:
                group.start_soon(ops.serve, listener, pages, name="ops")
                await self._keep_all(signals)
                await self._end_all()
                group.cancel_scope.cancel()
        if self._failure is not None:
            raise WorkerFailed(
                f"worker {self._failure.number + 1} of {len(self._workers)} ended with code "
                f"{self._failure.code}: its own message above says why"
            )
        _log.info("ended", workers=len(self._workers))

    async def _try_the_bus(self) -> None:
        """Find out here, once, what would end each worker at its start."""
        bus = bus_of(self._settings)
        try:
            await bus.hello()
        finally:
            await bus.aclose()

    async def _keep_all(self, signals: AsyncIterator[signal.Signals]) -> None:
        """Return when told to, when a worker cannot be mended, or when all are done."""
        async with anyio.create_task_group() as group:

            async def until_told() -> None:
                _log.info("draining", signal=(await anext(signals)).name)
                group.cancel_scope.cancel()

            group.start_soon(until_told)
            async with anyio.create_task_group() as keepers:
                for worker in self._workers:
                    keepers.start_soon(self._keep, worker, group.cancel_scope)
            group.cancel_scope.cancel()

    async def _keep(self, worker: Worker, over: anyio.CancelScope) -> None:
        """Start a worker whenever it does not run."""
        pause_s = BACKOFF_FIRST_S
        while True:
            started = self._clock()
            code = await worker.live()
            if self._once and code == 0:
                return
            if self._once or code == EXIT_USAGE:
                self._failure = _Failure(worker.number, code)
                over.cancel()
                return
            ran_s = self._clock() - started
            if ran_s > STEADY_S:
                pause_s = BACKOFF_FIRST_S
            self._restarts += 1
            _log.warning(
                "worker_ended",
                worker=worker.number + 1,
                code=code,
                ran_s=round(ran_s, 1),
                again_in_s=pause_s,
            )
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, BACKOFF_MAX_S)

    async def _end_all(self) -> None:
        """Let every worker drain, all at once; end by force who takes too long."""
        running = [process for worker in self._workers if (process := worker.process) is not None]
        for process in running:
            process.terminate()
        with anyio.move_on_after(END_S):
            for process in running:
                await process.wait()
        for process in running:
            if process.returncode is None:
                _log.warning("worker_killed", pid=process.pid, after_s=END_S)
                process.kill()
                await process.wait()

    async def _ask_all(self) -> None:
        async with anyio.create_task_group() as group:
            for worker in self._workers:
                group.start_soon(worker.ask)

    def _read(self) -> dict[str, dict[Labels, float | Buckets]]:
        reading = self._gathering.reading(now=self._clock())
        reading["workers"] = {(): len(self._workers)}
        reading["worker_restarts_total"] = {(): self._restarts}
        reading.setdefault("workers_reporting", {(): 0})
        return reading

    def _dead(self) -> str | None:
        return next((trouble for each in self._workers if (trouble := each.dead())), None)

    def _idle(self) -> str | None:
        return next((trouble for each in self._workers if (trouble := each.idle())), None)


def settings_of_workers(settings: Settings, *, count: int, once: bool) -> list[Settings]:
    """Return the settings of each worker: a name of its own, and its part of a fixed share.

    Raises:
        SettingsError: if there are more parts than partitions.
    """
    base = settings.instance or name_of_process()
    fixed = Shard.parse(settings.shard or "1/1") if settings.shard or once else None
    shards = [""] * count if fixed is None else [str(part) for part in fixed.split(count)]
    return [
        replace(settings, instance=f"{base}-w{number}", shard=shard)
        for number, shard in enumerate(shards, start=1)
    ]


def workers_of(settings: Settings) -> int:
    """Return how many workers are asked for: `auto` is one for each core we may run on."""
    if settings.workers == "auto":
        return len(os.sched_getaffinity(0))
    return settings.workers
