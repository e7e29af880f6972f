"""The prober as a process: puts the parts together, runs the stages, ends in good order.

Called by the commands. Nothing is decided here about targets; what can go wrong at the start
raises, what goes wrong later is the stages' to ride out.
"""

import asyncio
import gc
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Final, NamedTuple

import anyio
import structlog
from anyio.abc import TaskGroup

from probe import ops
from probe.bus import ProbeBus
from probe.bus_connect import BusFiles, connect
from probe.bus_hash import HashBus
from probe.census import Census
from probe.errors import BusError
from probe.flusher import Flusher
from probe.heartbeat import Heartbeat
from probe.here import bus_services, metrics_service
from probe.http.pool import HttpPool
from probe.landmarks import Landmarks
from probe.layers import parse_address
from probe.ledger import Ledger, Lifeline
from probe.limits import local_ports, make_room, short_of_ports
from probe.membership import LOOKS_PER_BEAT, Membership
from probe.metrics import Reading, registry_of
from probe.ownership import Shard
from probe.reach import Ways, judge_of, ways_of
from probe.readings import Readings
from probe.refresh import Refresh
from probe.scheduler import Scheduler
from probe.selftest import OwnJudge, SelfTest
from probe.selfwatch import SelfWatch
from probe.settings import Settings
from probe.stages import (
    Prober,
    Refresher,
    Ticker,
    supervise,
)
from probe.sweep import Sweep
from probe.wire import Keys

TICKER_DEAD_S: Final = 10.0
"""A ticker this late will not come back by itself: /livez asks for a restart."""
LAST_WRITES_S: Final = 5.0
POLL_S: Final = 0.01
GC_THRESHOLDS: Final = (50_000, 50, 100)
"""After the load nearly all objects live for ever; what a probe allocates has no cycles."""

_log = structlog.get_logger("probe.daemon")


class View(NamedTuple):
    """What a prober lets be seen."""

    read: Callable[[], Reading]
    live: ops.Trouble
    ready: ops.Trouble


Show = Callable[[View, TaskGroup], Awaitable[str]]
"""Makes a prober visible, with tasks of the group; returns where."""


class _Watchers(NamedTuple):
    """What looks at the prober itself."""

    selftest: SelfTest
    selfwatch: SelfWatch
    landmarks: Landmarks


@dataclass(frozen=True, slots=True)
class _Parts:
    """One prober, put together."""

    prober: Prober
    bus: ProbeBus
    ways: Ways
    refresher: Refresher
    ticker: Ticker
    flusher: Flusher
    heartbeat: Heartbeat
    watchers: _Watchers
    view: View


async def run(settings: Settings, *, once: bool, show: Show, peers: Collection[str] = ()) -> None:
    """Probe until SIGTERM or SIGINT, or until each target was probed once; then drain.

    `show` makes the prober visible; `peers` are its fellow workers.

    Raises:
        SettingsError: if a setting cannot work on this machine or with this bus.
        BusError: if the bus cannot be used at the start.
    """
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        parts = await _put_together(settings, once=once, peers=peers)
        try:
            await parts.bus.hello()
            async with anyio.create_task_group() as group:
                where = await show(parts.view, group)
                _log.info("probing", instance=parts.prober.instance, metrics=where)
                async with anyio.create_task_group() as stages:
                    _start(stages, parts)
                    await _until_told(parts, signals, once=once)
                    stages.cancel_scope.cancel()
                await _drain(parts, settings)
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await parts.ways.resolver.aclose()
                await parts.bus.aclose()


def on_port(settings: Settings, report: Callable[[str], None]) -> Show:
    """Show a prober on a port of its own; `report` is told where."""

    async def show(view: View, group: TaskGroup) -> str:
        listener = await ops.bind(*parse_address("probe.metrics", settings.metrics))
        address = ops.address_of(listener)
        report(f"metrics on http://{address}/metrics")
        pages = ops.Pages(registry_of(view.read), live=view.live, ready=view.ready)
        group.start_soon(ops.serve, listener, pages, name="ops")
        return address

    return show


async def _put_together(settings: Settings, *, once: bool, peers: Collection[str]) -> _Parts:
    room = make_room(settings.max_connections, settings.max_in_flight)
    clock = time.monotonic
    judge = await _judge_of(settings)
    loop = asyncio.get_running_loop()
    ways = ways_of(settings, judge, loop=loop, max_open=room.max_open, max_kept=room.max_kept)
    wire = ways.wire
    ledger, keys = Ledger(), Keys(settings.key_prefix)
    bus = bus_of(settings)
    prober = Prober(
        instance=settings.instance or name_of_process(),
        bus=bus,
        sweep=Sweep(
            Scheduler(settings.pace, settings.damping, deployment_share=settings.deployment_share),
            wire,
            clock=clock,
            max_in_flight=room.max_in_flight,
        ),
        lifeline=Lifeline(ledger, clock=clock, backoff_max_s=settings.bus_backoff_s),
        ledger=ledger,
        clock=clock,
        standstill_s=settings.late_result_s,
    )
    shard = _shard_of(settings, once=once)
    refresh = Refresh(
        shard.partitions() if shard else (),
        polls_per_round=settings.full_refresh_s / settings.poll_s,
        admit=judge.admit,
        ledger=ledger,
    )
    flusher = Flusher(
        prober,
        keys,
        count=settings.flush_count,
        wait_s=settings.flush_s,
        late_s=settings.late_result_s,
    )
    census = Census(prober.sweep.scheduler)

    def each_tick() -> None:
        flusher.look()
        census.look(clock(), stretch=prober.vitals.stretch)

    ticker = Ticker(prober, after=each_tick)
    release = version("fleetpulse")
    heartbeat = Heartbeat(
        prober,
        ticker,
        covered=lambda: refresh.covered,
        version=release,
        period_s=settings.heartbeat_s,
        ttl_s=settings.heartbeat_ttl_s,
        shard=str(shard or ""),
    )
    membership = Membership(
        prober,
        refresh,
        look_s=settings.heartbeat_s / LOOKS_PER_BEAT,
        ttl_s=settings.heartbeat_ttl_s,
        peers=peers,
        hurry=heartbeat.hurry,
    )
    refresher = Refresher(
        prober,
        refresh,
        poll_s=settings.poll_s,
        settle=None if shard else membership.settle,
        covers=heartbeat.hurry,
        probe_at_once=once,
    )
    readings = Readings(prober, wire, census, version=release)
    view = View(
        readings,
        live=partial(_dead, ticker, clock),
        ready=partial(_unready, refresher, prober),
    )
    watchers = _watchers(settings, prober, census=census, wire=wire, judge=judge)
    return _Parts(prober, bus, ways, refresher, ticker, flusher, heartbeat, watchers, view)


def _watchers(
    settings: Settings, prober: Prober, *, census: Census, wire: HttpPool, judge: OwnJudge
) -> _Watchers:
    """Put together what looks at the prober itself."""
    places = (parse_address("probe.reference_targets", each) for each in settings.reference_targets)
    most, flush_s = settings.interval_stretch_max, settings.flush_s
    return _Watchers(
        SelfTest(prober, wire, judge),
        SelfWatch(prober, census, wire, stretch_max=most, flush_s=flush_s),
        Landmarks(prober, tuple(places)),
    )


def bus_of(settings: Settings) -> ProbeBus:
    """Build the way to the bus; the first command connects."""
    timeout_s = settings.bus_timeout_s
    client = connect(settings.redis_url, files=BusFiles.of(settings), timeout_s=timeout_s)
    kind = HashBus if settings.bus_layout == "hash" else ProbeBus
    return kind(client, Keys(settings.key_prefix), timeout_s=timeout_s)


async def _judge_of(settings: Settings) -> OwnJudge:
    """Return the judge; the bus and our metrics are found out first, so that no target is them."""
    bus = await anyio.to_thread.run_sync(bus_services, settings.redis_url)
    metrics = await anyio.to_thread.run_sync(
        metrics_service, *parse_address("probe.metrics", settings.metrics)
    )
    judge = judge_of(settings, os.environ, own=(*bus, *metrics))
    return OwnJudge(judge.policy, secrets=judge.secrets, tls=judge.tls, proxy=judge.proxy)


def name_of_process() -> str:
    """Return a name that no other prober has."""
    return f"{socket.gethostname()}-{os.getpid()}"


def _shard_of(settings: Settings, *, once: bool) -> Shard | None:
    """Return the fixed share; None to share with the others that live.

    Who probes everything once is no member: it would be gone before the others had moved over.
    """
    return Shard.parse(settings.shard or "1/1") if settings.shard or once else None


def _start(group: TaskGroup, parts: _Parts) -> None:
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


async def _freeze_once_loaded(parts: _Parts) -> None:
    """Take what was loaded out of the collector's sight: it lives for ever, and is much."""
    await parts.refresher.loaded.wait()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    checks = parts.prober.sweep.scheduler
    _log.info("loaded", targets=len(checks))
    places = ((check.target.replica_host, check.target.inference_port) for check in checks)
    if (why := short_of_ports(places, local_ports())) is not None:
        _log.warning("ports_scarce", why=why)


async def _until_told(parts: _Parts, signals: AsyncIterator[signal.Signals], *, once: bool) -> None:
    """Wait for a signal; with `once` also for every target's first result."""
    async with anyio.create_task_group() as group:
        if once:
            group.start_soon(_each_once, parts, group.cancel_scope, name="once")
        _log.info("draining", signal=(await anext(signals)).name)
        group.cancel_scope.cancel()


async def _each_once(parts: _Parts, over: anyio.CancelScope) -> None:
    """Wait until every target has had a probe that ended: their own deadlines bound this."""
    await parts.refresher.loaded.wait()
    checks = parts.prober.sweep.scheduler
    while not all(check.outcome is not None for check in checks):  # noqa: ASYNC110 - as below
        await anyio.sleep(POLL_S)
    over.cancel()


async def _drain(parts: _Parts, settings: Settings) -> None:
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


def _dead(ticker: Ticker, clock: Callable[[], float]) -> str | None:
    late_s = clock() - ticker.ticked_at
    return f"the sweep has not run for {late_s:.0f} s" if late_s > TICKER_DEAD_S else None


def _unready(refresher: Refresher, prober: Prober) -> str | None:
    if not refresher.loaded.is_set():
        return "the targets have not been read yet"
    return f"it does not trust itself: {prober.sick}" if prober.sick is not None else None
