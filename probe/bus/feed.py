"""How probe targets get onto the bus, and off it again.

Used by the controller's sync and by `fleetpulse targets`: there is one way to write a target. It,
its place in the index and the version of its partition change in one transaction, or in that
order where none can span them: a prober that is told of a change finds it, and no key is ever
without its time to live (R-64).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from probe.bus.client import BusLink, seconds, text
from probe.errors import BusError, BusUnreachable, SettingsError
from probe.wire import (
    PARTITIONS,
    TARGET_TTL_S,
    Keys,
    ReplicaId,
    ReplicaProbeTarget,
    encode,
    partition_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of a write of targets (R-10)."""

    written: int
    failed: Sequence[tuple[ReplicaId, str]]


async def check_layout(link: BusLink, keys: Keys) -> None:
    """Check that the bus is laid out as this program expects.

    The number of partitions lives as long as a target: when nobody has said it for that long, no
    target is left to be misread.

    Raises:
        SettingsError: if the bus is laid out for another number of partitions.
    """
    batch = link.batch()
    batch.add("SET", keys.partitions, PARTITIONS, "NX", "EX", TARGET_TTL_S)
    batch.add("GET", keys.partitions)
    found = text((await link.write(batch))[1])
    if found != str(PARTITIONS):
        raise SettingsError(
            f"the bus is laid out for {found} partitions, this program for {PARTITIONS}: "
            f"use another bus or key prefix, or delete {keys.partitions}"
        )


async def write_targets(
    link: BusLink, keys: Keys, targets: Iterable[ReplicaProbeTarget]
) -> Written:
    """Write targets, partition by partition; a refused one does not stop the others.

    Raises:
        BusUnreachable: if there was no answer before anything was written.
    """
    groups: defaultdict[int, dict[ReplicaId, ReplicaProbeTarget]] = defaultdict(dict)
    for target in targets:
        groups[partition_of(target.replica_id)][target.replica_id] = target
    written = 0
    failed: list[tuple[ReplicaId, str]] = []
    error: BusError | None = None
    for partition, group in groups.items():
        if not isinstance(error, BusUnreachable):  # once lost, more tries only wait in vain
            error = await _try_partition(link, keys, partition, group)
        if error is None:
            written += len(group)
        else:
            failed.extend((replica_id, str(error)) for replica_id in group)
    if isinstance(error, BusUnreachable) and not written:
        raise error
    return Written(written=written, failed=failed)


async def remove_targets(link: BusLink, keys: Keys, replica_ids: Iterable[ReplicaId]) -> int:
    """Delete targets with their statuses, partition by partition; return how many there were.

    Raises:
        BusError: if a partition was not done; those before it are.
    """
    groups: defaultdict[int, list[ReplicaId]] = defaultdict(list)
    for replica_id in dict.fromkeys(replica_ids):
        groups[partition_of(replica_id)].append(replica_id)
    removed = 0
    for partition, group in groups.items():
        change = link.transaction()
        for name in (*map(keys.target, group), *map(keys.status, group)):
            change.add("DEL", name)
        change.add("ZREM", keys.index(partition), *group)
        change.then()
        change.add("HINCRBY", keys.versions, partition, 1)
        removed += sum((await link.write(change))[: len(group)])
    return removed


async def _try_partition(
    link: BusLink, keys: Keys, partition: int, group: Mapping[ReplicaId, ReplicaProbeTarget]
) -> BusError | None:
    try:
        await _write_partition(link, keys, partition, group)
    except BusError as error:
        return error
    return None


async def _write_partition(
    link: BusLink, keys: Keys, partition: int, group: Mapping[ReplicaId, ReplicaProbeTarget]
) -> None:
    index = keys.index(partition)
    values = {keys.target(replica_id): encode(t) for replica_id, t in group.items()}
    batch = link.batch()
    batch.add_words("TIME")
    batch.add("ZMSCORE", index, *group)
    now, scores = await link.read(batch)
    now_s = seconds(now)
    present = (await link.values(list(values))).values
    change = link.transaction()
    for name, value in values.items():
        change.add("SET", name, value, "EX", TARGET_TTL_S)
    change.then()
    for replica_id in group:
        change.add("ZADD", index, now_s + TARGET_TTL_S, replica_id)
    change.add("ZREMRANGEBYSCORE", index, "-inf", now_s)
    change.add("EXPIRE", keys.partitions, TARGET_TTL_S)
    if present != list(values.values()) or None in scores:
        change.then()
        change.add("HINCRBY", keys.versions, partition, 1)
    await link.write(change)
