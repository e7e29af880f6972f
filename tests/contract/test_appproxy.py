"""What a proxy reads on the bus, on every kind of server that the bus may be."""

import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from controller.bus import BusFiles, ControlBus, connect
from controller.embedded import EmbeddedValkey
from controller.model import DeploymentId, HealthCheck, RouteId
from controller.publish.appproxy import CHUNK, AppProxy, Outcome
from controller.publish.keys import EVENTS_MAX_LENGTH, ROUTES_TTL_S, ProxyKeys
from controller.route.table import ProxyRoute, ProxyTable, Publication
from probe.bus.connect import Client
from probe.errors import BusRefused, BusUnreachable
from probe.wire import Keys
from tests.contract.bus_worlds import nobody_at
from tests.fakes.appproxy import FakeAppProxy
from tests.fakes.bus_servers import KINDS, BusServers, Fleet, in_one_place
from tests.fakes.services import Services

PREFIX = "t:"
KEYS = ProxyKeys(PREFIX)
ONE = DeploymentId("11111111-0000-4000-8000-000000000000")
CHECK = HealthCheck(path="/health")


@pytest.fixture(params=["valkey", "redis7", *in_one_place(KINDS)])
def server_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(server_name: str, request: pytest.FixtureRequest) -> BusServers | EmbeddedValkey:
    if server_name in KINDS:
        fleet: Fleet = request.getfixturevalue("fleet")
        return fleet.bus(server_name)
    services: Services = request.getfixturevalue("services")
    return services.bus(server_name)


@pytest.fixture
async def client(server: BusServers | EmbeddedValkey) -> AsyncIterator[Redis]:
    """A plain client for arranging and looking, of an empty bus."""
    looker = server.client() if isinstance(server, BusServers) else Redis.from_url(server.url)
    await looker.flushall()
    yield looker
    await looker.aclose()


@pytest.fixture
def dial(server: BusServers | EmbeddedValkey, client: Redis) -> Callable[[str], Client]:
    del client  # empties the server
    files = server.files if isinstance(server, BusServers) else BusFiles()
    return partial(connect, files=files)


@pytest.fixture
async def proxy(
    dial: Callable[[str], Client], server: BusServers | EmbeddedValkey
) -> AsyncIterator[AppProxy]:
    bus = ControlBus(dial(server.url), Keys(PREFIX))
    yield AppProxy(bus.link, KEYS)
    await bus.aclose()


def a_publication(
    generation: int,
    *numbers: int,
    epoch: int = 1,
    endpoint: DeploymentId = ONE,
    check: HealthCheck | None = CHECK,
    ratio: float = 1.0,
) -> Publication:
    """Build a table of the routes with these numbers."""
    routes = tuple(
        ProxyRoute(
            route_id=RouteId(f"route-{number}"),
            session_id=f"session-{number}",
            host="10.0.0.1",
            port=8000 + number,
            ratio=ratio,
        )
        for number in numbers
    )
    table = ProxyTable(app="demo", routes=routes, health_check=check)
    return Publication(deployment_id=endpoint, epoch=epoch, generation=generation, table=table)


async def told(client: Any) -> dict[str, Any]:  # noqa: ANN401 - of one server or of a cluster
    return dict(json.loads(await client.get(KEYS.connection_info(ONE))))


async def events(client: Redis) -> list[dict[str, str]]:
    entries: Any = await client.xrange(KEYS.events)
    return [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in entries]


async def names(client: Redis) -> set[str]:
    return {key.decode() async for key in client.scan_iter(match=f"{PREFIX}*")}


async def test_an_endpoint_s_keys_are_as_the_contract_has_them(
    proxy: AppProxy, client: Redis
) -> None:
    """R-46"""
    published = a_publication(7, 1, 2, epoch=3, ratio=0.25)
    assert await proxy.write([published], announce=True) == (Outcome.CHANGED,)
    entry = {"session_id": "session-1", "route_id": "route-1"}
    assert await told(client) == {
        "@3.7": [],
        "demo": [
            entry | {"kernel_host": "10.0.0.1", "kernel_port": 8001},
            {
                "session_id": "session-2",
                "route_id": "route-2",
                "kernel_host": "10.0.0.1",
                "kernel_port": 8002,
            },
        ],
    }
    assert await client.get(KEYS.traffic_ratio(ONE, "session-2")) == b"0.25"
    assert await client.get(KEYS.health_check_enabled(ONE)) == b"true"
    assert json.loads(await client.get(KEYS.health_check_config(ONE)) or "") == {
        "path": "/health",
        "interval": 10.0,
        "max_wait_time": 15.0,
        "expected_status_code": 200,
        "max_retries": 10,
        "initial_delay": 60.0,
    }
    version = {"endpoint_id": ONE, "epoch": "3", "generation": "7"}
    assert await events(client) == [
        {"event": "endpoint_route_list_updated"} | version,
        {"event": "model_service_status_updated", "status": "serving", "routes": "2"} | version,
    ]


async def test_no_key_but_the_stream_is_without_a_time_to_live(
    proxy: AppProxy, client: Redis
) -> None:
    """R-45, R-64"""
    await proxy.write([a_publication(1, 1, 2, 3)], announce=True)
    found = await names(client)
    assert len(found) == 7
    lives = {name: await client.ttl(name) for name in found - {KEYS.events}}
    assert all(ROUTES_TTL_S - 60 < ttl <= ROUTES_TTL_S for ttl in lives.values()), lives


async def test_a_late_full_replace_resurrects_nobody(proxy: AppProxy, client: Redis) -> None:
    """R-50: neither the routes nor what goes with them, and its events are not told."""
    await proxy.write([a_publication(8, 1, epoch=2)], announce=True)
    before = {name: await client.get(name) for name in await names(client) - {KEYS.events}}
    said = await events(client)
    for late in (
        a_publication(7, 1, 2, epoch=2, check=None, ratio=0.5),
        a_publication(9, 1, 2, epoch=1, check=None, ratio=0.5),
    ):
        assert await proxy.write([late], announce=True) == (Outcome.OLDER,)
    assert {name: await client.get(name) for name in before} == before
    assert await names(client) - {KEYS.events} == before.keys()
    assert await events(client) == said


async def test_a_refused_table_does_not_prolong_what_is_there(
    proxy: AppProxy, client: Redis
) -> None:
    """R-50: a bus that knows a later database than ours lets go of it within the hour."""
    await proxy.write([a_publication(8, 1)], announce=True)
    await client.expire(KEYS.connection_info(ONE), 5)
    await proxy.write([a_publication(7, 1)], announce=True)
    assert await client.ttl(KEYS.connection_info(ONE)) <= 5


async def test_versions_are_compared_as_numbers(proxy: AppProxy, client: Redis) -> None:
    """R-50: ten is more than nine."""
    for epoch, generation in ((9, 9), (9, 10), (10, 1), (10, 100)):
        wanted = a_publication(generation, 1, epoch=epoch)
        assert await proxy.write([wanted], announce=True) == (Outcome.CHANGED,)
    assert "@10.100" in await told(client)


async def test_an_empty_table_replaces_the_last(proxy: AppProxy, client: Redis) -> None:
    """R-47"""
    await proxy.write([a_publication(1, 1)], announce=True)
    assert await proxy.write([a_publication(2, check=None)], announce=True) == (Outcome.CHANGED,)
    assert await told(client) == {"@1.2": [], "demo": []}
    assert await client.get(KEYS.health_check_enabled(ONE)) == b"false"
    assert await client.get(KEYS.health_check_config(ONE)) == b"null"
    assert (await events(client))[-1]["status"] == "empty"


async def test_the_same_again_only_lives_longer(proxy: AppProxy, client: Redis) -> None:
    """I10, R-45: and is announced where nobody knows whether it was."""
    same = a_publication(1, 1)
    await proxy.write([same], announce=True)
    said = len(await events(client))
    await client.expire(KEYS.connection_info(ONE), 5)
    await client.expire(KEYS.traffic_ratio(ONE, "session-1"), 5)
    assert await proxy.write([same], announce=False) == (Outcome.SAME,)
    assert len(await events(client)) == said
    assert await client.ttl(KEYS.connection_info(ONE)) > 3500
    assert await client.ttl(KEYS.traffic_ratio(ONE, "session-1")) > 3500
    assert await proxy.write([same], announce=True) == (Outcome.SAME,)
    assert len(await events(client)) == 2 * said


async def test_what_is_missing_or_no_table_of_ours_is_written_anew(
    proxy: AppProxy, client: Redis
) -> None:
    """R-46: whatever is there; and a ratio that expired is what it was (R-45)."""
    same = a_publication(1, 1, ratio=0.25)
    await proxy.write([same], announce=False)
    await client.delete(KEYS.connection_info(ONE), KEYS.traffic_ratio(ONE, "session-1"))
    assert await proxy.write([same], announce=False) == (Outcome.CHANGED,)
    assert await client.get(KEYS.traffic_ratio(ONE, "session-1")) == b"0.25"
    for foreign in ("{}", '{"@x.y":[]}', '{"demo":[],"@9.9":[]}', "text"):
        await client.set(KEYS.connection_info(ONE), foreign)
        assert await proxy.write([same], announce=False) == (Outcome.CHANGED,)
    await client.delete(KEYS.connection_info(ONE))
    await client.sadd(KEYS.connection_info(ONE), "no string")
    assert await proxy.write([same], announce=False) == (Outcome.CHANGED,)
    assert "@1.1" in await told(client)


async def test_many_endpoints_go_together_and_each_has_its_answer(
    proxy: AppProxy, client: Redis
) -> None:
    many = [
        a_publication(2, 1, endpoint=DeploymentId(f"many-{number}")) for number in range(CHUNK + 5)
    ]
    late = many[3]
    newer = a_publication(3, 1, endpoint=late.deployment_id)
    await proxy.write([newer], announce=True)
    outcomes = await proxy.write(many, announce=False)
    assert [place for place, o in enumerate(outcomes) if o is Outcome.OLDER] == [3]
    assert outcomes.count(Outcome.CHANGED) == len(many) - 1
    assert await client.exists(KEYS.connection_info(many[-1].deployment_id))


async def test_a_stream_that_refuses_events_costs_no_endpoint_its_keys(
    proxy: AppProxy, client: Redis
) -> None:
    """R-45: somebody else's key of that name, or no right to it; the keys are the truth."""
    await client.set(KEYS.events, "no stream")
    many = [
        a_publication(1, 1, endpoint=DeploymentId(f"many-{number}")) for number in range(CHUNK + 5)
    ]
    with pytest.raises(BusRefused, match="WRONGTYPE"):
        await proxy.write(many, announce=True)
    told = [await client.exists(KEYS.connection_info(each.deployment_id)) for each in many]
    assert told == [1] * len(many)
    assert await client.get(KEYS.events) == b"no stream"


async def test_the_stream_does_not_grow_for_ever(proxy: AppProxy, client: Redis) -> None:
    """R-64"""
    pipe = client.pipeline()
    for _ in range(EVENTS_MAX_LENGTH + 500):
        pipe.xadd(KEYS.events, {"event": "old"})
    await pipe.execute()
    await proxy.write([a_publication(1, 1)], announce=True)
    assert await client.xlen(KEYS.events) <= EVENTS_MAX_LENGTH + 100, "a node of the stream more"


async def test_a_bus_that_is_away_is_said_to_be(server: BusServers | EmbeddedValkey) -> None:
    bus = ControlBus(connect(nobody_at(server.url)), Keys(PREFIX), timeout_s=1.0)
    with pytest.raises(BusUnreachable):
        await AppProxy(bus.link, KEYS).write([a_publication(1, 1)], announce=True)
    await bus.aclose()


class TestReader:
    """An example of a proxy; the cluster's keys are read by names, which need no scan there."""

    @pytest.fixture
    def reader(self, client: Redis) -> FakeAppProxy:
        return FakeAppProxy(client, prefix=PREFIX)

    async def test_it_follows_within_a_tick(self, proxy: AppProxy, reader: FakeAppProxy) -> None:
        await proxy.write([a_publication(1, 1, 2, ratio=0.5)], announce=True)
        await reader.tick()
        assert [*reader.endpoints[ONE].routes] == ["route-1", "route-2"]
        assert reader.endpoints[ONE].ratios == {"session-1": 0.5, "session-2": 0.5}
        await proxy.write([a_publication(2, 2)], announce=True)
        await reader.tick()
        assert reader.endpoints[ONE].routes == {"route-2": ("10.0.0.1", 8002)}

    async def test_a_missing_key_takes_nothing_away(
        self, proxy: AppProxy, reader: FakeAppProxy, client: Redis
    ) -> None:
        """R-46, S17"""
        await proxy.write([a_publication(1, 1)], announce=True)
        await reader.tick()
        await client.flushall()
        for _ in range(3):
            await reader.tick()
        assert [*reader.endpoints[ONE].routes] == ["route-1"]

    async def test_restarted_empty_it_is_told_everything_within_two_ticks(
        self, proxy: AppProxy, reader: FakeAppProxy, client: Redis
    ) -> None:
        await proxy.write([a_publication(1, 1)], announce=True)
        await client.delete(KEYS.events)
        reader.restart()
        await reader.tick()
        await reader.tick()
        assert [*reader.endpoints[ONE].routes] == ["route-1"]

    async def test_what_it_read_late_is_refused(
        self, proxy: AppProxy, reader: FakeAppProxy, client: Redis
    ) -> None:
        """R-50: reordered on its own side."""
        await proxy.write([a_publication(1, 1, 2)], announce=True)
        late: Any = await client.get(KEYS.connection_info(ONE))
        await proxy.write([a_publication(2, 2)], announce=True)
        await reader.tick()
        await reader.take(ONE, late.decode())
        assert (reader.refused, [*reader.endpoints[ONE].routes]) == (1, ["route-2"])
