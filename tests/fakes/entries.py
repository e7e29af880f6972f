"""Targets, statuses and ids for tests: the same for the same number."""

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from probe.bus.writes import Entries, Entry, entry
from probe.reasons import OutcomeKind, Reason
from probe.wire import (
    ProberHeartbeat,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    partition_of,
)

_TARGET = {"replica_host": "127.0.0.1", "inference_port": 8000, "health_path": "/health"}
_STATUS = {"healthy": True, "outcome": OutcomeKind.PASSED, "reason": Reason.OK, "seq": 1}
BEAT = ProberHeartbeat(
    instance="p-1",
    partitions=(0,),
    targets=1,
    probes_per_second=1.0,
    loop_lag_ms=0.0,
    version="1",
    started_at=1.0,
    at=0.0,
)


def replica(number: int) -> ReplicaId:
    return ReplicaId(str(uuid.UUID(int=number + (4 << 76) + (8 << 60))))


def replicas_in(partition: int, count: int) -> list[ReplicaId]:
    """Return the first `count` replicas that fall into `partition`."""
    found: list[ReplicaId] = []
    number = 0
    while len(found) < count:
        if partition_of(replica(number)) == partition:
            found.append(replica(number))
        number += 1
    return found


def target(number: int = 1, **fields: Any) -> ReplicaProbeTarget:  # noqa: ANN401 - any field of it
    values: dict[str, Any] = {"replica_id": replica(number), **_TARGET, **fields}
    return ReplicaProbeTarget(**values)


def status(number: int = 1, **fields: Any) -> ReplicaHealthStatus:  # noqa: ANN401 - any field of it
    values: dict[str, Any] = {"replica_id": replica(number), **_STATUS, **fields}
    return ReplicaHealthStatus(**values)


def writing(items: Iterable[tuple[str, bytes, int]]) -> Callable[[], Entries]:
    """Return what `write_statuses` takes to set each key to its value, for so many seconds."""
    entries: defaultdict[int, list[Entry]] = defaultdict(list)
    for key, value, ttl_s in items:
        entries[ttl_s].append(entry(key, value.decode()))
    return lambda: entries
