"""The prober as a process: runs the stages of its parts, and ends in good order.

Called by the commands. Nothing is decided here about targets; what can go wrong at the start
raises, what goes wrong later is the stages' to ride out.
"""

import gc
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import anyio
import anyio.lowlevel
import structlog
from anyio.abc import TaskGroup

from probe import ops
from probe.errors import BusError
from probe.layers import parse_address
from probe.limits import local_ports, short_of_ports
from probe.metrics import registry_of
from probe.parts import Parts, View, put_together
from probe.settings import Settings
from probe.stages import supervise

LAST_WRITES_S: Final = 5.0
POLL_S: Final = 0.01
GC_THRESHOLDS: Final = (50_000, 50, 100)
"""Nearly all objects live for ever; what a probe allocates has no cycles."""

_log = structlog.get_logger("probe.daemon")


Show = Callable[[View], AbstractAsyncContextManager[str]]
"""Makes a prober visible while it is entered; says where.

What it cannot do it raises as it is, and not in a group: a command makes a sentence of it.
"""


async def run(settings: Settings, *, once: bool, show: Show, peers: Collection[str] = ()) -> None:
    """Probe until SIGTERM or SIGINT, or until each target was probed once; then drain.

    `peers` are its fellow workers.

    Raises:
        SettingsError: if a setting cannot work on this machine or with this bus.
        BusError: if the bus cannot be used at the start.
    """
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        parts = await put_together(settings, once=once, peers=peers)
        gc.collect()
        _spare_the_collector()
        try:
            await parts.bus.hello()
            async with show(parts.view) as where:
                _log.info("probing", instance=parts.prober.instance, metrics=where)
                async with anyio.create_task_group() as stages:
                    _start(stages, parts)
                    await _until_told(parts, signals, once=once)
                    stages.cancel_scope.cancel()
                await _drain(parts, settings)
        finally:
            with anyio.CancelScope(shield=True):
                await parts.ways.resolver.aclose()
                await parts.bus.aclose()


def on_port(settings: Settings, report: Callable[[str], None]) -> Show:
    """Show a prober on a port of its own; `report` is told where."""

    @asynccontextmanager
    async def show(view: View) -> AsyncIterator[str]:
        listener = await ops.bind(*parse_address("probe.metrics", settings.metrics))
        address = ops.address_of(listener)
        report(f"metrics on http://{address}/metrics")
        pages = ops.Pages(registry_of(view.read), live=view.live, ready=view.ready)
        async with anyio.create_task_group() as group:
            group.start_soon(ops.serve, listener, pages, name="ops")
            yield address
            group.cancel_scope.cancel()

    return show


def _start(group: TaskGroup, parts: Parts) -> None:
    for name, stage in (
        ("refresher", parts.refresher.run),
        ("ticker", parts.ticker.run),
        ("flusher", parts.flusher.run),
        ("heartbeat", parts.heartbeat.run),
        ("selftest", parts.watchers.selftest.run),
        ("selfwatch", parts.watchers.selfwatch.run),
        ("landmarks", parts.watchers.landmarks.run),
    ):
        group.start_soon(supervise, name, stage, parts.prober.ledger, name=name)
    group.start_soon(_freeze_once_loaded, parts, name="freeze")


def _spare_the_collector() -> None:
    """Take what there is out of the collector's sight: it lives for ever.

    Before the load as after it: with the thresholds of Python a load of 100,000 targets stood
    still for 0.4 s a time while everything was looked through.
    """
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _freeze_once_loaded(parts: Parts) -> None:
    """Spare the collector the targets too, and say what was loaded."""
    await parts.refresher.loaded.wait()
    _spare_the_collector()
    checks = parts.prober.sweep.scheduler
    _log.info("loaded", targets=len(checks))
    places: Counter[tuple[str, int]] = Counter()
    for some in checks.slices():
        places.update((each.target.replica_host, each.target.inference_port) for each in some)
        await anyio.lowlevel.checkpoint()
    if (why := short_of_ports(places, local_ports())) is not None:
        _log.warning("ports_scarce", why=why)


async def _until_told(parts: Parts, signals: AsyncIterator[signal.Signals], *, once: bool) -> None:
    """Wait for a signal; with `once` also for every target's first result."""
    async with anyio.create_task_group() as group:
        if once:
            group.start_soon(_each_once, parts, group.cancel_scope, name="once")
        _log.info("draining", signal=(await anext(signals)).name)
        group.cancel_scope.cancel()


async def _each_once(parts: Parts, over: anyio.CancelScope) -> None:
    """Wait until every target has had a probe that ended: their own deadlines bound this."""
    await parts.refresher.loaded.wait()
    checks = parts.prober.sweep.scheduler
    while not all(check.outcome is not None for check in checks):  # noqa: ASYNC110 - as below
        await anyio.sleep(POLL_S)
    over.cancel()


async def _drain(parts: Parts, settings: Settings) -> None:
    """Let probes in flight end, write what is known, say good-bye."""
    sweep = parts.prober.sweep
    with anyio.move_on_after(settings.drain_s):
        while sweep.in_flight:  # noqa: ASYNC110 - the sweep has no tasks, so nobody to tell us
            await anyio.sleep(POLL_S)
    sweep.stop()
    try:
        with anyio.move_on_after(LAST_WRITES_S):
            await parts.flusher.flush()
            await parts.bus.retire(parts.prober.instance)
    except BusError as error:
        _log.warning("drained_without_bus", error=str(error))
    _log.info("drained", statuses_written=parts.prober.ledger.statuses_written)
