"""One prober, put together from its settings.

Called by the daemon; knows every part and what each is given, and nothing of what they do. A
setting that cannot work on this machine is refused here, before anything runs.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Final, NamedTuple

import anyio

from probe import ops
from probe.bus.connect import BusFiles, connect
from probe.bus.hash_layout import HashBus
from probe.bus.prober import ProbeBus
from probe.flusher import Flusher
from probe.here import bus_services, metrics_service
from probe.http.pool import HttpPool
from probe.layers import parse_address
from probe.ledger import Ledger, Lifeline
from probe.limits import make_room
from probe.metrics import Reading
from probe.ownership import Shard
from probe.reach import Ways, judge_of, ways_of
from probe.readings import Readings
from probe.refresh import Refresh
from probe.refresher import Refresher
from probe.schedule.census import Census
from probe.schedule.scheduler import Scheduler
from probe.selfwatch.landmarks import Landmarks
from probe.selfwatch.selftest import OwnJudge, SelfTest
from probe.selfwatch.watch import SelfWatch
from probe.settings import Settings
from probe.sharing.heartbeat import Heartbeat
from probe.sharing.membership import LOOKS_PER_BEAT, Membership
from probe.stages import Prober, Settle, Ticker
from probe.sweep import Sweep
from probe.wire import Keys

TICKER_DEAD_S: Final = 10.0
"""A ticker this late will not come back by itself: /livez asks for a restart."""


class View(NamedTuple):
    """What a prober lets be seen."""

    read: Callable[[], Reading]
    live: ops.Trouble
    ready: ops.Trouble


class Watchers(NamedTuple):
    """What looks at the prober itself."""

    selftest: SelfTest
    selfwatch: SelfWatch
    landmarks: Landmarks


@dataclass(frozen=True, slots=True)
class Parts:
    """One prober, put together."""

    prober: Prober
    bus: ProbeBus
    ways: Ways
    refresher: Refresher
    ticker: Ticker
    flusher: Flusher
    heartbeat: Heartbeat
    watchers: Watchers
    view: View


async def put_together(settings: Settings, *, once: bool, peers: Collection[str]) -> Parts:
    """Build everything; the first command on the bus connects, the first tick starts a probe.

    Raises:
        SettingsError: if a setting cannot work on this machine.
    """
    room = make_room(settings.max_connections, settings.max_in_flight)
    judge = await _judge_of(settings)
    loop = asyncio.get_running_loop()
    ways = ways_of(settings, judge, loop=loop, max_open=room.max_open, max_kept=room.max_kept)
    bus = bus_of(settings)
    prober = _prober(settings, bus, ways.wire, max_in_flight=room.max_in_flight)
    flusher = _flusher(settings, prober)
    census = Census(prober.sweep.scheduler)

    def each_tick() -> None:
        flusher.look()
        census.look(prober.clock(), stretch=prober.vitals.stretch)

    ticker = Ticker(prober, after=each_tick)
    shard = _shard_of(settings, once=once)
    refresh = Refresh(
        shard.partitions() if shard else (),
        polls_per_round=settings.full_refresh_s / settings.poll_s,
        admit=judge.admit,
        ledger=prober.ledger,
    )
    heartbeat = _heartbeat(settings, prober, refresh, ticker, shard=shard)
    settle = None if shard else _membership(settings, prober, refresh, heartbeat, peers).settle
    refresher = _refresher(settings, prober, refresh, heartbeat, settle=settle, once=once)
    view = View(
        Readings(prober, ways.wire, census, version=version("fleetpulse")),
        live=partial(_dead, ticker, prober.clock),
        ready=partial(_unready, refresher, prober),
    )
    watchers = _watchers(settings, prober, census=census, wire=ways.wire, judge=judge)
    return Parts(prober, bus, ways, refresher, ticker, flusher, heartbeat, watchers, view)


def _flusher(settings: Settings, prober: Prober) -> Flusher:
    return Flusher(
        prober,
        Keys(settings.key_prefix),
        count=settings.flush_count,
        wait_s=settings.flush_s,
        late_s=settings.late_result_s,
    )


def _refresher(
    settings: Settings,
    prober: Prober,
    refresh: Refresh,
    heartbeat: Heartbeat,
    *,
    settle: Settle | None,
    once: bool,
) -> Refresher:
    return Refresher(
        prober,
        refresh,
        poll_s=settings.poll_s,
        settle=settle,
        covers=heartbeat.hurry,
        probe_at_once=once,
    )


def _prober(settings: Settings, bus: ProbeBus, wire: HttpPool, *, max_in_flight: int) -> Prober:
    clock, ledger = time.monotonic, Ledger()
    scheduler = Scheduler(
        settings.pace, settings.damping, deployment_share=settings.deployment_share
    )
    return Prober(
        instance=settings.instance or name_of_process(),
        bus=bus,
        sweep=Sweep(scheduler, wire, clock=clock, max_in_flight=max_in_flight),
        lifeline=Lifeline(ledger, clock=clock, backoff_max_s=settings.bus_backoff_s),
        ledger=ledger,
        clock=clock,
        standstill_s=settings.late_result_s,
    )


def _heartbeat(
    settings: Settings, prober: Prober, refresh: Refresh, ticker: Ticker, *, shard: Shard | None
) -> Heartbeat:
    return Heartbeat(
        prober,
        ticker,
        covered=lambda: refresh.covered,
        version=version("fleetpulse"),
        period_s=settings.heartbeat_s,
        ttl_s=settings.heartbeat_ttl_s,
        shard=str(shard or ""),
    )


def _membership(
    settings: Settings,
    prober: Prober,
    refresh: Refresh,
    heartbeat: Heartbeat,
    peers: Collection[str],
) -> Membership:
    return Membership(
        prober,
        refresh,
        look_s=settings.heartbeat_s / LOOKS_PER_BEAT,
        ttl_s=settings.heartbeat_ttl_s,
        peers=peers,
        hurry=heartbeat.hurry,
    )


def _watchers(
    settings: Settings, prober: Prober, *, census: Census, wire: HttpPool, judge: OwnJudge
) -> Watchers:
    """Put together what looks at the prober itself."""
    places = (parse_address("probe.reference_targets", each) for each in settings.reference_targets)
    most, flush_s = settings.interval_stretch_max, settings.flush_s
    return Watchers(
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


def _dead(ticker: Ticker, clock: Callable[[], float]) -> str | None:
    late_s = clock() - ticker.ticked_at
    return f"the sweep has not run for {late_s:.0f} s" if late_s > TICKER_DEAD_S else None


def _unready(refresher: Refresher, prober: Prober) -> str | None:
    if not refresher.loaded.is_set():
        return "the targets have not been read yet"
    return f"it does not trust itself: {prober.sick}" if prober.sick is not None else None
