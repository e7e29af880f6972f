"""One way to arrange and look at a bus, for the fake and for real servers alike."""

from abc import ABC, abstractmethod
from typing import Any

import msgspec
from redis.asyncio import RedisCluster

from probe.bus.connect import BusFiles
from probe.bus.prober import ProbeBus, connect
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
    def __init__(self, client: Any, url: str, files: BusFiles = BusFiles()) -> None:  # noqa: ANN401, B008 - of one server or of a cluster; frozen
        self.client = client
        self.url = url
        self.files = files
        self.buses: list[ProbeBus] = []

    def bus(self) -> ProbeBus:
        self.buses.append(ProbeBus(connect(self.url, files=self.files), self.keys))
        return self.buses[-1]

    def bus_away(self) -> ProbeBus:
        self.buses.append(ProbeBus(connect(nobody_at(self.url)), self.keys))
        return self.buses[-1]

    async def now_s(self) -> float:
        told: Any = await self.client.time()
        now, micros = next(iter(told.values())) if isinstance(told, dict) else told
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
        await self._allow_bytes(1)

    async def empty(self) -> None:
        """Forget everything, and make room for it."""
        await self.client.flushall()
        await self._allow_bytes(0)

    async def _allow_bytes(self, limit: int) -> None:
        everywhere = {"target_nodes": "all"} if isinstance(self.client, RedisCluster) else {}
        await self.client.config_set("maxmemory", limit, **everywhere)

    async def aclose(self) -> None:
        await self.empty()
        for bus in self.buses:
            await bus.aclose()
        await self.client.aclose()

    async def announced(self) -> list[HealthChange]:
        entries: Any = await self.client.xrange(self.keys.changes)
        return [msgspec.json.decode(f[b"change"], type=HealthChange) for _, f in entries]


def nobody_at(url: str) -> str:
    """Return an address of the same kind at which nobody listens."""
    match url.split("://"):
        case ["unix", path]:
            return f"unix://{path}.nobody"
        case [("redis+sentinel" | "redis+cluster") as scheme, _]:
            return (
                f"{scheme}://127.0.0.1:1/fleet"
                if "sentinel" in scheme
                else f"{scheme}://127.0.0.1:1"
            )
        case _:
            return "redis://127.0.0.1:1/0"
