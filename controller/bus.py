"""The controller's side of the bus: targets out; statuses, heartbeats and verdict changes in.

Called by the reconcile shell only. What could not be read is told apart from what is absent: an
error of the bus must never look like a replica without a status (S3, R-05). Knows nothing of
routes; all times here are seconds of the bus's own clock.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from probe.bus.client import BusLink, chunks, seconds, text
from probe.bus.connect import BusFiles, Client, connect, link_of
from probe.bus.feed import Written, check_layout, remove_targets, write_targets
from probe.errors import (
    BusRefused,
    MalformedEntry,
    WireError,
)
from probe.wire import (
    HealthChange,
    Keys,
    ProberHeartbeat,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    decode_heartbeat,
    decode_status,
)

__all__ = ["BusFiles", "Changes", "ControlBus", "Evidence", "Written", "connect"]

BLOCK_MAX_MS: Final = 1000
"""Half the socket's time-out: a quiet stream must not look like a dead bus."""
_CHANGES_PER_READ: Final = 1000
_change_decoder = msgspec.json.Decoder(HealthChange)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the bus says of the replicas asked for, at one moment.

    An id that is neither in `statuses` nor in `unreadable` has no status.
    """

    time_s: float
    epoch: str | None
    probers: Mapping[str, ProberHeartbeat]
    """The living ones, by instance."""
    statuses: Mapping[ReplicaId, ReplicaHealthStatus]
    unreadable: Mapping[ReplicaId, str]
    """Whose status may well be there, and why it could not be read: no evidence either way."""
    rejected_heartbeats: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Verdict changes in the order they were announced."""

    changes: Sequence[HealthChange]
    last_id: str
    """Where to go on reading."""
    rejected: int = 0
    epoch: str | None = None
    """That of the bus; None: it has none, because it forgot everything, or was not asked."""


class ControlBus:
    """All that the controller says to the bus and hears from it.

    Writes are shielded from cancellation and bounded by `timeout_s`. Every method raises
    `BusUnreachable` if there is no answer in time and `BusRefused` if the answer is an error.
    """

    def __init__(self, client: Client, keys: Keys | None = None, *, timeout_s: float = 5.0) -> None:
        self._link = link_of(client, timeout_s=timeout_s)
        self._keys = keys or Keys()

    @property
    def link(self) -> BusLink:
        """Return the connection, for what else is said to the same bus."""
        return self._link

    async def hello(self) -> None:
        """Check that the bus is laid out as this program expects.

        Raises:
            SettingsError: if the bus is laid out for another number of partitions.
        """
        await check_layout(self._link, self._keys)

    async def ensure_epoch(self) -> str:
        """Return the epoch of the bus, and write a new one if it has none (S4)."""
        batch = self._link.batch()
        batch.add("SET", self._keys.epoch, secrets.token_hex(8), "NX")
        batch.add("GET", self._keys.epoch)
        return text((await self._link.write(batch))[1])

    async def read_evidence(self, replica_ids: Iterable[ReplicaId]) -> Evidence:
        """Read time, epoch, living probers, and the status of each of `replica_ids`.

        A chunk that the server refuses to answer makes its ids unreadable, not absent.
        """
        batch = self._link.batch()
        batch.add_words("TIME")
        batch.add("GET", self._keys.epoch)
        batch.add("ZRANGE", self._keys.probers, 0, -1)
        now, epoch, instances = await self._link.read(batch)
        probers, rejected = await self._heartbeats([text(instance) for instance in instances])
        statuses: dict[ReplicaId, ReplicaHealthStatus] = {}
        unreadable: dict[ReplicaId, str] = {}
        for chunk in chunks(list(dict.fromkeys(replica_ids))):
            try:
                await self._read_statuses(chunk, statuses, unreadable)
            except BusRefused as error:
                unreadable.update(dict.fromkeys(chunk, str(error)))
        return Evidence(
            time_s=seconds(now),
            epoch=None if epoch is None else text(epoch),
            probers=probers,
            statuses=statuses,
            unreadable=unreadable,
            rejected_heartbeats=rejected,
        )

    async def write_targets(self, targets: Iterable[ReplicaProbeTarget]) -> Written:
        """Write targets, each for `TARGET_TTL_S`, and wake the probers where one is new.

        Target, index and version change in one transaction per partition, whole or not at all;
        rewriting what is already there only prolongs its life. A refused partition does not
        stop the others.

        Raises:
            BusUnreachable: if there was no answer before anything was written.
        """
        return await write_targets(self._link, self._keys, targets)

    async def remove_targets(self, replica_ids: Iterable[ReplicaId]) -> None:
        """Delete targets with their statuses, and wake the probers (R-44).

        One transaction per partition; on an error some partitions may be done: removing again is
        harmless, and what stays behind expires.
        """
        await remove_targets(self._link, self._keys, replica_ids)

    async def changes(self, last_id: str | None, *, block_ms: int = BLOCK_MAX_MS) -> Changes:
        """Return what was announced after `last_id`; wait up to `block_ms` (<= 1 s) for it.

        None stands for now: nothing is returned but where to go on. Only wakes the
        classification, which reads the statuses themselves: an entry lost here costs a tick.
        """
        batch = self._link.batch()
        if last_id is None:
            batch.add("XREVRANGE", self._keys.changes, "+", "-", "COUNT", 1)
            (newest,) = await self._link.read(batch)
            return Changes(changes=(), last_id=text(newest[0][0]) if newest else "0-0")
        wait_ms = max(1, min(block_ms, BLOCK_MAX_MS))  # 0 would mean for ever
        stream = self._keys.changes
        words = ("XREAD", "COUNT", _CHANGES_PER_READ, "BLOCK", wait_ms, "STREAMS", stream, last_id)
        batch.add_words(*words, key=stream)
        batch.add("GET", self._keys.epoch)
        streams, epoch = await self._link.read(batch)
        found: list[HealthChange] = []
        rejected = 0
        for entry_id, fields in streams[stream.encode()] if streams else ():
            last_id = text(entry_id)
            pairs = dict(zip(fields[::2], fields[1::2], strict=True))
            try:
                found.append(_change_decoder.decode(pairs.get(b"change", b"")))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                rejected += 1
        known = None if epoch is None else text(epoch)
        return Changes(changes=found, last_id=last_id, rejected=rejected, epoch=known)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._link.aclose()

    async def _heartbeats(self, instances: Sequence[str]) -> tuple[dict[str, ProberHeartbeat], int]:
        probers: dict[str, ProberHeartbeat] = {}
        rejected = 0
        if not instances:
            return probers, rejected
        found = await self._link.values([self._keys.heartbeat(instance) for instance in instances])
        for instance, value in zip(instances, found.values, strict=True):
            if value is None:  # its time is over; the index forgets it within the hour
                continue
            try:
                probers[instance] = decode_heartbeat(value)
            except WireError:
                rejected += 1
        return probers, rejected

    async def _read_statuses(
        self,
        replica_ids: Sequence[ReplicaId],
        statuses: dict[ReplicaId, ReplicaHealthStatus],
        unreadable: dict[ReplicaId, str],
    ) -> None:
        names = [self._keys.status(replica_id) for replica_id in replica_ids]
        values, foreign = await self._link.values(names)
        for replica_id, name, value in zip(replica_ids, names, values, strict=True):
            if value is None:
                if name in foreign:
                    unreadable[replica_id] = "the health status is not a string"
                continue
            try:
                statuses[replica_id] = _status(value, replica_id)
            except WireError as error:
                unreadable[replica_id] = str(error)


def _status(value: bytes, replica_id: ReplicaId) -> ReplicaHealthStatus:
    status = decode_status(value)
    if status.replica_id != replica_id:
        raise MalformedEntry(f"the health status is that of {status.replica_id[:64]!r}")
    return status
