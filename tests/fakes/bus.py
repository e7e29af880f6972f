"""A bus in memory: what `probe.bus.prober.ProbeBus` does, without a server.

`FakeServer` is what tests arrange and look at; `FakeBus` is what the code under test is given.
The contract suite holds it to the behaviour of the real ones. Time moves only when told to.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import anyio.lowlevel
import msgspec

from probe.bus.prober import Poll, Rejected, Targets, WriteMode
from probe.bus.writes import Entries, read_entry
from probe.errors import BusRefused, BusUnreachable, MalformedEntry, SettingsError, WireError
from probe.wire import (
    HEARTBEAT_TTL_S,
    PARTITIONS,
    TARGET_TTL_S,
    HealthChange,
    Keys,
    ProberHeartbeat,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    decode_heartbeat,
    decode_status,
    decode_target,
    encode,
    partition_of,
)


class FakeServer:
    """The memory of one bus, and its faults."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0
        self.strings: dict[str, tuple[bytes, float]] = {}
        """Key -> value and the time it expires, infinity for never."""
        self.sets: dict[str, dict[str, float]] = {}
        """Sorted sets: key -> member -> score."""
        self.versions: dict[int, int] = {}
        self.changes: list[HealthChange] = []
        self.foreign: set[str] = set()
        """Keys that hold another type than they should."""
        self.away = False
        """Nobody answers."""
        self.full = False
        """Writes are refused."""
        self.round_trips = 0

    def get(self, key: str) -> bytes | None:
        value, expires_at = self.strings.get(key, (None, 0.0))
        return value if expires_at > self.now_s else None

    def set(self, key: str, value: bytes, *, ttl_s: float = float("inf")) -> None:
        self.foreign.discard(key)
        self.strings[key] = (value, self.now_s + ttl_s)

    def put_target(self, target: ReplicaProbeTarget, keys: Keys | None = None) -> None:
        """Write one target as a controller does."""
        keys = keys or Keys()
        partition = partition_of(target.replica_id)
        self.set(keys.target(target.replica_id), encode(target), ttl_s=TARGET_TTL_S)
        index = self.sets.setdefault(keys.index(partition), {})
        index[target.replica_id] = self.now_s + TARGET_TTL_S
        self.versions[partition] = self.versions.get(partition, 0) + 1

    def forget_everything(self) -> None:
        """Do as FLUSHALL does."""
        self.strings.clear()
        self.sets.clear()
        self.versions.clear()
        self.changes.clear()
        self.foreign.clear()


class FakeBus:
    """A `ProbeBus` on a `FakeServer`."""

    def __init__(self, server: FakeServer, keys: Keys | None = None) -> None:
        self._server = server
        self._keys = keys or Keys()
        self.rejected_statuses = 0

    async def hello(self) -> WriteMode:
        await self._reach(writing=True)
        key = self._keys.partitions
        if self._server.get(key) is None:
            self._server.set(key, str(PARTITIONS).encode(), ttl_s=TARGET_TTL_S)
        found = self._server.get(key)
        if found != str(PARTITIONS).encode():
            raise SettingsError(f"the bus is laid out for {found!r} partitions, not {PARTITIONS}")
        return WriteMode.MSETEX

    async def poll(self) -> Poll:
        await self._reach(self._keys.versions, self._keys.epoch)
        epoch = self._server.get(self._keys.epoch)
        return Poll(
            versions=dict(self._server.versions),
            epoch=None if epoch is None else epoch.decode(),
            time_s=self._server.now_s,
        )

    async def read_targets(self, partitions: Iterable[int], time_s: float) -> Targets:
        targets = Targets({partition: [] for partition in partitions})
        if not targets.by_partition:
            return targets
        await self._reach(*map(self._keys.index, targets.by_partition))
        for partition, found in targets.by_partition.items():
            for member, score in self._server.sets.get(self._keys.index(partition), {}).items():
                if score <= time_s:
                    continue
                key = self._keys.target(ReplicaId(member))
                try:
                    target = self._target(key, member, partition)
                except WireError as error:
                    targets.rejected.append(Rejected(key, member, error))
                else:
                    found.extend([target] if target else [])
        return targets

    async def read_statuses(
        self, replica_ids: Iterable[ReplicaId]
    ) -> dict[ReplicaId, ReplicaHealthStatus]:
        wanted = list(replica_ids)
        if wanted:
            await self._reach()
        found: dict[ReplicaId, ReplicaHealthStatus] = {}
        for replica_id in wanted:
            value = self._server.get(self._keys.status(replica_id))
            try:
                if value is not None:
                    found[replica_id] = decode_status(value)
            except WireError:
                self.rejected_statuses += 1
        return found

    async def write_statuses(self, build: Callable[[], Entries]) -> None:
        await self._reach(writing=True)
        for ttl_s, entries in build().items():
            for packed in entries:
                key, value = read_entry(packed)
                self._server.set(key, value.encode(), ttl_s=ttl_s)

    async def read_probers(self, time_s: float) -> dict[str, ProberHeartbeat]:
        await self._reach(self._keys.probers)
        beats = {}
        for instance, at in self._server.sets.get(self._keys.probers, {}).items():
            value = self._server.get(self._keys.heartbeat(instance))
            if value is None or at < time_s - 2 * HEARTBEAT_TTL_S:
                continue
            with suppress(WireError):
                beats[instance] = decode_heartbeat(value)
        return beats

    async def read_lives(self, replica_ids: Iterable[ReplicaId]) -> dict[ReplicaId, float]:
        await self._reach()
        lives = {}
        for replica_id in replica_ids:
            _, expires_at = self._server.strings.get(self._keys.status(replica_id), (b"", 0.0))
            if expires_at > self._server.now_s:
                lives[replica_id] = expires_at - self._server.now_s
        return lives

    async def heartbeat(self, beat: ProberHeartbeat, *, ttl_s: int = HEARTBEAT_TTL_S) -> float:
        await self._reach(self._keys.probers, writing=True)
        at = self._server.now_s
        value = encode(msgspec.structs.replace(beat, at=at))
        self._server.set(self._keys.heartbeat(beat.instance), value, ttl_s=ttl_s)
        self._server.sets.setdefault(self._keys.probers, {})[beat.instance] = at
        return at

    async def retire(self, instance: str) -> None:
        await self._reach(self._keys.probers, writing=True)
        self._server.strings.pop(self._keys.heartbeat(instance), None)
        self._server.sets.get(self._keys.probers, {}).pop(instance, None)

    async def announce(self, changes: Sequence[HealthChange]) -> None:
        if changes:
            await self._reach(self._keys.changes, writing=True)
            self._server.changes.extend(changes)

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def _reach(self, *keys: str, writing: bool = False) -> None:
        await anyio.lowlevel.checkpoint()
        self._server.round_trips += 1
        if self._server.away:
            raise BusUnreachable("the bus at memory cannot be reached")
        if writing and self._server.full:
            raise BusRefused("the bus at memory refused: used memory > 'maxmemory'")
        if self._server.foreign.intersection(keys):
            raise BusRefused("the bus at memory refused: WRONGTYPE")

    def _target(self, key: str, member: str, partition: int) -> ReplicaProbeTarget | None:
        if key in self._server.foreign:
            raise MalformedEntry("the probe target is not a string")
        value = self._server.get(key)
        if value is None:
            return None
        target = decode_target(value)
        if target.replica_id != member or partition_of(target.replica_id) != partition:
            raise MalformedEntry("the probe target is indexed as another")
        return target
