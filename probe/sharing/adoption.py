"""What another prober owns and does not look after: found in slow rotation, and taken over.

Asked by membership, one partition at each look: a prober that says it lives and yet probes
nothing, or not everything, is seen by the age of the statuses alone. Who does this for a
partition is its heir, so each target is adopted once.
"""

from collections.abc import Iterator
from itertools import cycle

import structlog

from probe.bus.prober import Poll
from probe.ownership import Shares
from probe.refresh import Refresh
from probe.stages import Prober
from probe.wire import ReplicaHealthStatus, ReplicaId, ReplicaProbeTarget, status_ttl_s

_log = structlog.get_logger("probe.sharing.adoption")


class Adoption:
    """Visits the partitions that this prober is heir to, one after the other."""

    def __init__(self, prober: Prober, refresh: Refresh) -> None:
        self._prober = prober
        self._refresh = refresh
        self._heirloom: frozenset[int] = frozenset()
        self._rounds: Iterator[int] = iter(())
        self._missing: dict[int, frozenset[ReplicaId]] = {}

    async def visit(self, shares: Shares, poll: Poll) -> None:
        """Look at the next partition; raises `BusError` with nothing changed."""
        heirloom = shares.heirloom(self._prober.instance).difference(self._refresh.partitions)
        if heirloom != self._heirloom:
            self._heirloom = heirloom
            self._rounds = cycle(sorted(heirloom))
            self._missing = {p: ids for p, ids in self._missing.items() if p in heirloom}
            for partition in self._refresh.adoptions:
                if partition not in heirloom:
                    self._adopt(partition, frozenset())
        if heirloom:
            await self._look_at(next(self._rounds), poll)

    def give_up(self) -> None:
        """Leave all that was adopted."""
        for partition in self._refresh.adoptions:
            self._adopt(partition, frozenset())

    async def _look_at(self, partition: int, poll: Poll) -> None:
        bus, life = self._prober.bus, self._prober.lifeline
        with life.operation("read_targets"):
            found = await bus.read_targets([partition], poll.time_s)
        targets = {target.replica_id: target for target in found.by_partition[partition]}
        with life.operation("read_statuses"):
            statuses = await bus.read_statuses(targets)
        doubtful = {
            replica_id: target
            for replica_id, target in targets.items()
            if _looks_old(target, statuses.get(replica_id), poll.time_s)
        }
        lives: dict[ReplicaId, float] = {}
        if doubtful:
            with life.operation("read_lives"):
                lives = await bus.read_lives(doubtful)
        missing = frozenset(doubtful.keys() - lives.keys())
        neglected = {
            replica_id
            for replica_id, left_s in lives.items()
            if 2 * left_s < status_ttl_s(doubtful[replica_id].interval_s)
        }
        me = self._prober.instance
        kept = {
            replica_id
            for replica_id in self._refresh.adopted(partition).intersection(targets)
            if (status := statuses.get(replica_id)) is None or status.prober == me
        }
        # A target just written has no status yet: only the second visit makes it neglected.
        neglected |= missing & self._missing.get(partition, frozenset())
        self._missing[partition] = missing
        self._adopt(partition, frozenset(neglected | kept))

    def _adopt(self, partition: int, replica_ids: frozenset[ReplicaId]) -> None:
        before = self._refresh.adopted(partition)
        if self._refresh.adopt(partition, replica_ids):
            self._prober.sweep.replace(partition, (), now=self._prober.clock())
        if replica_ids != before:
            _log.info(
                "targets_adopted", partition=partition, before=len(before), now=len(replica_ids)
            )


def _looks_old(
    target: ReplicaProbeTarget, status: ReplicaHealthStatus | None, bus_now_s: float
) -> bool:
    """Tell whether it is worth asking when the status was written: evidence alone is no proof.

    Where every probe ends in a fault of the prober's own the status is written, its evidence old.
    """
    ttl_s = status_ttl_s(target.interval_s)
    return status is None or 2 * (bus_now_s - status.last_check) > ttl_s
