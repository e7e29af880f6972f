"""The targets on the bus: how they are read, and how they are fed by hand.

Used by `probe.bus.prober` for reading and by `fleetpulse targets` for feeding. A target, its place
in the index and the version of its partition change in one transaction, so that a prober never
sees one without the other. Knows nothing of probing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from probe.bus.client import BusLink, chunks, seconds, text
from probe.bus.connect import Client, link_of
from probe.bus.feed import remove_targets, write_targets
from probe.errors import BusRefused, MalformedEntry, WireError
from probe.wire import (
    PARTITIONS,
    Keys,
    ReplicaId,
    ReplicaProbeTarget,
    decode_target,
    partition_of,
)


@dataclass(frozen=True, slots=True)
class Rejected:
    """One entry that cannot be used; it is skipped and counted, never fatal."""

    key: str
    replica_id: str
    """As its index has it: not necessarily a valid id."""
    error: WireError


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of the partitions asked for; each of these is a key, an empty one too."""

    by_partition: dict[int, list[ReplicaProbeTarget]]
    rejected: list[Rejected] = field(default_factory=list)


class _Known(NamedTuple):
    """A target as it was read last."""

    value: bytes
    target: ReplicaProbeTarget


_NOTHING: Final[Mapping[str, _Known]] = MappingProxyType({})


class TargetReader:
    """Reads partitions again and again; what has not changed is not decoded again.

    The bytes of each target are kept for that (250 bytes): comparing them costs 0.03 us, decoding,
    checking and comparing what comes out 0.9.
    """

    def __init__(self, link: BusLink, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._known: dict[int, dict[str, _Known]] = {}

    async def read(self, partitions: Iterable[int], time_s: float) -> Targets:
        """Read every target of `partitions` that has not expired at `time_s`.

        An indexed member whose key is missing is gone: neither returned nor rejected. One that
        is as it was is the same object.
        """
        wanted = list(dict.fromkeys(partitions))
        targets = Targets({partition: [] for partition in wanted})
        seen: dict[int, dict[str, _Known]] = {partition: {} for partition in wanted}
        for members in chunks(await _members(self._link, self._keys, wanted, time_s)):
            names = [self._keys.target(ReplicaId(member)) for _, member in members]
            values, foreign = await self._link.values(names)
            for (partition, member), name, value in zip(members, names, values, strict=True):
                if value is None and name not in foreign:
                    continue
                known = self._known.get(partition, _NOTHING).get(member)
                if known is None or known.value != value:
                    try:
                        known = _Known(value or b"", _target(value, member, partition))
                    except WireError as error:
                        targets.rejected.append(Rejected(name, member, error))
                        continue
                seen[partition][member] = known
                targets.by_partition[partition].append(known.target)
        self._known |= seen
        return targets


async def _members(
    link: BusLink, keys: Keys, partitions: Sequence[int], time_s: float
) -> list[tuple[int, str]]:
    if not partitions:
        return []
    batch = link.batch()
    for partition in partitions:
        batch.add("ZRANGE", keys.index(partition), f"({time_s!r}", "+inf", "BYSCORE")
    indexed = await link.read(batch)
    return [
        (partition, text(member))
        for partition, members in zip(partitions, indexed, strict=True)
        for member in members
    ]


def _target(value: bytes | None, member: str, partition: int) -> ReplicaProbeTarget:
    if value is None:
        raise MalformedEntry("the probe target is not a string")
    target = decode_target(value)
    if target.replica_id != member or partition_of(target.replica_id) != partition:
        raise MalformedEntry(
            f"the probe target of {target.replica_id} is indexed as {member[:64]!r} "
            f"in partition {partition}"
        )
    return target


class TargetFeed:
    """Targets written by hand, for a prober that runs without a controller.

    Every method raises `BusUnreachable` if there is no answer in time and `BusRefused` if the
    answer is an error.
    """

    def __init__(self, client: Client, keys: Keys | None = None, *, timeout_s: float = 5.0) -> None:
        self._link = link_of(client, timeout_s=timeout_s)
        self._keys = keys or Keys()
        self._reader = TargetReader(self._link, self._keys)

    async def load(self, targets: Iterable[ReplicaProbeTarget]) -> int:
        """Write targets, each for `TARGET_TTL_S`; return how many."""
        report = await write_targets(self._link, self._keys, targets)
        for replica_id, why in report.failed:
            raise BusRefused(f"{len(report.failed)} targets were not written, {replica_id}: {why}")
        return report.written

    async def list(self) -> Targets:
        """Read every target there is."""
        return await self._reader.read(range(PARTITIONS), await self._now_s())

    async def remove(self, replica_ids: Iterable[ReplicaId]) -> int:
        """Delete targets with their statuses; return how many of them were there."""
        return await remove_targets(self._link, self._keys, replica_ids)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._link.aclose()

    async def _now_s(self) -> float:
        batch = self._link.batch()
        batch.add_words("TIME")
        (now,) = await self._link.read(batch)
        return seconds(now)
