"""What a prober hears on the bus of the other probers, and how long ago somebody wrote a status.

Called by `probe.bus.prober` alone. A prober lives while its heartbeat does: the server's own clock
ends it, so nobody's clock is compared with anybody else's.
"""

from collections.abc import Iterable

from probe.bus.client import BusLink, chunks, text
from probe.errors import WireError
from probe.wire import (
    HEARTBEAT_TTL_S,
    Keys,
    ProberHeartbeat,
    ReplicaId,
    decode_heartbeat,
)


async def read_probers(link: BusLink, keys: Keys, *, time_s: float) -> dict[str, ProberHeartbeat]:
    """Read the heartbeat of every prober that lives; one that cannot be read is left out.

    `time_s`, of the bus, spares the names of those that ended within the last hour.
    """
    batch = link.batch()
    batch.add("ZRANGEBYSCORE", keys.probers, time_s - 2 * HEARTBEAT_TTL_S, "+inf")
    instances = [text(instance) for instance in (await link.read(batch))[0]]
    if not instances:
        return {}
    found = await link.values([keys.heartbeat(instance) for instance in instances])
    beats: dict[str, ProberHeartbeat] = {}
    for instance, value in zip(instances, found.values, strict=True):
        if value is None:
            continue
        try:
            beats[instance] = decode_heartbeat(value)
        except WireError:
            continue
    return beats


async def read_lives(
    link: BusLink, keys: Keys, replica_ids: Iterable[ReplicaId]
) -> dict[ReplicaId, float]:
    """Return how many seconds each status has left to live; absent ones are left out."""
    lives: dict[ReplicaId, float] = {}
    for chunk in chunks(list(replica_ids)):
        batch = link.batch()
        for replica_id in chunk:
            batch.add("PTTL", keys.status(replica_id))
        for replica_id, left_ms in zip(chunk, await link.read(batch), strict=True):
            if left_ms >= 0:
                lives[replica_id] = left_ms / 1000
    return lives
