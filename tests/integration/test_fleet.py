"""What a client meets at the replicas of a real fleet process."""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import uuid4

import anyio
import httpx
import pytest

from controller.errors import NotFound
from controller.provision.fleet.client import FleetClient
from controller.provision.fleet.messages import Report, Wanted
from controller.provision.fleet.replica import Behaviour, Fault, Repair
from controller.provision.port import SessionState
from tests.fakes.fleet import a_fleet

AT_ONCE = Behaviour(load_s=0)


@pytest.fixture
async def fleet() -> AsyncIterator[FleetClient]:
    async with a_fleet() as client:
        yield client


async def started(
    fleet: FleetClient, behaviour: Behaviour = AT_ONCE, *, path: str = "/health"
) -> tuple[str, Report]:
    one = str(uuid4())
    refusals = await fleet.start([Wanted(id=one, path=path, behaviour=behaviour)])
    assert refusals == {one: ""}
    return one, (await fleet.inspect([one]))[one]


def connected(at: Report, *, timeout_s: float = 5.0) -> socket.socket:
    return socket.create_connection((at.host, at.port), timeout=timeout_s)


def asked(connection: socket.socket, path: str = "/health", *, method: str = "GET") -> bytes:
    connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: replica\r\n\r\n".encode())
    return connection.recv(4096)


def status_of(at: Report, path: str = "/health") -> int:
    with connected(at) as connection:
        return int(asked(connection, path).split()[1])


async def until_status(at: Report, status: int) -> None:
    """Ask until the replica answers with `status`."""
    with anyio.fail_after(10):
        while True:
            with suppress(ConnectionRefusedError):
                if status_of(at) == status:
                    return
            await anyio.sleep(0.01)


async def test_a_thousand_replicas_start_in_one_call_and_each_answers_for_itself(
    fleet: FleetClient,
) -> None:
    ids = [str(uuid4()) for _ in range(1000)]
    wanted = [Wanted(id=one, path="/health", behaviour=AT_ONCE) for one in ids]
    began = time.perf_counter()
    refusals = await fleet.start(wanted)
    assert time.perf_counter() - began <= 2.0  # measured: 0.04 s
    assert set(refusals.values()) == {""}

    reports = await fleet.inspect(ids)
    assert len({report.host for report in reports.values()}) == 1000
    for one, report in reports.items():
        with connected(report) as connection:
            assert asked(connection).endswith(one.encode())
    counts = await fleet.counts(ids)
    assert {(count.requests, count.connections) for count in counts.values()} == {(1, 1)}


async def test_one_connection_carries_many_requests(fleet: FleetClient) -> None:
    one, at = await started(fleet)
    with connected(at) as connection:
        for _ in range(10):
            assert asked(connection).startswith(b"HTTP/1.1 200 OK\r\n")
    count = (await fleet.counts([one]))[one]
    assert (count.requests, count.connections) == (10, 1)


async def test_requests_cut_or_joined_by_the_network_are_answered_one_by_one(
    fleet: FleetClient,
) -> None:
    one, at = await started(fleet)
    request = b"GET /health HTTP/1.1\r\nHost: replica\r\n\r\n"
    with connected(at) as connection:
        for byte in request:
            connection.send(bytes([byte]))
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(request * 3)
        received = b""
        while received.count(b"HTTP/1.1 200") < 3:
            received += connection.recv(4096)
    assert (await fleet.counts([one]))[one].requests == 4


async def test_it_is_http_enough_for_any_client(fleet: FleetClient) -> None:
    one, at = await started(fleet, path="/v1/health/ready")
    async with httpx.AsyncClient(
        base_url=f"http://{at.host}:{at.port}", trust_env=False, timeout=5
    ) as client:
        good = await client.get("/v1/health/ready?verbose=1")
        assert (good.status_code, good.text) == (200, one)
        assert (await client.head("/v1/health/ready")).status_code == 200
        assert (await client.get("/health")).status_code == 404
        assert (await client.post("/v1/health/ready")).status_code == 405
        last = await client.get("/v1/health/ready", headers={"Connection": "close"})
        assert last.status_code == 200


async def test_a_head_without_end_is_dropped(fleet: FleetClient) -> None:
    _, at = await started(fleet)
    with connected(at) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX: " + b"x" * 20_000)
        # What was unread at the close makes it a reset: dropped all the same.
        with suppress(ConnectionResetError):
            assert connection.recv(4096) == b""


async def test_a_replica_refuses_while_it_loads_and_then_serves(fleet: FleetClient) -> None:
    _, loading = await started(fleet, Behaviour(load_s=3600))
    with pytest.raises(ConnectionRefusedError):
        status_of(loading)
    _, loaded = await started(fleet, Behaviour(load_s=0.1))
    await until_status(loaded, 200)


async def test_a_replica_may_answer_503_while_it_loads(fleet: FleetClient) -> None:
    _, loading = await started(fleet, Behaviour(load_s=3600, loading="unavailable"))
    assert status_of(loading) == 503
    _, loaded = await started(fleet, Behaviour(load_s=0.1, loading="unavailable"))
    await until_status(loaded, 200)


async def test_a_fault_may_befall_every_so_many_th_replica_only(fleet: FleetClient) -> None:
    behaviour = Behaviour(refuse="no such image", fault_every=3)
    wanted = [Wanted(id=str(uuid4()), path="/health", behaviour=behaviour) for _ in range(9)]
    refusals = await fleet.start(wanted)
    assert [refusals[one.id] for one in wanted] == ["", "", "no such image"] * 3


async def test_a_killed_replica_drops_its_connections_and_refuses_new_ones(
    fleet: FleetClient,
) -> None:
    one, at = await started(fleet)
    _, neighbour = await started(fleet)
    with connected(at) as connection:
        asked(connection)
        await fleet.inject([one], Fault.KILL)
        assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        connected(at)
    report = (await fleet.inspect([one]))[one]
    assert (report.state, report.exit_reason) == (SessionState.EXITED, "killed")
    assert status_of(neighbour) == 200


async def test_a_restarted_replica_serves_at_the_same_address(fleet: FleetClient) -> None:
    one, at = await started(fleet)
    for _ in range(3):
        with connected(at) as connection:
            asked(connection)
            await fleet.inject([one], Fault.KILL)
        await fleet.repair([one], Repair.RESTART)
        assert (await fleet.inspect([one]))[one] == at
        await until_status(at, 200)


async def test_a_hung_replica_accepts_and_never_answers(fleet: FleetClient) -> None:
    one, at = await started(fleet)
    with connected(at) as kept:
        asked(kept)
        await fleet.inject([one], Fault.HANG)
        for connection in (kept, connected(at)):
            with connection:
                connection.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    asked(connection)
    assert (await fleet.inspect([one]))[one].state is SessionState.RUNNING
    await fleet.repair([one], Repair.HEAL)
    assert status_of(at) == 200


async def test_a_flapping_replica_goes_to_and_fro(fleet: FleetClient) -> None:
    one, at = await started(fleet)
    await fleet.inject([one], Fault.FLAP, seconds=0.05)
    for status in (503, 200, 503, 200):
        await until_status(at, status)


async def test_a_failing_replica_answers_503_and_a_slow_one_answers_late(
    fleet: FleetClient,
) -> None:
    one, at = await started(fleet)
    await fleet.inject([one], Fault.FAIL)
    assert status_of(at) == 503
    await fleet.inject([one], Fault.SLOW, seconds=0.2)
    began = time.perf_counter()
    assert status_of(at) == 200
    assert time.perf_counter() - began >= 0.1


async def test_a_replica_crashes_by_itself_when_its_revision_says_so(fleet: FleetClient) -> None:
    one, at = await started(fleet, Behaviour(load_s=0, fault=Fault.KILL, fault_after_s=0.2))
    with anyio.fail_after(10):
        while True:
            report = (await fleet.inspect([one]))[one]
            if report.state is SessionState.EXITED:
                break
            await anyio.sleep(0.01)
    assert report.exit_reason == "exited with status 1"
    with pytest.raises(ConnectionRefusedError):
        connected(at)


async def test_a_stopped_replica_is_forgotten_and_its_port_is_free(fleet: FleetClient) -> None:
    one, at = await started(fleet)
    with connected(at) as connection:
        asked(connection)
        await fleet.stop([one])
        assert connection.recv(1) == b""
    assert await fleet.inspect([one]) == {}
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind((at.host, at.port))
        taker.listen()
    with pytest.raises(NotFound, match=one):
        await fleet.inject([one], Fault.KILL)


async def test_two_fleets_live_side_by_side(fleet: FleetClient) -> None:
    async with a_fleet() as other:
        (here, here_at), (there, there_at) = await started(fleet), await started(other)
        with connected(here_at) as first, connected(there_at) as second:
            assert asked(first).endswith(here.encode())
            assert asked(second).endswith(there.encode())
