"""One way to arrange and look at a bus, for the fake and for real servers alike."""

from abc import ABC, abstractmethod
from typing import Any

import msgspec
from redis.asyncio import Redis

from probe.bus import ProbeBus, connect
from probe.wire import HealthChange, Keys, ReplicaId, ReplicaProbeTarget, encode, partition_of
from tests.fakes.bus import FakeBus, FakeServer


class World(ABC):
    """A server seen from outside, and buses on it."""

    keys = Keys("t:")

    @abstractmethod
    def bus(self) -> ProbeBus | FakeBus: ...
    @abstractmethod
    def bus_away(self) -> ProbeBus | FakeBus: ...
    @abstractmethod
    async def now_s(self) -> float: ...
    @abstractmethod
    async def put(self, key: str, value: bytes, ttl_s: int | None = 60) -> None: ...
    @abstractmethod
    async def get(self, key: str) -> bytes | None: ...
    @abstractmethod
    async def ttl_s(self, key: str) -> float: ...
    @abstractmethod
    async def score(self, key: str, member: str, score: float) -> None: ...
    @abstractmethod
    async def scores(self, key: str) -> dict[str, float]: ...
    @abstractmethod
    async def version(self, partition: int, version: int) -> None: ...
    @abstractmethod
    async def make_foreign(self, key: str) -> None: ...
    @abstractmethod
    async def fill_up(self) -> None: ...
    @abstractmethod
    async def announced(self) -> list[HealthChange]: ...

    async def put_target(self, target: ReplicaProbeTarget) -> None:
        await self.put_entry(target.replica_id, encode(target))

    async def put_entry(self, member: str, value: bytes, partition: int | None = None) -> None:
        """Index `member` and write `value` as its target, whatever either is worth."""
        if partition is None:
            partition = partition_of(ReplicaId(member))
        await self.put(f"{self.keys.prefix}route_probe:{member}", value)
        await self.score(self.keys.index(partition), member, await self.now_s() + 3600)


class FakeWorld(World):
    def __init__(self) -> None:
        self.server = FakeServer()

    def bus(self) -> FakeBus:
        return FakeBus(self.server, self.keys)

    def bus_away(self) -> FakeBus:
        self.server.away = True
        return self.bus()

    async def now_s(self) -> float:
        return self.server.now_s

    async def put(self, key: str, value: bytes, ttl_s: int | None = 60) -> None:
        self.server.set(key, value, ttl_s=float("inf") if ttl_s is None else ttl_s)

    async def get(self, key: str) -> bytes | None:
        return self.server.get(key)

    async def ttl_s(self, key: str) -> float:
        return self.server.strings[key][1] - self.server.now_s

    async def score(self, key: str, member: str, score: float) -> None:
        self.server.sets.setdefault(key, {})[member] = score

    async def scores(self, key: str) -> dict[str, float]:
        return dict(self.server.sets.get(key, {}))

    async def version(self, partition: int, version: int) -> None:
        self.server.versions[partition] = version

    async def make_foreign(self, key: str) -> None:
        self.server.foreign.add(key)

    async def fill_up(self) -> None:
        self.server.full = True

    async def announced(self) -> list[HealthChange]:
        return list(self.server.changes)


class RealWorld(World):
    def __init__(self, client: Redis, url: str) -> None:
        self.client = client
        self.url = url
        self.buses: list[ProbeBus] = []

    def bus(self) -> ProbeBus:
        self.buses.append(ProbeBus(connect(self.url), self.keys))
        return self.buses[-1]

    def bus_away(self) -> ProbeBus:
        self.buses.append(ProbeBus(connect(f"{self.url}.nobody"), self.keys))
        return self.buses[-1]

    async def now_s(self) -> float:
        now, micros = await self.client.time()
        return float(now + micros / 1e6)

    async def put(self, key: str, value: bytes, ttl_s: int | None = 60) -> None:
        await self.client.set(key, value, ex=ttl_s)

    async def get(self, key: str) -> bytes | None:
        value: Any = await self.client.get(key)
        return None if value is None else bytes(value)

    async def ttl_s(self, key: str) -> float:
        return float(await self.client.ttl(key))

    async def score(self, key: str, member: str, score: float) -> None:
        await self.client.zadd(key, {member: score})

    async def scores(self, key: str) -> dict[str, float]:
        found: Any = await self.client.zrange(key, 0, -1, withscores=True)
        return {member.decode(): float(score) for member, score in found}

    async def version(self, partition: int, version: int) -> None:
        await self.client.hset(self.keys.versions, str(partition), str(version))

    async def make_foreign(self, key: str) -> None:
        await self.client.delete(key)
        await self.client.sadd(key, "not what it should be")

    async def fill_up(self) -> None:
        await self.client.config_set("maxmemory", 1)

    async def announced(self) -> list[HealthChange]:
        entries: Any = await self.client.xrange(self.keys.changes)
        return [msgspec.json.decode(f[b"change"], type=HealthChange) for _, f in entries]
