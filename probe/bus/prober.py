"""The prober's side of the bus: targets in; statuses, heartbeats and verdict changes out.

Called by the stages only. Reads answer in values, one bad entry never costs its neighbours, and
an error of the bus is raised as `BusError`: it never looks like an absent key. Knows nothing of
scheduling; all times here are seconds of the bus's own clock.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from probe.bus.client import chunks, seconds, text
from probe.bus.connect import Client, connect, link_of
from probe.bus.feed import check_layout
from probe.bus.members import read_lives, read_probers
from probe.bus.targets import Rejected, TargetReader, Targets
from probe.bus.writes import Entries, WriteMode
from probe.errors import BusRefused, WireError
from probe.wire import (
    CHANGES_MAX_LENGTH,
    HEARTBEAT_TTL_S,
    PARTITIONS,
    TARGET_TTL_S,
    HealthChange,
    Keys,
    ProberHeartbeat,
    ReplicaHealthStatus,
    ReplicaId,
    decode_status,
    encode,
)

__all__ = ["Poll", "ProbeBus", "Rejected", "Targets", "WriteMode", "connect"]


@dataclass(frozen=True, slots=True)
class Poll:
    """What one look at the bus tells: cheap, once a second."""

    versions: dict[int, int]
    """Partition -> change counter; a partition without targets is absent."""
    epoch: str | None
    """None while no controller has written one since the bus lost its memory."""
    time_s: float


class ProbeBus:
    """All that the prober says to the bus and hears from it.

    Writes are shielded from cancellation and bounded by `timeout_s`. Every method raises
    `BusUnreachable` if there is no answer in time and `BusRefused` if the answer is an error.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys | None = None,
        *,
        write_mode: WriteMode | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        self._link = link_of(client, timeout_s=timeout_s)
        self._keys = keys or Keys()
        self._reader = TargetReader(self._link, self._keys)
        self._forced_mode = write_mode
        self._mode = write_mode
        self.rejected_statuses = 0
        """How many statuses `read_statuses` had to skip."""

    async def hello(self) -> WriteMode:
        """Check that the bus is laid out as this program expects; return how it is written.

        Raises:
            SettingsError: if the bus is laid out for another number of partitions.
        """
        await check_layout(self._link, self._keys)
        return await self._write_mode()

    async def poll(self) -> Poll:
        """Read the partition versions, the epoch and the time in one round trip."""
        batch = self._link.batch()
        batch.add("HGETALL", self._keys.versions)
        batch.add("GET", self._keys.epoch)
        batch.add_words("TIME")
        versions, epoch, now = await self._link.read(batch)
        return Poll(
            versions={
                int(partition): int(version)
                for partition, version in versions.items()
                if partition.isdigit() and version.isdigit()  # a foreign field moves nothing
            },
            epoch=None if epoch is None else text(epoch),
            time_s=seconds(now),
        )

    async def read_targets(self, partitions: Iterable[int], time_s: float) -> Targets:
        """Read every target of `partitions` that has not expired at `time_s`.

        A member whose key is missing is gone: it is neither returned nor rejected. One that is
        as it was is the same object.
        """
        return await self._reader.read(partitions, time_s)

    async def read_statuses(
        self, replica_ids: Iterable[ReplicaId]
    ) -> dict[ReplicaId, ReplicaHealthStatus]:
        """Read what is known of `replica_ids`; what is absent or cannot be used is left out."""
        found: dict[ReplicaId, ReplicaHealthStatus] = {}
        for chunk in chunks(list(dict.fromkeys(replica_ids))):
            names = [self._keys.status(replica_id) for replica_id in chunk]
            values, foreign = await self._link.values(names)
            self.rejected_statuses += len(foreign)
            for replica_id, value in zip(chunk, values, strict=True):
                if value is None:
                    continue
                try:
                    status = decode_status(value)
                except WireError:
                    self.rejected_statuses += 1
                    continue
                found[replica_id] = status
        return found

    async def write_statuses(self, build: Callable[[], Entries]) -> None:
        """Set the entries that `build` returns, in one round trip.

        It is called when the connection is ready, right before the bytes leave, so that nothing
        in it grows old meanwhile; again if the connection breaks. On an error some entries may
        be written: writing all of them again is harmless.
        """
        mode = await self._write_mode()
        try:
            await self._link.deliver(build, mode)
        except BusRefused:
            self._mode = self._forced_mode  # another server may answer there now: ask again
            raise

    async def read_probers(self, time_s: float) -> dict[str, ProberHeartbeat]:
        """Read the heartbeats of the probers that live; `time_s` is now, on the bus."""
        return await read_probers(self._link, self._keys, time_s=time_s)

    async def read_lives(self, replica_ids: Iterable[ReplicaId]) -> dict[ReplicaId, float]:
        """Read how many seconds the statuses have left to live; absent ones are left out."""
        return await read_lives(self._link, self._keys, replica_ids)

    async def heartbeat(self, beat: ProberHeartbeat, *, ttl_s: int = HEARTBEAT_TTL_S) -> float:
        """Say that this prober lives; `at` is stamped here with the bus time, and returned."""
        keys = self._keys
        clock = self._link.batch()
        clock.add_words("TIME")
        at = seconds((await self._link.read(clock))[0])
        value = encode(msgspec.structs.replace(beat, at=at))
        change = self._link.transaction()
        change.add("SET", keys.heartbeat(beat.instance), value, "EX", ttl_s)
        change.add("ZADD", keys.probers, at, beat.instance)
        change.add("ZREMRANGEBYSCORE", keys.probers, "-inf", at - TARGET_TTL_S)
        change.add("EXPIRE", keys.probers, TARGET_TTL_S)
        change.add("SET", keys.partitions, PARTITIONS, "NX", "EX", TARGET_TTL_S)
        change.add("EXPIRE", keys.partitions, TARGET_TTL_S)
        await self._link.write(change)
        return at

    async def retire(self, instance: str) -> None:
        """Say that this prober ends by intent, so that nobody waits for its heartbeat."""
        change = self._link.transaction()
        change.add("DEL", self._keys.heartbeat(instance))
        change.add("ZREM", self._keys.probers, instance)
        await self._link.write(change)

    async def announce(self, changes: Sequence[HealthChange]) -> None:
        """Append verdict changes to the stream, oldest first; no changes, no round trip."""
        if not changes:
            return
        batch = self._link.batch()
        trim = ("MAXLEN", "~", CHANGES_MAX_LENGTH, "*")
        for change in changes:
            batch.add("XADD", self._keys.changes, *trim, "change", encode(change))
        await self._link.write(batch)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._link.aclose()

    async def _write_mode(self) -> WriteMode:
        if self._mode is None:
            self._mode = await self._link.write_mode()
        return self._mode
