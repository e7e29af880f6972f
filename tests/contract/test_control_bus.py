"""What the controller's bus promises, on the oldest and the newest server it must work on."""

from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
from redis.asyncio import Redis

from controller.bus import BusFiles, ControlBus, connect
from controller.embedded import EmbeddedValkey
from probe.bus.connect import Client
from probe.bus.prober import ProbeBus
from probe.bus.targets import TargetFeed
from probe.errors import BusRefused, BusUnreachable, SettingsError
from probe.reasons import Reason
from probe.wire import HealthChange, Keys, encode, partition_of
from tests.contract.bus_worlds import nobody_at
from tests.fakes.bus_servers import KINDS, BusServers, Fleet, in_one_place
from tests.fakes.entries import BEAT, replica, replicas_in, status, target, writing
from tests.fakes.services import Services

KEYS = Keys("t:")


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
def dial(server: BusServers | EmbeddedValkey, client: Redis) -> Callable[[], Client]:
    del client  # empties the server
    files = server.files if isinstance(server, BusServers) else BusFiles()
    return partial(connect, server.url, files=files)


@pytest.fixture
async def bus(dial: Callable[[], Client]) -> AsyncIterator[ControlBus]:
    control = ControlBus(dial(), KEYS)
    yield control
    await control.aclose()


@pytest.fixture
async def prober(dial: Callable[[], Client]) -> AsyncIterator[ProbeBus]:
    probe = ProbeBus(dial(), KEYS)
    yield probe
    await probe.aclose()


@pytest.fixture
async def feed(dial: Callable[[], Client]) -> AsyncIterator[TargetFeed]:
    by_hand = TargetFeed(dial(), KEYS)
    yield by_hand
    await by_hand.aclose()


async def keys_without_ttl(client: Redis) -> set[str]:
    return {key.decode() async for key in client.scan_iter() if await client.ttl(key) == -1}


class TestEpoch:
    async def test_the_epoch_is_written_once_and_kept(self, bus: ControlBus) -> None:
        epoch = await bus.ensure_epoch()
        assert epoch
        assert await bus.ensure_epoch() == epoch

    async def test_a_bus_that_lost_its_memory_has_another_epoch(
        self, bus: ControlBus, client: Redis
    ) -> None:
        epoch = await bus.ensure_epoch()
        await client.flushall()
        assert (await bus.read_evidence([])).epoch is None
        assert await bus.ensure_epoch() != epoch

    async def test_another_number_of_partitions_refuses_to_start(
        self, bus: ControlBus, client: Redis
    ) -> None:
        await bus.hello()
        await bus.hello()
        await client.set(KEYS.partitions, 32)
        with pytest.raises(SettingsError, match="32"):
            await bus.hello()


class TestEvidence:
    async def test_statuses_heartbeats_time_and_epoch_are_read(
        self, bus: ControlBus, prober: ProbeBus
    ) -> None:
        epoch = await bus.ensure_epoch()
        at = await prober.heartbeat(BEAT)
        found = status(1)
        await prober.write_statuses(writing([(KEYS.status(replica(1)), encode(found), 120)]))
        evidence = await bus.read_evidence([replica(1), replica(2)])
        assert evidence.statuses == {replica(1): found}
        assert evidence.unreadable == {}
        assert evidence.epoch == epoch
        assert evidence.probers["p-1"].at == at <= evidence.time_s

    async def test_a_prober_whose_heartbeat_expired_does_not_live(
        self, bus: ControlBus, prober: ProbeBus, client: Redis
    ) -> None:
        await prober.heartbeat(BEAT)
        await client.delete(KEYS.heartbeat("p-1"))
        assert (await bus.read_evidence([])).probers == {}

    async def test_a_bad_heartbeat_is_counted_and_its_neighbours_live(
        self, bus: ControlBus, prober: ProbeBus, client: Redis
    ) -> None:
        await prober.heartbeat(BEAT)
        await client.zadd(KEYS.probers, {"p-2": 1})
        await client.set(KEYS.heartbeat("p-2"), "{", ex=15)
        evidence = await bus.read_evidence([])
        assert (list(evidence.probers), evidence.rejected_heartbeats) == (["p-1"], 1)

    async def test_a_status_of_another_type_is_unreadable_and_not_absent(
        self, bus: ControlBus, prober: ProbeBus, client: Redis
    ) -> None:
        """R-05: MGET itself answers the same for both."""
        await client.hset(KEYS.status(replica(1)), "healthy", "1")
        await prober.write_statuses(writing([(KEYS.status(replica(2)), encode(status(2)), 120)]))
        evidence = await bus.read_evidence([replica(1), replica(2), replica(3)])
        assert list(evidence.unreadable) == [replica(1)]
        assert list(evidence.statuses) == [replica(2)]

    @pytest.mark.parametrize(
        "value",
        [b"", b"{", b"\xff", encode(status(1)).replace(b'"v":1', b'"v":9'), encode(status(7))],
        ids=["empty", "cut", "bytes", "version", "another's"],
    )
    async def test_a_status_that_cannot_be_used_is_unreadable_and_not_absent(
        self, bus: ControlBus, client: Redis, value: bytes
    ) -> None:
        """R-43."""
        await client.set(KEYS.status(replica(1)), value, ex=60)
        await client.set(KEYS.status(replica(2)), encode(status(2)), ex=60)
        evidence = await bus.read_evidence([replica(1), replica(2)])
        assert list(evidence.unreadable) == [replica(1)]
        assert list(evidence.statuses) == [replica(2)]

    async def test_a_refused_read_makes_its_ids_unreadable_and_not_absent(
        self, services: Services
    ) -> None:
        """R-05: the user may read everything but statuses."""
        server = services.bus("redis7")
        client = Redis.from_url(server.url)
        await client.flushall()  # a prober left here by another test would be read, and refused
        await client.acl_setuser(
            "half",
            enabled=True,
            passwords=["+pw"],
            categories=["+@all"],
            keys=[KEYS.probers, KEYS.epoch],
        )
        control = ControlBus(connect(server.url.replace("unix://", "unix://half:pw@")), KEYS)
        evidence = await control.read_evidence([replica(1)])
        await control.aclose()
        await client.acl_deluser("half")
        await client.aclose()
        assert (list(evidence.unreadable), evidence.statuses) == ([replica(1)], {})

    async def test_more_than_one_chunk_is_read_whole(
        self, bus: ControlBus, prober: ProbeBus
    ) -> None:
        ids = [replica(number) for number in range(2500)]
        await prober.write_statuses(
            writing([(KEYS.status(one), encode(status(n)), 120) for n, one in enumerate(ids)])
        )
        assert (await bus.read_evidence(ids)).statuses.keys() == set(ids)

    async def test_an_absent_bus_is_unreachable_and_never_an_empty_answer(
        self, server: BusServers | EmbeddedValkey
    ) -> None:
        """R-05."""
        control = ControlBus(connect(nobody_at(server.url)), KEYS)
        for call in (
            control.hello(),
            control.ensure_epoch(),
            control.read_evidence([replica(1)]),
            control.write_targets([target(1)]),
            control.remove_targets([replica(1)]),
            control.changes(None),
        ):
            with pytest.raises(BusUnreachable):
                await call
        assert (await control.write_targets([])).written == 0
        await control.remove_targets([])
        await control.aclose()


class TestTargets:
    async def test_what_is_written_is_what_a_prober_reads(
        self, bus: ControlBus, prober: ProbeBus
    ) -> None:
        targets = [target(number) for number in range(1500)]
        assert (await bus.write_targets(targets)).written == 1500
        poll = await prober.poll()
        assert poll.versions == dict.fromkeys(range(64), 1)
        read = (await prober.read_targets(range(64), poll.time_s)).by_partition.values()
        assert sorted((t for group in read for t in group), key=lambda t: t.replica_id) == targets

    async def test_only_a_change_wakes_the_probers(self, bus: ControlBus, prober: ProbeBus) -> None:
        await bus.write_targets([target(1), target(2)])
        first = (await prober.poll()).versions
        await bus.write_targets([target(1), target(2)])
        assert (await prober.poll()).versions == first
        await bus.write_targets([target(1), target(2, inference_port=9)])
        moved = partition_of(replica(2))
        assert (await prober.poll()).versions == {**first, moved: first[moved] + 1}

    async def test_a_target_that_lost_its_place_in_the_index_wakes_the_probers(
        self, bus: ControlBus, prober: ProbeBus, client: Redis
    ) -> None:
        await bus.write_targets([target(1)])
        partition = partition_of(replica(1))
        await client.delete(KEYS.index(partition))
        await bus.write_targets([target(1)])
        assert (await prober.poll()).versions == {partition: 2}

    async def test_writing_again_prolongs_the_life_of_a_target(
        self, bus: ControlBus, client: Redis
    ) -> None:
        """R-51."""
        await bus.write_targets([target(1)])
        await client.expire(KEYS.target(replica(1)), 5)
        await bus.write_targets([target(1)])
        assert await client.ttl(KEYS.target(replica(1))) > 3590

    async def test_a_refused_partition_is_reported_and_does_not_stop_the_others(
        self, bus: ControlBus, client: Redis, prober: ProbeBus
    ) -> None:
        """R-10: nobody is told of what was not written whole."""
        good, bad = partition_of(replica(1)), partition_of(replica(2))
        assert good != bad
        await client.set(KEYS.index(bad), "not a sorted set")
        report = await bus.write_targets([target(2), target(1)])
        assert report.written == 1
        ((failed, reason),) = report.failed
        assert failed == replica(2)
        assert "WRONGTYPE" in reason
        assert await client.ttl(KEYS.target(replica(2))) != -1
        assert (await prober.poll()).versions == {good: 1}

    async def test_expired_members_leave_the_index(self, bus: ControlBus, client: Redis) -> None:
        old, new = replicas_in(7, 2)
        await client.zadd(KEYS.index(7), {old: 1})
        await bus.write_targets([target(replica_id=new)])
        assert await client.zrange(KEYS.index(7), 0, -1) == [new.encode()]

    async def test_a_removed_target_takes_its_status_and_its_place_along(
        self, bus: ControlBus, prober: ProbeBus, client: Redis
    ) -> None:
        """R-44."""
        await bus.write_targets([target(1), target(2)])
        await prober.write_statuses(writing([(KEYS.status(replica(1)), encode(status(1)), 120)]))
        before = (await prober.poll()).versions
        await bus.remove_targets([replica(1)])
        partition = partition_of(replica(1))
        assert await client.exists(KEYS.target(replica(1)), KEYS.status(replica(1))) == 0
        assert await client.zscore(KEYS.index(partition), replica(1)) is None
        assert (await prober.poll()).versions[partition] == before[partition] + 1
        assert await client.exists(KEYS.target(replica(2))) == 1

    async def test_targets_fed_by_hand_are_as_those_of_the_controller(
        self, bus: ControlBus, feed: TargetFeed, prober: ProbeBus, client: Redis
    ) -> None:
        assert await feed.load([target(1), target(2), target(2)]) == 2
        by_hand = {key: await client.dump(key) for key in await client.keys("*route_probe:*")}
        versions = (await prober.poll()).versions
        await bus.write_targets([target(1), target(2)])
        assert {key: await client.dump(key) for key in by_hand} == by_hand
        assert (await prober.poll()).versions == versions
        listed = (await feed.list()).by_partition
        assert {t.replica_id for group in listed.values() for t in group} == {
            replica(1),
            replica(2),
        }
        assert await feed.remove([replica(1), replica(2), replica(3)]) == 2
        assert not any((await feed.list()).by_partition.values())


class TestChanges:
    async def test_reading_goes_on_where_it_ended(self, bus: ControlBus, prober: ProbeBus) -> None:
        start = await bus.changes(None)
        assert start.changes == ()
        change = HealthChange(replica_id=replica(1), healthy=False, reason=Reason.CONNECT_REFUSED)
        await prober.announce([change])
        found = await bus.changes(start.last_id)
        assert found.changes == [change]
        await prober.announce([change, change])
        assert len((await bus.changes(found.last_id)).changes) == 2

    async def test_what_was_announced_before_is_not_told_again(
        self, bus: ControlBus, prober: ProbeBus
    ) -> None:
        change = HealthChange(replica_id=replica(1), healthy=False, reason=Reason.CONNECT_REFUSED)
        await prober.announce([change])
        start = await bus.changes(None)
        assert (await bus.changes(start.last_id, block_ms=1)).changes == []

    async def test_a_quiet_stream_is_not_a_dead_bus(self, bus: ControlBus) -> None:
        quiet = await bus.changes("5-5", block_ms=1)
        assert (quiet.changes, quiet.last_id) == ([], "5-5")

    async def test_a_bus_that_forgot_everything_is_told_with_the_changes(
        self, bus: ControlBus, client: Redis
    ) -> None:
        epoch = await bus.ensure_epoch()
        assert (await bus.changes("0-0", block_ms=1)).epoch == epoch
        await client.flushall()
        assert (await bus.changes("0-0", block_ms=1)).epoch is None

    async def test_a_bad_entry_is_counted_and_its_neighbours_are_told(
        self, bus: ControlBus, prober: ProbeBus, client: Redis
    ) -> None:
        await client.xadd(KEYS.changes, {"change": "{"})
        await client.xadd(KEYS.changes, {"other": "field"})
        change = HealthChange(replica_id=replica(1), healthy=True, reason=Reason.OK)
        await prober.announce([change])
        found = await bus.changes("0-0")
        assert (found.changes, found.rejected) == ([change], 2)

    async def test_a_stream_of_another_type_is_refused(
        self, bus: ControlBus, client: Redis
    ) -> None:
        await client.set(KEYS.changes, "text")
        with pytest.raises(BusRefused):
            await bus.changes(None)


async def test_only_index_version_epoch_and_stream_live_without_a_ttl(
    bus: ControlBus, prober: ProbeBus, feed: TargetFeed, client: Redis
) -> None:
    """R-64."""
    await prober.hello()
    await bus.hello()
    await bus.ensure_epoch()
    await bus.write_targets([target(number) for number in range(200)])
    await feed.load([target(number) for number in range(200, 210)])
    await prober.heartbeat(BEAT)
    await prober.write_statuses(
        writing([(KEYS.status(replica(n)), encode(status(n)), 120) for n in range(200)])
    )
    await prober.announce([HealthChange(replica_id=replica(1), healthy=True, reason=Reason.OK)])
    allowed = {KEYS.versions, KEYS.epoch, KEYS.changes, *map(KEYS.index, range(64))}
    assert await keys_without_ttl(client) <= allowed
