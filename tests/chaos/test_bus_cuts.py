"""Connections cut at any byte, and tasks cancelled at any moment: nothing half written, nothing
mistaken for another's (R-64).

`FLEETPULSE_FULL=1` cuts 1,000 times and cancels 10,000 times; else it is a twentieth of both.
"""

import asyncio
import os
import random
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

import anyio
import pytest
from redis.asyncio import Redis

from controller.bus import ControlBus
from controller.embedded import EmbeddedValkey
from probe.bus.connect import connect
from probe.bus.hash_layout import HashBus
from probe.bus.prober import ProbeBus
from probe.bus.writes import WriteMode
from probe.errors import BusError
from probe.wire import Keys, ProberHeartbeat, encode
from tests.fakes.byte_cutter import ByteCutter
from tests.fakes.entries import replica, status, target, writing

FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
CUTS: Final = 1000 if FULL else 50
CANCELS: Final = 10_000 if FULL else 500
KEYS: Final = Keys("t:")
KNOWN: Final = range(8)
"""Replicas whose statuses never change: what is read of them can be told right from wrong."""
MANY: Final = [(KEYS.status(replica(n)), encode(status(n)), 120 + n % 2) for n in range(10, 410)]
BEAT: Final = ProberHeartbeat(
    instance="p-1",
    partitions=(0,),
    targets=1,
    probes_per_second=1.0,
    loop_lag_ms=0.0,
    version="1",
    started_at=1.0,
    at=0.0,
)
ENDLESS: Final = {KEYS.versions, KEYS.epoch, KEYS.changes, *map(KEYS.index, range(64))}
"""What has no time to live by design."""


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        running = EmbeddedValkey(Path(directory, "bus"))
        running.start()
        yield running
        running.stop()


@pytest.fixture
async def client(server: EmbeddedValkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url) as looker:
        await looker.flushall()
        yield looker


async def without_ttl(client: Redis) -> set[str]:
    found = {k.decode() async for k in client.scan_iter(count=1000) if await client.ttl(k) == -1}
    return found - ENDLESS


async def mismatched(bus: ProbeBus) -> int:
    """Ask on every connection of the pool for what only the right reply can answer."""
    wrong = 0

    async def ask(number: int) -> None:
        nonlocal wrong
        wrong += await bus.read_statuses([replica(number)]) != {replica(number): status(number)}

    async with anyio.create_task_group() as group:
        for number in KNOWN:
            group.start_soon(ask, number)
    return wrong


async def put_known(bus: ProbeBus) -> None:
    await bus.write_statuses(
        writing((KEYS.status(replica(n)), encode(status(n)), 3600) for n in KNOWN)
    )


@pytest.mark.parametrize("mode", list(WriteMode))
async def test_no_cut_of_a_write_leaves_a_key_without_ttl_or_mixes_replies_up(
    server: EmbeddedValkey, client: Redis, mode: WriteMode, tmp_path: Path
) -> None:
    """R-64: cut at a byte anywhere between the first of the greeting and the last of the batch."""
    chance = random.Random(mode)  # noqa: S311 - the same cuts in every run
    path = tmp_path / "cut.sock"
    cut, whole = 0, 0
    async with (
        ByteCutter(server.socket_path, path) as cutter,
        aclosing(ProbeBus(connect(server.url), KEYS)) as straight,
        aclosing(ProbeBus(connect(f"unix://{path}"), KEYS, write_mode=mode)) as bus,
    ):
        await put_known(straight)
        for _ in range(CUTS):
            items = MANY[: chance.randrange(1, 60)]
            cutter.allow(chance.randrange(1, 800 * len(items)))
            try:
                await bus.write_statuses(writing(items))
                whole += 1
            except BusError:
                cut += 1
        cutter.allow(1 << 30)
        assert await mismatched(bus) == 0
        assert await mismatched(straight) == 0
    assert min(cut, whole) > CUTS / 20
    assert await without_ttl(client) == set()


async def test_no_cut_of_anything_else_leaves_a_key_without_ttl(
    server: EmbeddedValkey, client: Redis, tmp_path: Path
) -> None:
    """R-64: targets, heartbeats and the hashes of the other layout."""
    chance = random.Random(1)  # noqa: S311 - the same cuts in every run
    path = tmp_path / "cut.sock"
    cut, url = 0, f"unix://{path}"
    targets = [target(n) for n in range(40)]
    async with (
        ByteCutter(server.socket_path, path) as cutter,
        aclosing(ProbeBus(connect(url), KEYS)) as prober,
        aclosing(ControlBus(connect(url), KEYS)) as controller,
        aclosing(HashBus(connect(url), Keys("h:"))) as hashes,
    ):
        items = [(f"h:route_health:{replica(n)}", encode(status(n)), 120) for n in range(20)]
        for attempt in range(CUTS):
            cutter.allow(chance.randrange(1, 6000))
            try:
                match attempt % 4:
                    case 0:
                        await prober.hello()
                        await prober.heartbeat(BEAT)
                    case 1:
                        await controller.write_targets(chance.sample(targets, 10))
                    case 2:
                        await controller.remove_targets([t.replica_id for t in targets[:5]])
                    case _:
                        await hashes.write_statuses(writing(items))
            except BusError:
                cut += 1
    assert cut > CUTS / 20
    assert await without_ttl(client) == set()


@pytest.mark.parametrize("mode", list(WriteMode))
async def test_no_cancellation_leaves_a_key_without_ttl_or_mixes_replies_up(
    server: EmbeddedValkey, client: Redis, mode: WriteMode
) -> None:
    """R-64: cancelled as bare tasks, where no shield helps, reads and writes side by side."""
    chance = random.Random(mode)  # noqa: S311 - the same moments in every run
    async with aclosing(ProbeBus(connect(server.url), KEYS, write_mode=mode)) as bus:
        await put_known(bus)
        ids = [replica(n) for n in range(400)]
        unfinished, wrong = 0, 0
        for attempt in range(CANCELS // len(WriteMode)):
            write = asyncio.ensure_future(
                bus.write_statuses(writing(MANY[: chance.randrange(1, 400)]))
            )
            read = asyncio.ensure_future(bus.read_statuses(ids[attempt % 8 :]))
            await asyncio.sleep(chance.random() * 2e-3)  # the moment to hit, not a wait
            for task in (write, read):
                unfinished += not task.done()
                task.cancel()
            await asyncio.wait([write, read])
            if attempt % 25 == 0:
                wrong += await mismatched(bus)
        wrong += await mismatched(bus)
    assert unfinished > CANCELS / 50
    assert wrong == 0
    assert await without_ttl(client) == set()
