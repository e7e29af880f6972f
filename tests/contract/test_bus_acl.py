"""The users that we ship: enough for what each daemon does, and for nothing else."""

import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from controller.bus import ControlBus
from controller.embedded import EmbeddedValkey, find_binary
from controller.publish.appproxy import AppProxy, Outcome, values_of
from controller.publish.keys import ProxyKeys
from controller.route.table import Publication, table_of
from probe.bus.connect import connect
from probe.bus.hash_layout import HashBus
from probe.bus.prober import ProbeBus
from probe.bus.writes import WriteMode
from probe.errors import BusRefused
from probe.reasons import Reason
from probe.wire import HealthChange, Keys, encode, partition_of
from tests.fakes.bus_servers import until
from tests.fakes.entries import BEAT, replica, status, target, writing
from tests.fakes.nouns import DEMO, a_deployment, fleet
from tests.fakes.services import redis7_binary

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "valkey.acl"
KEYS = Keys()
PROXY_KEYS = ProxyKeys()
DENIED_ALL = (
    "FLUSHALL",
    "KEYS *",
    "CONFIG GET *",
    "ACL LIST",
    "CLIENT LIST",
    "INFO",
    "SHUTDOWN NOSAVE",
    "SUBSCRIBE news",
    "GET another",
    "SET another x",
    "DEL bus_epoch_of_another",
)
DENIED_PROBER = (
    "SET route_probe:x y",
    "DEL route_probe:x",
    "ZADD route_probe_index:1 1 x",
    "HINCRBY route_probe_versions 1 1",
    "SET bus_epoch x",
    "XREAD STREAMS route_health_changes 0",
)
DENIED_CONTROLLER = (
    "SET route_health:x y",
    "EXPIRE route_health:x 1",
    "SET prober:x y",
    "ZADD probers 1 x",
    "XADD route_health_changes * a b",
    "EVAL return(0) 1 another",
    "GET events",
    "XREAD STREAMS events 0",
    "DEL events",
    "SET endpoint.x.another y",
    "SET endpoint.x.session.y.another z",
    "DEL endpoint.x.route_connection_info",
    "EVAL return(0) 1 route_probe:x",
)


@pytest.fixture(scope="module", params=["redis7", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedValkey]:
    """A server that starts with the shipped file, its users switched on."""
    binary = redis7_binary() if request.param == "redis7" else find_binary()
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        users = Path(directory, "users.acl")
        text = SHIPPED.read_text()
        for user in ("operator", "prober", "controller"):
            text = text.replace(f"user {user} off", f"user {user} on >pw-{user}")
        users.write_text(text)
        options = ("--aclfile", str(users))
        running = EmbeddedValkey(Path(directory, "bus"), binary=binary, options=options)
        running.launch()
        until(partial(answers, running))
        yield running
        running.stop()


def answers(server: EmbeddedValkey) -> bool:
    """Tell whether it listens yet; `start` itself waits for a word that strangers do not get."""
    assert server.pid is not None, server.process.log_tail()
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(server.socket_path)) == 0


def url_of(server: EmbeddedValkey, user: str) -> str:
    return server.url.replace("unix://", f"unix://{user}:pw-{user}@")


@pytest.fixture
async def operator(server: EmbeddedValkey) -> AsyncIterator[Redis]:
    client = Redis.from_url(url_of(server, "operator"))
    await client.flushall()
    yield client
    await client.aclose()


async def test_a_prober_may_do_all_that_it_does(server: EmbeddedValkey, operator: Redis) -> None:
    await operator.set(KEYS.target(replica(1)), encode(target(1)))
    await operator.zadd(KEYS.index(partition_of(replica(1))), {replica(1): 2**40})
    bus = ProbeBus(connect(url_of(server, "prober")))
    assert await bus.hello() is WriteMode.LUA
    poll = await bus.poll()
    found = await bus.read_targets(range(64), poll.time_s)
    assert found.by_partition[partition_of(replica(1))] == [target(1)]
    for mode in (WriteMode.LUA, WriteMode.PIPELINE):
        writer = ProbeBus(connect(url_of(server, "prober")), write_mode=mode)
        item = (KEYS.status(replica(1)), encode(status(1)), 120)
        await writer.write_statuses(writing([item]))
        await writer.aclose()
    assert await bus.read_statuses([replica(1), replica(2)]) == {replica(1): status(1)}
    assert await bus.read_lives([replica(1)])
    await bus.heartbeat(BEAT)
    assert list(await bus.read_probers(poll.time_s)) == ["p-1"]
    await bus.announce([HealthChange(replica_id=replica(1), healthy=True, reason=Reason.OK)])
    await bus.retire("p-1")
    await bus.aclose()


async def test_a_prober_may_do_all_that_it_does_on_hashes(
    server: EmbeddedValkey, operator: Redis
) -> None:
    fields: dict[Any, Any] = {
        "replica_host": "127.0.0.1",
        "inference_port": "8000",
        "health_path": "/health",
    }
    await operator.hset(KEYS.target(replica(1)), "replica_id", replica(1), mapping=fields)
    bus = HashBus(connect(url_of(server, "prober")))
    await bus.hello()
    poll = await bus.poll()
    found = await bus.read_targets(range(64), poll.time_s)
    assert found.by_partition[partition_of(replica(1))] == [target(1)]
    await bus.write_statuses(writing([(KEYS.status(replica(1)), encode(status(1)), 120)]))
    assert list(await bus.read_statuses([replica(1)])) == [replica(1)]
    await bus.heartbeat(BEAT)
    await bus.retire("p-1")
    await bus.aclose()


async def test_a_controller_may_do_all_that_it_does(
    server: EmbeddedValkey, operator: Redis
) -> None:
    await operator.set(KEYS.status(replica(1)), encode(status(1)))
    await operator.set(KEYS.heartbeat("p-1"), encode(BEAT))
    await operator.zadd(KEYS.probers, {"p-1": 1})
    bus = ControlBus(connect(url_of(server, "controller")))
    await bus.hello()
    await bus.ensure_epoch()
    assert (await bus.write_targets([target(1), target(2)])).failed == []
    evidence = await bus.read_evidence([replica(1), replica(2)])
    assert list(evidence.statuses) == [replica(1)]
    assert list(evidence.probers) == ["p-1"]
    start = await bus.changes(None)
    await bus.changes(start.last_id, block_ms=1)
    await bus.remove_targets([replica(1)])
    assert await operator.exists(KEYS.target(replica(1)), KEYS.status(replica(1))) == 0
    table = table_of(a_deployment(), fleet(2))
    published = Publication(deployment_id=DEMO, epoch=1, generation=1, table=table)
    (outcome,) = await AppProxy(bus.link, PROXY_KEYS).write([published], announce=True)
    assert outcome is Outcome.CHANGED
    assert await operator.exists(*values_of(PROXY_KEYS, published), PROXY_KEYS.events) == 6
    await bus.aclose()


@pytest.mark.parametrize(
    ("user", "command"),
    [
        *(("prober", command) for command in (*DENIED_ALL, *DENIED_PROBER)),
        *(("controller", command) for command in (*DENIED_ALL, *DENIED_CONTROLLER)),
    ],
)
async def test_anything_else_is_denied(server: EmbeddedValkey, user: str, command: str) -> None:
    async with Redis.from_url(url_of(server, user)) as client:
        with pytest.raises(NoPermissionError):
            await client.execute_command(*command.split(" "))  # type: ignore[no-untyped-call]  # as the library has it


@pytest.mark.parametrize(
    ("user", "key"),
    [
        ("prober", "route_probe:x"),
        ("prober", "endpoint.x.route_connection_info"),
        ("controller", "route_health:x"),
        ("controller", "another"),
    ],
)
async def test_a_script_gets_nobody_further_than_its_keys(
    server: EmbeddedValkey, operator: Redis, user: str, key: str
) -> None:
    async with Redis.from_url(url_of(server, user)) as client:
        with pytest.raises(ResponseError, match=r"[Pp]ermission|can't access"):
            await client.eval(f"return redis.call('SET', '{key}', 'y')", 0)
    assert await operator.exists(key) == 0


async def test_nobody_comes_in_without_a_password(server: EmbeddedValkey) -> None:
    bus = ProbeBus(connect(server.url))
    with pytest.raises(BusRefused, match=r"(?i)auth"):
        await bus.poll()
    await bus.aclose()


def test_as_shipped_every_user_is_switched_off() -> None:
    lines = SHIPPED.read_text().splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["user", user, "off"] for user in ("default", "operator", "prober", "controller")
    ]
