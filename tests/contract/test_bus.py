"""What the prober's bus promises, on the fake and on every server it must work on."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from probe.bus.prober import ProbeBus
from probe.bus.writes import Entries, WriteMode
from probe.errors import (
    BusRefused,
    BusUnreachable,
    MalformedEntry,
    SettingsError,
    UnknownVersion,
)
from probe.reasons import Reason
from probe.wire import HealthChange, ProberHeartbeat, encode, partition_of
from tests.contract.bus_worlds import FakeWorld, RealWorld, World
from tests.fakes.bus import FakeBus
from tests.fakes.bus_servers import KINDS, Fleet, in_one_place
from tests.fakes.entries import replica, replicas_in, status, target, writing
from tests.fakes.services import SERVERS, Services

MODES = {
    "valkey-lua": WriteMode.LUA,
    "valkey-pipeline": WriteMode.PIPELINE,
    "redis7": WriteMode.LUA,
    "tls": WriteMode.LUA,
    "sentinel": WriteMode.LUA,
    "cluster": WriteMode.PIPELINE,
}
BEAT = ProberHeartbeat(
    instance="p-1",
    partitions=(0, 1),
    targets=2,
    probes_per_second=1.5,
    loop_lag_ms=0.1,
    version="1",
    started_at=1.0,
    at=0.0,
)


@pytest.fixture(params=["fake", *SERVERS, *in_one_place(KINDS)])
def server_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def world(server_name: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if server_name == "fake":
        yield FakeWorld()
        return
    if server_name in KINDS:
        fleet: Fleet = request.getfixturevalue("fleet")
        served = fleet.bus(server_name)
        real = RealWorld(served.client(), served.url, served.files)
    else:
        services: Services = request.getfixturevalue("services")
        url = services.bus(server_name).url
        real = RealWorld(Redis.from_url(url), url)
    await real.empty()
    yield real
    await real.aclose()


@pytest.fixture
def bus(world: World) -> ProbeBus | FakeBus:
    return world.bus()


class TestHello:
    async def test_the_best_way_to_write_is_found(
        self, bus: ProbeBus | FakeBus, server_name: str
    ) -> None:
        assert await bus.hello() is MODES.get(server_name, WriteMode.MSETEX)

    async def test_the_number_of_partitions_is_said_once_and_agreed_on(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        await bus.hello()
        await world.bus().hello()
        assert await world.get(world.keys.partitions) == b"64"
        assert 0 < await world.ttl_s(world.keys.partitions) <= 3600

    async def test_another_number_of_partitions_refuses_to_start(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        await world.put(world.keys.partitions, b"32")
        with pytest.raises(SettingsError, match="32"):
            await bus.hello()


class TestPoll:
    async def test_an_empty_bus_has_no_versions_and_no_epoch(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        poll = await bus.poll()
        assert (poll.versions, poll.epoch) == ({}, None)
        assert poll.time_s == pytest.approx(await world.now_s(), abs=5)

    async def test_versions_and_epoch_are_read(self, bus: ProbeBus | FakeBus, world: World) -> None:
        await world.version(3, 7)
        await world.version(63, 1)
        await world.put(world.keys.epoch, b"abc", ttl_s=None)
        poll = await bus.poll()
        assert (poll.versions, poll.epoch) == ({3: 7, 63: 1}, "abc")

    async def test_a_key_of_another_type_is_an_error_and_not_an_empty_bus(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        """R-05."""
        await world.make_foreign(world.keys.versions)
        with pytest.raises(BusRefused, match="WRONGTYPE"):
            await bus.poll()


class TestTargets:
    async def test_targets_come_by_partition_and_an_empty_one_is_listed(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        here, elsewhere = target(1), target(2)
        await world.put_target(here)
        await world.put_target(elsewhere)
        partition = partition_of(here.replica_id)
        empty = (partition + 1) % 64
        assert empty != partition_of(elsewhere.replica_id) != partition
        found = await bus.read_targets([partition, empty], await world.now_s())
        assert found.by_partition == {partition: [here], empty: []}
        assert found.rejected == []

    async def test_nothing_asked_is_no_round_trip(self, world: World) -> None:
        """R-04."""
        found = await world.bus_away().read_targets([], 0.0)
        assert found.by_partition == {}

    async def test_an_expired_score_and_a_missing_key_are_gone(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        now = await world.now_s()
        expired, missing = replicas_in(5, 2)
        await world.put_entry(expired, encode(target(replica_id=expired)))
        await world.score(world.keys.index(5), expired, now)
        await world.score(world.keys.index(5), missing, now + 60)
        found = await bus.read_targets([5], now)
        assert (found.by_partition, found.rejected) == ({5: []}, [])

    @pytest.mark.parametrize(
        ("value", "error"),
        [
            (b"not JSON", MalformedEntry),
            (b"\xff\xfe", MalformedEntry),
            (b"", MalformedEntry),
            (b"{}", MalformedEntry),
            (encode(target(1)).replace(b"8000", b"65536"), MalformedEntry),
            (encode(target(1)).replace(b'"/health"', b'"/a\\r\\nX: y"'), MalformedEntry),
            (encode(target(1)).replace(b'"v":1', b'"v":2'), UnknownVersion),
            (encode(target(1)), MalformedEntry),
        ],
        ids=["text", "bytes", "empty", "no fields", "port", "CRLF path", "version", "another's"],
    )
    async def test_a_bad_entry_is_rejected_and_its_neighbours_are_not(
        self, bus: ProbeBus | FakeBus, world: World, value: bytes, error: type[Exception]
    ) -> None:
        first, bad, last = replicas_in(9, 3)
        await world.put_target(target(replica_id=first))
        await world.put_entry(bad, value)
        await world.put_target(target(replica_id=last))
        found = await bus.read_targets([9], await world.now_s())
        assert {t.replica_id for t in found.by_partition[9]} == {first, last}
        (rejected,) = found.rejected
        assert (rejected.key, rejected.replica_id) == (world.keys.target(bad), bad)
        assert type(rejected.error) is error

    async def test_what_has_not_changed_is_not_decoded_again(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        first, second = replicas_in(9, 2)
        await world.put_target(target(replica_id=first))
        await world.put_target(target(replica_id=second))
        now_s = await world.now_s()
        before = {t.replica_id: t for t in (await bus.read_targets([9], now_s)).by_partition[9]}
        await world.put_target(target(replica_id=second, generation=2))
        after = {t.replica_id: t for t in (await bus.read_targets([9], now_s)).by_partition[9]}
        assert after == {**before, second: target(replica_id=second, generation=2)}
        if isinstance(bus, ProbeBus):
            assert after[first] is before[first]

    async def test_a_target_that_was_good_and_is_not_is_rejected(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        (one,) = replicas_in(9, 1)
        await world.put_target(target(replica_id=one))
        now_s = await world.now_s()
        await bus.read_targets([9], now_s)
        await world.put_entry(one, b"{")
        for _ in range(2):
            found = await bus.read_targets([9], now_s)
            assert found.by_partition == {9: []}
            assert [r.replica_id for r in found.rejected] == [one]

    async def test_a_target_in_the_index_of_another_partition_is_rejected(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        (stray,) = replicas_in(9, 1)
        await world.put_entry(stray, encode(target(replica_id=stray)), partition=10)
        found = await bus.read_targets([9, 10], await world.now_s())
        assert found.by_partition == {9: [], 10: []}
        assert [r.replica_id for r in found.rejected] == [stray]

    async def test_a_target_key_of_another_type_is_rejected_and_not_gone(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        """R-05."""
        good, bad = replicas_in(9, 2)
        await world.put_target(target(replica_id=good))
        await world.put_target(target(replica_id=bad))
        await world.make_foreign(world.keys.target(bad))
        found = await bus.read_targets([9], await world.now_s())
        assert [t.replica_id for t in found.by_partition[9]] == [good]
        assert [r.replica_id for r in found.rejected] == [bad]

    async def test_more_than_one_chunk_is_read_whole(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        targets = [target(number) for number in range(1, 2502)]
        now = await world.now_s()
        for one in targets:
            await world.put(world.keys.target(one.replica_id), encode(one))
            index = world.keys.index(partition_of(one.replica_id))
            await world.score(index, one.replica_id, now + 60)
        found = await bus.read_targets(range(64), now)
        read = [t for group in found.by_partition.values() for t in group]
        assert sorted(read, key=lambda t: t.replica_id) == targets


class TestStatuses:
    async def test_every_status_is_set_with_its_own_time_to_live(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        """R-64."""
        items = [(f"t:s:{n}", str(n).encode(), 120 + n % 3) for n in range(2503)]
        await bus.write_statuses(writing(items))
        for key, value, ttl_s in [*items[:4], *items[998:1004], *items[-4:]]:
            assert await world.get(key) == value
            assert ttl_s - 2 <= await world.ttl_s(key) <= ttl_s
        assert all([await world.get(key) == value for key, value, _ in items])

    async def test_a_later_status_of_a_key_wins_over_an_earlier_one(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        await bus.write_statuses(writing([("t:s", b"old", 120), ("t:s", b"new", 120)]))
        assert await world.get("t:s") == b"new"

    async def test_no_statuses_still_tell_the_time(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        await bus.write_statuses(writing([]))

    async def test_a_status_survives_a_key_of_another_type(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        await world.make_foreign("t:s")
        await bus.write_statuses(writing([("t:s", b"1", 120)]))
        assert await world.get("t:s") == b"1"

    async def test_what_was_written_is_read_back(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        known = status(1, seq=5, consecutive_failures=2)
        await bus.write_statuses(writing([(world.keys.status(replica(1)), encode(known), 120)]))
        assert await bus.read_statuses([replica(1), replica(2)]) == {replica(1): known}

    async def test_a_bad_status_is_left_out_and_counted(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        await world.put(world.keys.status(replica(1)), encode(status(1)))
        await world.put(world.keys.status(replica(2)), b"{")
        assert list(await bus.read_statuses([replica(1), replica(2)])) == [replica(1)]
        assert bus.rejected_statuses == 1

    async def test_nobody_asked_for_is_no_round_trip(self, world: World) -> None:
        """R-04."""
        assert await world.bus_away().read_statuses([]) == {}


class TestHeartbeat:
    async def test_a_heartbeat_is_stamped_with_the_time_of_the_bus_and_expires(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        at = await bus.heartbeat(BEAT)
        assert at == pytest.approx(await world.now_s(), abs=5)
        key = world.keys.heartbeat("p-1")
        assert f'"at":{at!r}'.encode() in (await world.get(key) or b"")
        assert 0 < await world.ttl_s(key) <= 15
        assert await world.scores(world.keys.probers) == {"p-1": pytest.approx(at)}

    async def test_a_prober_that_retires_is_gone_at_once(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        await bus.heartbeat(BEAT)
        await bus.retire("p-1")
        assert await world.get(world.keys.heartbeat("p-1")) is None
        assert await world.scores(world.keys.probers) == {}


class TestMembers:
    async def test_living_probers_are_read_and_the_dead_and_the_garbled_are_left_out(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        await bus.heartbeat(BEAT)
        await bus.heartbeat(replace(BEAT, instance="p-2", sick="its resolver lies"), ttl_s=2)
        now_s = await world.now_s()
        await world.score(world.keys.probers, "dead", now_s)
        await world.score(world.keys.probers, "garbled", now_s)
        await world.put(world.keys.heartbeat("garbled"), b"{")
        await world.score(world.keys.probers, "long gone", now_s - 60)
        await world.put(world.keys.heartbeat("long gone"), encode(BEAT))
        found = await bus.read_probers(now_s)
        assert sorted(found) == ["p-1", "p-2"]
        assert found["p-2"].sick == "its resolver lies"
        assert 0 < await world.ttl_s(world.keys.heartbeat("p-2")) <= 2

    async def test_how_long_statuses_have_to_live_is_read(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        await world.put(world.keys.status(replica(1)), b"whatever", 60)
        lives = await bus.read_lives([replica(1), replica(2)])
        assert list(lives) == [replica(1)]
        assert 55 < lives[replica(1)] <= 60


class TestAnnounce:
    async def test_changes_are_announced_in_order(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        changes = [
            HealthChange(replica_id=replica(n), healthy=n == 2, reason=Reason.OK, seq=n)
            for n in (1, 2, 3)
        ]
        await bus.announce(changes[:2])
        await bus.announce(changes[2:])
        assert await world.announced() == changes

    async def test_no_change_is_no_round_trip(self, world: World) -> None:
        await world.bus_away().announce([])


class TestErrors:
    async def test_nothing_is_built_for_a_bus_that_is_away(self, world: World) -> None:
        """What is written is written down when the connection is ready, so that it is fresh."""
        built: list[str] = []

        def build() -> Entries:
            built.append("too early")
            return {}

        with pytest.raises(BusUnreachable):
            await world.bus_away().write_statuses(build)
        assert built == []

    async def test_an_absent_bus_is_unreachable_and_never_an_empty_answer(
        self, world: World
    ) -> None:
        """R-05."""
        bus = world.bus_away()
        for call in (
            bus.hello(),
            bus.poll(),
            bus.read_targets([1], 0.0),
            bus.read_statuses([replica(1)]),
            bus.write_statuses(writing([("t:s", b"1", 120)])),
            bus.heartbeat(BEAT),
            bus.read_probers(0.0),
            bus.read_lives([replica(1)]),
            bus.retire("p-1"),
            bus.announce([HealthChange(replica_id=replica(1), healthy=True, reason=Reason.OK)]),
        ):
            with pytest.raises(BusUnreachable):
                await call

    async def test_a_full_bus_refuses_writes_and_still_answers_reads(
        self, bus: ProbeBus | FakeBus, world: World
    ) -> None:
        await bus.hello()
        await world.fill_up()
        with pytest.raises(BusRefused, match="used memory"):
            await bus.write_statuses(writing([("t:s", b"1", 120)]))
        with pytest.raises(BusRefused, match="used memory"):
            await bus.heartbeat(BEAT)
        assert (await bus.poll()).epoch is None
        assert await world.get("t:s") is None
