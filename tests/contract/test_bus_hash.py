"""The other system's layout, on real servers: its targets are found, its statuses written."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from controller.embedded import EmbeddedValkey
from probe.bus.connect import connect
from probe.bus.hash_layout import SCANS_PER_POLL, HashBus
from probe.errors import BusRefused, BusUnreachable, SettingsError
from probe.reasons import Reason
from probe.wire import (
    HealthChange,
    Keys,
    ReplicaHealthStatus,
    ReplicaId,
    encode,
    partition_of,
)
from tests.fakes.bus_servers import Fleet
from tests.fakes.entries import replica, replicas_in, status, target, writing

KEYS = Keys("t[1]:")


@pytest.fixture(params=["valkey", "redis7"])
def server_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def bus(server: EmbeddedValkey, client: Redis) -> AsyncIterator[HashBus]:
    del client  # empties the server
    hashes = HashBus(connect(server.url), KEYS)
    await hashes.hello()
    yield hashes
    await hashes.aclose()


async def put(client: Redis, number: int, **fields: str) -> None:
    known: dict[Any, Any] = {
        "replica_id": replica(number),
        "replica_host": "127.0.0.1",
        "inference_port": "8000",
        "health_path": "/health",
        **fields,
    }
    await client.hset(KEYS.target(replica(number)), mapping=known)


def wrote(one: ReplicaHealthStatus) -> tuple[str, bytes, int]:
    return KEYS.status(one.replica_id), encode(one), 120


class TestDiscovery:
    async def test_every_hash_is_found_and_becomes_a_target_with_the_defaults(
        self, bus: HashBus, client: Redis
    ) -> None:
        for number in range(2500):
            await put(client, number)
        for number in range(3000):
            await client.set(f"another:{number}", "key")
        poll = await bus.poll()
        found = await bus.read_targets(range(64), poll.time_s)
        read = {t.replica_id: t for group in found.by_partition.values() for t in group}
        assert read == {replica(n): target(n) for n in range(2500)}
        assert set(poll.versions) == set(found.by_partition)
        assert poll.epoch is None
        assert all(
            partition_of(t) == p
            for p, g in found.by_partition.items()
            for t in (one.replica_id for one in g)
        )

    async def test_a_new_and_a_removed_target_move_their_partition_and_no_other(
        self, bus: HashBus, client: Redis
    ) -> None:
        await put(client, 1)
        await put(client, 2)
        first = (await bus.poll()).versions
        assert (await bus.poll()).versions == first
        await client.delete(KEYS.target(replica(1)))
        gone = (await bus.poll()).versions
        assert {p for p in gone if gone[p] != first[p]} == {partition_of(replica(1))}
        await put(client, 3)
        new = (await bus.poll()).versions
        assert {p for p in new if new[p] != gone.get(p)} == {partition_of(replica(3))}
        now_s = (await bus.poll()).time_s
        found = (await bus.read_targets(range(64), now_s)).by_partition
        assert {t.replica_id for group in found.values() for t in group} == {replica(2), replica(3)}

    async def test_after_the_first_turn_a_poll_looks_at_so_many_keys_and_no_more(
        self, bus: HashBus, client: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("probe.bus.hash_layout.SCAN_COUNT", 10)
        for number in range(1000):
            await put(client, number)
        await bus.poll()
        await client.config_resetstat()
        await bus.poll()
        stats = await client.info("commandstats")
        assert stats["cmdstat_scan"]["calls"] == SCANS_PER_POLL

    async def test_a_bad_hash_is_rejected_and_its_neighbours_are_not(
        self, bus: HashBus, client: Redis
    ) -> None:
        """R-05: a key of another type is not an absent one."""
        good, port, short, stray, foreign, binary = replicas_in(9, 6)
        hashed: dict[Any, Any] = {
            "replica_host": "127.0.0.1",
            "inference_port": "8000",
            "health_path": "/h",
        }
        odd: list[tuple[ReplicaId, dict[Any, Any]]] = [
            (good, {"replica_id": good}),
            (port, {"replica_id": port, "inference_port": "65536"}),
            (stray, {"replica_id": good}),
            (binary, {"replica_id": binary, "health_path": b"/\xff"}),
        ]
        for one, fields in odd:
            await client.hset(KEYS.target(one), mapping={**hashed, **fields})
        await client.hset(KEYS.target(short), "replica_id", short)
        await client.set(KEYS.target(foreign), "text")
        poll = await bus.poll()
        found = await bus.read_targets([9], poll.time_s)
        assert [t.replica_id for t in found.by_partition[9]] == [good]
        assert {r.replica_id for r in found.rejected} == {port, short, stray, foreign, binary}

    async def test_an_unchanged_target_is_the_same_object_and_a_changed_one_is_read(
        self, bus: HashBus, client: Redis
    ) -> None:
        await put(client, 1)
        partition = partition_of(replica(1))
        poll = await bus.poll()
        (first,) = (await bus.read_targets([partition], poll.time_s)).by_partition[partition]
        (again,) = (await bus.read_targets([partition], poll.time_s)).by_partition[partition]
        assert again is first
        await put(client, 1, inference_port="9")
        (moved,) = (await bus.read_targets([partition], poll.time_s)).by_partition[partition]
        assert moved == target(1, inference_port=9)


class TestStatuses:
    async def test_a_status_is_a_hash_with_a_time_to_live(
        self, bus: HashBus, client: Redis
    ) -> None:
        """R-64."""
        sick = status(2, healthy=False, consecutive_failures=3, last_check=1.9)
        many = [wrote(status(n)) for n in range(10, 2510)]
        await bus.write_statuses(writing([wrote(status(1, last_check=7.25)), wrote(sick), *many]))
        assert await client.hgetall(KEYS.status(replica(1))) == {
            b"replica_id": replica(1).encode(),
            b"healthy": b"1",
            b"last_check": b"7",
            b"consecutive_failures": b"0",
        }
        assert await client.hget(KEYS.status(replica(2)), "healthy") == b"0"
        assert await client.hget(KEYS.status(replica(2)), "consecutive_failures") == b"3"
        assert await client.dbsize() == 2502
        assert [key async for key in client.scan_iter() if await client.ttl(key) == -1] == []
        assert 60 <= await client.ttl(KEYS.status(replica(1))) <= 120

    async def test_what_was_written_is_read_back_as_far_as_it_is_kept(
        self, bus: HashBus, client: Redis
    ) -> None:
        sick = status(2, healthy=False, consecutive_failures=3, last_check=9.0)
        await bus.write_statuses(writing([wrote(status(1, last_check=7.0)), wrote(sick)]))
        await client.set(KEYS.status(replica(3)), "text")
        await client.hset(KEYS.status(replica(4)), "consecutive_failures", "many")
        found = await bus.read_statuses([replica(n) for n in range(1, 6)])
        assert {
            key: (s.healthy, s.consecutive_failures, s.last_check) for key, s in found.items()
        } == {
            replica(1): (True, 0, 7.0),
            replica(2): (False, 3, 9.0),
        }
        assert bus.rejected_statuses == 2

    async def test_a_key_of_another_type_is_refused_and_none_is_left_without_a_ttl(
        self, bus: HashBus, client: Redis
    ) -> None:
        """R-64."""
        await client.set(KEYS.status(replica(2)), "text", ex=60)
        with pytest.raises(BusRefused, match="WRONGTYPE"):
            await bus.write_statuses(writing([wrote(status(n)) for n in (1, 2, 3)]))
        assert [key async for key in client.scan_iter() if await client.ttl(key) == -1] == []

    async def test_changes_are_told_to_nobody(self, bus: HashBus, client: Redis) -> None:
        await bus.announce([HealthChange(replica_id=replica(1), healthy=True, reason=Reason.OK)])
        assert await client.dbsize() == 0


async def test_an_absent_bus_is_unreachable_and_not_empty(server: EmbeddedValkey) -> None:
    """R-05."""
    hashes = HashBus(connect(f"{server.url}.nobody"), KEYS)
    for call in (hashes.hello(), hashes.poll(), hashes.read_statuses([replica(1)])):
        with pytest.raises(BusUnreachable):
            await call
    await hashes.aclose()


@pytest.mark.xdist_group("cluster")
async def test_a_cluster_is_refused_because_scan_sees_one_node_of_it(fleet: Fleet) -> None:
    hashes = HashBus(connect(fleet.bus("cluster").url), KEYS)
    with pytest.raises(SettingsError, match="single server"):
        await hashes.hello()
    await hashes.aclose()
