"""Which partitions to read again, and which of what was read to believe.

Pure but for its log; driven by the refresher with what the bus said, and by membership with what
to watch. Two rules: everything is read again in rotation, so that each second costs the same; and
a bus that lost its memory (S4) takes no target from us until it has had time to be filled again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import structlog

from probe.bus.prober import Poll
from probe.bus.targets import Rejected
from probe.errors import MalformedEntry, UnknownVersion, UnsupportedCheck, WireError
from probe.ledger import Ledger, bump
from probe.wire import (
    TARGET_TTL_S,
    ReplicaId,
    ReplicaProbeTarget,
    partitions_moved,
)

AMNESIA_GRACE_S: Final = 30.0
"""A controller fills an empty bus again within 5 s; a removal can wait for six of these."""
REJECTED_LOG_PERIOD_S: Final = 3600.0
REJECTED_LOG_MAX: Final = 10_000
"""Ids remembered as logged; beyond it a repeated line is the smaller evil."""

_LABELS: Final = {
    MalformedEntry: "malformed",
    UnknownVersion: "unknown_version",
    UnsupportedCheck: "unsupported_check",
}

_log = structlog.get_logger("probe.targets")

Admit = Callable[[ReplicaProbeTarget], object]
"""Raises `WireError` if a target asks for what this prober cannot do."""


class Refresh:
    """What is known of the partitions owned, and what is to be read next."""

    def __init__(
        self,
        partitions: Iterable[int],
        *,
        polls_per_round: float,
        admit: Admit,
        ledger: Ledger,
    ) -> None:
        self.partitions = tuple(partitions)
        """What is owned; partitions of adopted targets are not."""
        self._polls_per_round = max(1.0, polls_per_round)
        self._polls = 0
        self._admit = admit
        self._ledger = ledger
        self._adopted: dict[int, frozenset[ReplicaId]] = {}
        self._again: set[int] = set()
        self._doubted: set[int] = set()
        self._epoch: str | None = None
        self._versions: dict[int, int] = {}
        self._content: dict[int, dict[ReplicaId, ReplicaProbeTarget]] = {}
        self._amnesia_at: dict[int, float] = {}
        self._logged: dict[str, float] = {}

    @property
    def covered(self) -> tuple[int, ...]:
        """The partitions owned that were read, and are not in doubt: what may be relied on."""
        unread = self._unread()
        return tuple(p for p in self.partitions if p not in unread)

    @property
    def doubts(self) -> bool:
        """Whether something is to be read anew before anything known of it may be written."""
        return bool(self._doubted)

    def own(self, partitions: Collection[int]) -> list[int]:
        """Own just these from now on; return what is given up, for the sweep to drop.

        What is gained is read at the next step, with its statuses, so that streaks survive.
        """
        given_up = [p for p in self.partitions if p not in partitions]
        for partition in partitions:
            if self._adopted.pop(partition, None):  # some of it is watched; now all of it
                self._again.add(partition)
        self.partitions = tuple(sorted(partitions))
        for partition in given_up:
            self._forget(partition)
        return given_up

    def adopt(self, partition: int, replica_ids: frozenset[ReplicaId]) -> bool:
        """Watch just these targets of a partition that another prober owns and neglects.

        Returns whether the partition is given up: for the sweep to drop.
        """
        if self.adopted(partition) == replica_ids:
            return False
        if not replica_ids:
            self._forget(partition)
            return True
        self._adopted[partition] = replica_ids
        self._again.add(partition)
        return False

    @property
    def adoptions(self) -> tuple[int, ...]:
        """The partitions some of whose targets are adopted."""
        return tuple(self._adopted)

    def adopted(self, partition: int) -> frozenset[ReplicaId]:
        """Return which targets of a partition are watched in another prober's stead."""
        return self._adopted.get(partition, frozenset())

    def doubt(self) -> None:
        """Believe nothing of what is known: read it again, targets and streaks."""
        self._doubted = {*self.partitions, *self._adopted}

    def doubted(self, partition: int) -> bool:
        """Tell whether what is known of a partition may be old."""
        return partition in self._doubted

    def believed(self, partition: int) -> Mapping[ReplicaId, ReplicaProbeTarget]:
        """Return what is under watch of a partition already, and not in doubt."""
        return {} if partition in self._doubted else self._content.get(partition, {})

    def wanted(self, poll: Poll, now: float) -> list[int]:
        """Return the partitions to read now: those never read or moved, and the next in turn."""
        self._notice_amnesia(poll, now)
        watched = {*self.partitions, *self._adopted}
        moved = partitions_moved(self._versions, poll.versions, watched)
        return sorted({*self._unread(), *moved, *self._next_in_turn()})

    def reject(self, entries: Iterable[Rejected], now: float) -> None:
        """Count and log what cannot even be read."""
        for entry in entries:
            self._reject(entry.replica_id, entry.error, now)

    def news(self, partition: int, targets: Iterable[ReplicaProbeTarget]) -> list[ReplicaId]:
        """Return which of these targets of a partition are ours to watch, and new to us."""
        believed = self.believed(partition)
        only = None if partition in self.partitions else self.adopted(partition)
        return [
            target.replica_id
            for target in targets
            if target.replica_id not in believed
            if only is None or target.replica_id in only
        ]

    def admitted(
        self, partition: int, targets: Iterable[ReplicaProbeTarget], now: float
    ) -> list[ReplicaProbeTarget]:
        """Return which of these targets of a partition to watch; the rest is counted and logged."""
        known = self._content.get(partition, {})
        only = None if partition in self.partitions else self.adopted(partition)
        return [
            target
            for target in targets
            if only is None or target.replica_id in only
            if known.get(target.replica_id) == target or self._admits(target, now)
        ]

    def content(
        self, partition: int, admitted: Sequence[ReplicaProbeTarget], now: float
    ) -> Sequence[ReplicaProbeTarget]:
        """Return what to watch of a partition: what was admitted, and what a bus forgot."""
        content = {target.replica_id: target for target in admitted}
        if self._forgetful(partition, now):
            content = {**self._content.get(partition, {}), **content}
        return list(content.values())

    def took(self, partition: int, content: Sequence[ReplicaProbeTarget], poll: Poll) -> None:
        """Note what the sweep now watches, and the version it was read at."""
        self._content[partition] = {target.replica_id: target for target in content}
        self._again.discard(partition)
        self._doubted.discard(partition)
        version = poll.versions.get(partition)
        if version is not None:
            self._versions[partition] = version

    def _unread(self) -> set[int]:
        """Return what was never read, or is to be read again as a whole."""
        watched = {*self.partitions, *self._adopted}
        return {p for p in watched if p not in self._content} | self._again | self._doubted

    def _forget(self, partition: int) -> None:
        for known in (self._content, self._versions, self._amnesia_at, self._adopted):
            known.pop(partition, None)
        self._again.discard(partition)
        self._doubted.discard(partition)

    def _next_in_turn(self) -> Iterator[int]:
        """Yield this poll's share of a round: with 120 polls, none for almost every other one."""
        count = len(self.partitions)
        first = int(self._polls * count / self._polls_per_round)
        self._polls += 1
        for place in range(first, int(self._polls * count / self._polls_per_round)):
            yield self.partitions[place % count]

    def _notice_amnesia(self, poll: Poll, now: float) -> None:
        lost = self._epoch is not None and poll.epoch != self._epoch
        back = any(poll.versions.get(p, -1) < known for p, known in self._versions.items())
        if lost or back:
            _log.warning("bus_lost_memory", targets=sum(map(len, self._content.values())))
            self._versions.clear()
            self._amnesia_at = dict.fromkeys(self._content, now)
        self._epoch = poll.epoch

    def _forgetful(self, partition: int, now: float) -> bool:
        """Tell whether an absent target means nothing yet.

        It means something again once the partition was written to and the grace is over; one
        that nobody ever writes to again is given up when its targets would have expired.
        """
        since = self._amnesia_at.get(partition)
        if since is None:
            return False
        written = partition in self._versions
        if now - since > (AMNESIA_GRACE_S if written else TARGET_TTL_S):
            del self._amnesia_at[partition]
            return False
        return True

    def _admits(self, target: ReplicaProbeTarget, now: float) -> bool:
        try:
            self._admit(target)
        except WireError as error:
            self._reject(target.replica_id, error, now)
            return False
        return True

    def _reject(self, replica_id: str, error: WireError, now: float) -> None:
        bump(self._ledger.rejected, _LABELS.get(type(error), "other"))
        if now < self._logged.get(replica_id, now):
            return
        if len(self._logged) >= REJECTED_LOG_MAX:
            self._logged.clear()
        self._logged[replica_id] = now + REJECTED_LOG_PERIOD_S
        _log.warning("target_rejected", replica=replica_id[:64], error=str(error)[:300])
