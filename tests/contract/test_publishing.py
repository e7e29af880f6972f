"""From a commit to a proxy that routes by it: through the database, the outbox and a real bus."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import structlog.testing
from redis.asyncio import Redis
from sqlalchemy import select, update

from controller.bus import ControlBus, connect
from controller.db.repository import Repository
from controller.db.session import Database
from controller.db.tables import deployments, outbox
from controller.db.tables import routes as route_rows
from controller.embedded import EmbeddedValkey
from controller.model import Deployment, Lifecycle, Stage, Traffic
from controller.publish.keys import ProxyKeys
from controller.route.table import Publication, encode, published, table_of
from tests.fakes.appproxy import FakeAppProxy
from tests.fakes.database import change, rows, some_routes
from tests.fakes.publishing import Line, Scene, Term, serve
from tests.fakes.reconcile import Ticks

ACCIDENTS = ("turn", "turn", "decide", "deliver", "cut", "flush", "forget", "late")


@pytest.fixture(params=[("sqlite", "valkey"), ("postgresql", "redis7")], ids="-".join)
def places(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A database and a bus; what either does by itself, other suites ask of all."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def dialect(places: tuple[str, str]) -> str:
    return places[0]


@pytest.fixture
def server_name(places: tuple[str, str]) -> str:
    return places[1]


@pytest.fixture
async def line(server: EmbeddedValkey, client: Redis) -> AsyncIterator[Line]:
    del client  # empties the server
    bus = ControlBus(connect(server.url))
    yield Line(bus.link, ProxyKeys())
    await bus.aclose()


@pytest.fixture
async def scene(
    database: Database, deployment: Deployment, line: Line, client: Redis, epoch: int
) -> Scene:
    repository = Repository(database)
    created = await some_routes(repository, deployment, 4, epoch=epoch)
    await repository.apply([serve(route) for route in created], epoch=epoch)
    ticks = Ticks(repository)
    return Scene(
        repository=repository,
        database=database,
        client=client,
        line=line,
        ticks=ticks,
        term=Term(repository, line, ticks, epoch=epoch),
        reader=FakeAppProxy(client),
        deployment=deployment,
        routes=(await repository.observe()).routes,
    )


async def test_what_serves_is_told_after_its_commit(scene: Scene) -> None:
    """R-57"""
    assert await scene.term.decide() == 1
    assert await scene.kept() == [(1, "growth")]
    assert len(await rows(scene.database, select(outbox))) == 1
    await scene.term.deliverer.deliver()
    assert await rows(scene.database, select(outbox)) == []
    assert (scene.count("delivered"), scene.term.told) == (1, 1)
    await scene.reader.tick()
    assert scene.known == [*scene.routes]


async def test_nothing_is_told_of_a_commit_that_failed(scene: Scene) -> None:
    """R-57, R-50: somebody else's table is there, so this one is decided anew."""
    await scene.term.tick()
    other = scene.another_term()
    await scene.let_go(scene.routes[:1], "check_replicas")
    await other.tick()
    await scene.reader.tick()
    await scene.let_go(scene.routes[1:2], "check_replicas")
    scene.term.sync.forget()
    with structlog.testing.capture_logs() as logs:
        assert await scene.term.decide() == 0
    assert [entry["event"] for entry in logs] == ["publication_lost"]
    assert await rows(scene.database, select(outbox)) == []
    assert await scene.term.tick() > 0
    assert await scene.kept() == [(3, "scale_in")]


async def test_at_rest_nothing_is_written_and_nothing_published(scene: Scene) -> None:
    """I10: a full sync renews what is there, and says nothing."""
    await scene.term.tick()
    said, before = await scene.client.xlen("events"), dict(scene.repository.sql_writes)
    for _ in range(3):
        scene.term.sync.forget()
        assert await scene.term.tick() == 0
    assert dict(scene.repository.sql_writes) == before
    assert await scene.client.xlen("events") == said
    assert (scene.count("delivered"), scene.count("healed")) == (1, 0)
    assert (await scene.kept(), len(scene.routes)) == ([(1, "growth")], 4)


async def test_who_becomes_unchecked_or_unhealthy_stays_known(scene: Scene) -> None:
    """R-07"""
    await scene.settle()
    for health in ("not_checked", "unhealthy", "degraded"):
        async with scene.database.write(epoch=None) as write:
            await write.connection.execute(update(route_rows).values(health=health))
        await scene.settle()
        assert scene.known == [*scene.routes]
    assert await scene.kept() == [(1, "growth")]


async def test_the_last_to_leave_leaves_an_empty_table(scene: Scene) -> None:
    """R-47"""
    await scene.settle()
    await scene.let_go(scene.routes, "check_replicas")
    await scene.settle()
    assert scene.known == []
    assert await scene.kept() == [(2, "scale_in")]


class TestDraining:
    async def test_a_route_cools_down_once_proxies_are_told(self, scene: Scene) -> None:
        """R-48"""
        await scene.settle()
        await scene.let_go(scene.routes[:1], "check_replicas")
        await scene.term.decide()
        assert Stage.COOLING_DOWN not in await scene.stages(), "committed is not told"
        await scene.term.deliverer.deliver()
        await scene.reader.tick()
        assert scene.routes[0] not in scene.known
        await scene.term.decide()
        assert (await scene.stages()).count(Stage.COOLING_DOWN) == 1
        assert scene.term.told == 2

    async def test_a_bus_that_is_away_delays_it_and_costs_no_other(self, scene: Scene) -> None:
        """R-48: the delivery is tried again."""
        await scene.settle()
        scene.line.away = True
        await scene.let_go(scene.routes[:1], "check_replicas")
        for _ in range(3):
            await scene.term.tick()
        assert await scene.stages() == [Stage.DRAINING, None, None, None]
        assert scene.count("failed") == 3
        scene.line.away = False
        await scene.settle()
        assert await scene.stages() == [Stage.COOLING_DOWN, None, None, None]
        assert scene.known == [*scene.routes[1:]]

    async def test_it_goes_after_a_bound_and_they_are_told_later(self, scene: Scene) -> None:
        """R-48"""
        await scene.settle()
        scene.line.away = True
        await scene.let_go(scene.routes[:1], "check_replicas")
        await scene.term.tick()
        drained = update(route_rows).where(route_rows.c.stage == Stage.DRAINING.value)
        async with scene.database.write(epoch=None) as write:
            earlier = drained.values(entered_at_ms=route_rows.c.entered_at_ms - 60_000)
            await write.connection.execute(earlier)
        await scene.term.tick()
        newest = (await scene.repository.history_of(scene.routes[0].id))[0]
        assert newest.error_code == "UNREGISTER_EXPIRED"
        scene.line.away = False
        await scene.settle()
        assert scene.known == [*scene.routes[1:]]

    async def test_a_new_leader_knows_who_is_told(self, scene: Scene) -> None:
        """R-48: and delivers what the last one could not."""
        await scene.term.tick()
        scene.line.away = True
        await scene.let_go(scene.routes[:1], "check_replicas")
        await scene.term.tick()
        scene.line.away = False
        second = scene.another_term()
        scene.line.away = True
        await second.decide()
        assert Stage.COOLING_DOWN not in await scene.stages()
        scene.line.away = False
        await second.deliverer.deliver()
        await second.decide()
        assert (await scene.stages()).count(Stage.COOLING_DOWN) == 1
        third = scene.another_term()
        await scene.let_go(scene.routes[1:2], "check_replicas")
        await third.tick()
        await third.tick()
        assert (await scene.stages()).count(Stage.COOLING_DOWN) == 2


class TestHealing:
    async def test_a_flushed_bus_is_written_anew_without_a_new_table(self, scene: Scene) -> None:
        """S4: also for a proxy that lost its memory with it."""
        await scene.settle()
        await scene.client.flushall()
        scene.reader.restart()
        scene.term.sync.forget()
        await scene.settle()
        assert scene.known == [*scene.routes]
        assert scene.reader.endpoints[scene.deployment.id].version == (scene.term.epoch, 1)
        assert (scene.count("healed"), scene.term.told) == (1, 1)
        assert await scene.kept() == [(1, "growth")]

    async def test_a_ratio_that_expired_is_what_it_was(self, scene: Scene) -> None:
        """R-45: the bus forgets, the database does not."""
        await scene.repository.apply(
            [change(scene.routes[0], traffic_ratio=0.25)], epoch=scene.term.epoch
        )
        await scene.term.tick()
        key = ProxyKeys().traffic_ratio(scene.deployment.id, scene.routes[0].session_id or "")
        assert await scene.client.get(key) == b"0.25"
        await scene.client.delete(key)
        scene.term.sync.forget()
        await scene.term.tick()
        assert await scene.client.get(key) == b"0.25"
        assert (await scene.repository.observe()).routes[0].traffic_ratio == 0.25

    async def test_events_that_may_be_lost_are_told_again(self, scene: Scene) -> None:
        await scene.term.tick()
        said = await scene.client.xlen("events")
        scene.line.away = True
        scene.term.sync.forget()
        with structlog.testing.capture_logs() as logs:
            await scene.term.decide()
        assert [entry["event"] for entry in logs] == ["proxy_not_synced"]
        scene.line.away = False
        await scene.term.decide()
        assert await scene.client.xlen("events") == 2 * said
        await scene.term.decide()
        assert await scene.client.xlen("events") == 2 * said

    async def test_a_delivery_that_comes_late_resurrects_nobody(self, scene: Scene) -> None:
        """R-50"""
        await scene.settle()
        await scene.let_go(scene.routes[:1], "check_replicas")
        await scene.settle()
        late = encode(table_of(scene.deployment, scene.routes))
        await scene.term.sync.send(scene.deployment.id, scene.term.epoch, 1, late)
        await scene.settle()
        assert scene.known == [*scene.routes[1:]]
        assert scene.count("older") == 1

    async def test_a_bus_that_knows_a_later_database_is_told_of(self, scene: Scene) -> None:
        """R-50: as after a restore from a backup; it lets go within the hour."""
        await scene.term.tick()
        table = table_of(scene.deployment, scene.routes[:1])
        newer = Publication(deployment_id=scene.deployment.id, epoch=99, generation=1, table=table)
        await scene.line.write([newer], announce=True)
        scene.term.sync.forget()
        with structlog.testing.capture_logs() as logs:
            await scene.term.tick()
        assert [entry["event"] for entry in logs] == ["proxy_has_newer"]
        assert scene.count("older") == 1


class TestShrinkGuard:
    async def test_routes_that_vanish_without_a_record_stay_known(self, scene: Scene) -> None:
        """S16: one incident, counted once, and the old table stays."""
        await scene.settle()
        await scene.lose(scene.routes[:3])
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                await scene.settle()
        assert [entry["event"] for entry in logs] == ["publication_refused"]
        assert (logs[0]["before"], logs[0]["after"], logs[0]["unexplained"]) == (4, 1, 3)
        assert scene.known == [*scene.routes]
        assert (scene.count("refused"), scene.incident) == (1, 1)
        assert await scene.kept() == [(1, "growth")]

    async def test_an_operator_s_word_lets_it_shrink(self, scene: Scene) -> None:
        """S16, S21: the incident ends with it."""
        await scene.settle()
        await scene.lose(scene.routes)
        await scene.settle()
        assert scene.incident == 1
        async with scene.database.write(epoch=None) as write:
            forced = update(deployments).values(forced_until_ms=write.now_ms + 60_000)
            await write.connection.execute(forced)
        await scene.settle()
        assert (scene.incident, scene.known) == (0, [])
        assert await scene.kept() == [(2, "operator")]

    async def test_a_few_without_a_record_are_believed(self, scene: Scene) -> None:
        """S16: one of four is a quarter."""
        await scene.term.tick()
        await scene.lose(scene.routes[:1])
        await scene.term.tick()
        assert await scene.kept() == [(2, "unexplained")]
        assert (scene.count("refused"), scene.incident) == (0, 0)

    @pytest.mark.parametrize(
        ("category", "code", "cause"),
        [
            ("check_replicas", "", "scale_in"),
            ("deploying", "", "rollout"),
            ("evict", "HEALTH_POLICY", "confirmed_death"),
            ("check_running", "SESSION_LOST", "confirmed_death"),
        ],
    )
    async def test_routes_that_left_for_a_cause_leave(
        self, scene: Scene, category: str, code: str, cause: str
    ) -> None:
        """S16"""
        await scene.term.tick()
        await scene.let_go(scene.routes[:3], category, code=code)
        await scene.term.tick()
        await scene.term.tick()  # what follows a leaving, as cooling down, is not its cause
        assert await scene.kept() == [(2, cause)]

    async def test_a_route_out_of_traffic_is_known_by_its_record(self, scene: Scene) -> None:
        """S16, S12: it runs on, without traffic."""
        await scene.term.tick()
        without = [
            replace(change(route, traffic=Traffic.INACTIVE), category="classify_health")
            for route in scene.routes[:2]
        ]
        await scene.repository.apply(without, epoch=scene.term.epoch)
        await scene.term.tick()
        assert await scene.kept() == [(2, "confirmed_death")]


class TestDestroying:
    async def test_what_is_destroyed_gets_an_empty_table_and_is_forgotten(
        self, scene: Scene
    ) -> None:
        """R-47: even when nobody saw its routes leave."""
        await scene.settle()
        await scene.lose(scene.routes)
        async with scene.database.write(epoch=None) as write:
            gone = update(deployments).values(lifecycle=Lifecycle.DESTROYED.value)
            await write.connection.execute(gone)
        await scene.settle()
        assert scene.known == []
        assert await scene.kept() == [(2, "destroy")]
        key = ProxyKeys().connection_info(scene.deployment.id)
        await scene.client.delete(key)
        for leader in (scene.term, scene.another_term()):
            leader.sync.forget()
            assert await leader.tick() == 0
        assert await scene.client.exists(key) == 0, "nobody prolongs what is gone"


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_on_the_way_a_proxy_converges_within_two_ticks(
    scene: Scene, seed: int
) -> None:
    """R-50, R-46: slow, cut off, flushed, restarted empty, and told late."""
    chance = random.Random(seed)  # noqa: S311 - a story that can be told again
    old: list[tuple[int, str]] = []
    for _ in range(25):
        match chance.choice(
            ["turn", "turn", "decide", "deliver", "cut", "flush", "forget", "late"]
        ):
            case "turn":
                route = chance.choice((await scene.repository.observe()).routes)
                to = Traffic.INACTIVE if route.traffic is Traffic.ACTIVE else Traffic.ACTIVE
                turned = replace(change(route, traffic=to), category="check_running")
                await scene.repository.apply([turned], epoch=scene.term.epoch)
            case "decide":
                await scene.term.decide()
                newest = scene.term.sync.registry.newest.values()
                old.extend((each.generation, encode(each.table)) for each in newest)
            case "deliver":
                await scene.term.deliverer.deliver()
                await scene.reader.tick()
            case "cut":
                scene.line.away = not scene.line.away
            case "flush":
                await scene.client.flushall()
                scene.term.sync.forget()
            case "forget":
                scene.reader.restart()
            case "late" if old and not scene.line.away:
                generation, payload = chance.choice(old)
                await scene.term.sync.send(
                    scene.deployment.id, scene.term.epoch, generation, payload
                )
    scene.line.away = False
    await scene.settle()
    serving = [route.id for route in (await scene.repository.observe()).routes if published(route)]
    assert {*scene.reader.endpoints[scene.deployment.id].routes} == {*serving}
