"""Faults between the prober and a real server: nothing half written, nothing mistaken."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from redis.asyncio import Redis

from controller.embedded import EmbeddedValkey
from probe.bus.prober import ProbeBus, connect
from probe.bus.writes import WriteMode
from probe.errors import BusRefused, BusUnreachable, SettingsError
from probe.wire import Keys, encode
from tests.fakes.byte_cutter import ByteCutter
from tests.fakes.entries import replica, status, writing
from tests.fakes.services import Services

KEYS = Keys("t:")
MANY = [(f"t:s:{n}", b"v" * 200, 120 + n % 2) for n in range(1200)]


@pytest.fixture
def server_name() -> str:
    return "valkey"


@pytest.fixture(params=list(WriteMode))
async def bus(
    request: pytest.FixtureRequest, server: EmbeddedValkey, client: Redis
) -> AsyncIterator[ProbeBus]:
    del client  # empties the server
    probe = ProbeBus(connect(server.url), KEYS, write_mode=request.param)
    yield probe
    await probe.aclose()


async def keys_without_ttl(client: Redis) -> int:
    return sum([await client.ttl(key) == -1 async for key in client.scan_iter(count=1000)])


async def replies_match(bus: ProbeBus) -> bool:
    """Ask for what only the right reply can answer, on every connection of the pool."""
    ids = [replica(n) for n in range(8)]
    found: list[bool] = []

    async def ask(number: int) -> None:
        statuses = await bus.read_statuses([ids[number]])
        found.append(statuses == {ids[number]: status(number)})

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(ask, number)
    return all(found) and len(found) == 8


async def put_known(bus: ProbeBus) -> None:
    await bus.write_statuses(
        writing([(KEYS.status(replica(n)), encode(status(n)), 120) for n in range(8)])
    )


async def test_a_cancelled_scope_lets_the_write_finish(bus: ProbeBus, client: Redis) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await bus.write_statuses(writing(MANY))
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert await client.dbsize() == len(MANY)


async def test_cancels_mid_write_leave_no_key_without_ttl_and_no_mismatched_reply(
    bus: ProbeBus, client: Redis
) -> None:
    """R-64: cancelled as a bare task, where no shield helps, at 300 moments of its life."""
    await put_known(bus)
    unfinished = 0
    for attempt in range(300):
        task = asyncio.ensure_future(bus.write_statuses(writing(MANY[: 1 + attempt * 4])))
        await asyncio.sleep((attempt % 30) * 1e-4)  # the moment to hit, not a wait
        unfinished += not task.done()
        task.cancel()
        await asyncio.wait([task])
        if attempt % 50 == 0:
            assert await replies_match(bus)
    assert unfinished > 50
    assert await replies_match(bus)
    assert await keys_without_ttl(client) == 0


async def test_cancelled_reads_are_never_answered_to_the_next_one(bus: ProbeBus) -> None:
    await put_known(bus)
    ids = [replica(n) for n in range(2000)]  # most are absent: what counts is that it takes ms
    cancelled = 0
    for attempt in range(300):
        with anyio.move_on_after((attempt % 30) * 1e-4) as scope:
            await bus.read_statuses(ids[attempt % 8 :])
        cancelled += scope.cancelled_caught
        number = attempt % 8
        assert await bus.read_statuses([ids[number]]) == {ids[number]: status(number)}
    assert cancelled > 50


async def test_a_connection_cut_at_any_byte_of_a_write_leaves_no_key_without_ttl(
    server: EmbeddedValkey, client: Redis, bus: ProbeBus, tmp_path: Path
) -> None:
    """R-64."""
    mode = await bus.hello()
    path = tmp_path / "cut.sock"
    items = MANY[:20]
    async with ByteCutter(server.socket_path, path) as cutter:
        failures = 0
        for budget in range(200, 7000, 200):
            cutter.allow(budget)
            cut = ProbeBus(connect(f"unix://{path}"), KEYS, write_mode=mode)
            try:
                await cut.write_statuses(writing(items))
            except BusUnreachable:
                failures += 1
            await cut.aclose()
    assert failures > 10
    assert await keys_without_ttl(client) == 0


async def test_a_stopped_server_costs_its_deadline_and_is_used_again_when_it_wakes(
    services: Services,
) -> None:
    server = services.bus("valkey")
    assert server.pid is not None
    bus = ProbeBus(connect(server.url), KEYS, timeout_s=0.3)
    await put_known(bus)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(BusUnreachable):
            await bus.poll()
        with pytest.raises(BusUnreachable):
            await bus.write_statuses(writing(MANY))
        assert time.monotonic() - began < 2.0
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert await replies_match(bus)
    await bus.aclose()


async def test_a_server_that_was_killed_and_came_back_is_used_without_a_new_client(
    services: Services,
) -> None:
    server = services.bus("valkey")
    bus = ProbeBus(connect(server.url), KEYS)
    await put_known(bus)
    server.kill()
    with pytest.raises(BusUnreachable):
        await bus.poll()
    services.bus("valkey")
    assert await bus.read_statuses([replica(1)]) == {}
    await put_known(bus)
    assert await replies_match(bus)
    await bus.aclose()


async def test_another_server_at_the_same_address_is_asked_again_how_to_write(
    services: Services, tmp_path: Path
) -> None:
    path = tmp_path / "bus.sock"
    path.symlink_to(services.bus("valkey").socket_path)
    connection = connect(f"unix://{path}")
    assert isinstance(connection, Redis)
    bus = ProbeBus(connection, KEYS)
    assert await bus.hello() is WriteMode.MSETEX
    path.unlink()
    path.symlink_to(services.bus("valkey-lua").socket_path)
    await connection.connection_pool.disconnect()
    with pytest.raises(BusRefused, match="unknown command"):
        await bus.write_statuses(writing(MANY))
    await bus.write_statuses(writing(MANY))
    await bus.aclose()


async def test_a_read_only_replica_refuses_and_changes_nothing(
    bus: ProbeBus, client: Redis
) -> None:
    """R-63."""
    await client.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(BusRefused, match="read only"):
            await bus.write_statuses(writing(MANY))
    finally:
        await client.replicaof("NO", "ONE")
    assert await client.dbsize() == 0


async def test_a_wrong_password_is_a_refusal_and_is_not_shown(
    server: EmbeddedValkey, client: Redis
) -> None:
    await client.acl_setuser("guest", enabled=True, passwords=["+right"], categories=["+@all"])
    bus = ProbeBus(connect(server.url.replace("unix://", "unix://guest:s3cret@")), KEYS)
    with pytest.raises(BusRefused) as caught:
        await bus.poll()
    await bus.aclose()
    await client.acl_deluser("guest")
    assert "s3cret" not in str(caught.value)
    assert "guest" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1", "127.0.0.1:6379", "redis://h:port", ""])
def test_an_address_that_cannot_be_one_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError, match="redis://"):
        connect(url)
