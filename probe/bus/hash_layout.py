"""The bus of another system, so that we stand in for its observer: hashes instead of JSON.

Made by the daemon in place of `ProbeBus`, whose promises it keeps as far as the layout lets it:
there is no index and no version, so targets are found by SCAN, and no epoch, so an emptied bus
means that no target is left. Heartbeats are written all the same, for the probers to share the
work. Knows nothing of scheduling.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from probe.bus.batch import Batch, Parcel
from probe.bus.client import chunks, is_foreign, seconds, text
from probe.bus.connect import Client
from probe.bus.prober import Poll, ProbeBus
from probe.bus.targets import Rejected, Targets
from probe.bus.writes import Entries, WriteMode, read_entry
from probe.errors import MalformedEntry
from probe.reasons import OutcomeKind, Reason
from probe.wire import (
    HealthChange,
    Keys,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    partition_of,
)

SCAN_COUNT: Final = 1000
SCANS_PER_POLL: Final = 10
"""Keys looked at by one poll: 10,000, some 5 ms of the server's time."""
_TARGET: Final = ("replica_id", "health_path", "inference_port", "replica_host")
_STATUS: Final = ("healthy", "last_check", "consecutive_failures")
_GLOB: Final = re.compile(r"([*?\[\]\\])")
_LUA_HSET_EX: Final = """\
for i = 2, #ARGV, 5 do
  redis.call('HSET', ARGV[i], 'replica_id', ARGV[i + 1], 'healthy', ARGV[i + 2],
    'last_check', ARGV[i + 3], 'consecutive_failures', ARGV[i + 4])
  redis.call('EXPIRE', ARGV[i], ARGV[1])
end
return 1"""
"""A script happens all at once: no key of ours is ever without its time to live (R-64)."""


class _Written(msgspec.Struct):
    """What this layout keeps of a status."""

    replica_id: ReplicaId
    healthy: bool
    last_check: float
    consecutive_failures: int


_written_decoder = msgspec.json.Decoder(_Written)


class Census:
    """Which targets SCAN has found. One that it does not find in a whole turn is gone."""

    def __init__(self) -> None:
        self.cursor = 0
        self.turns = 0
        """How many times everything was looked at."""
        self.members: defaultdict[int, set[str]] = defaultdict(set)
        self.versions: defaultdict[int, int] = defaultdict(int)
        """Partition -> how often its members changed: what a controller would count for us."""
        self._seen: defaultdict[int, set[str]] = defaultdict(set)

    def take(self, cursor: int, members: Iterable[str]) -> None:
        """Take one answer of SCAN; cursor 0 ends the turn."""
        for member in members:
            partition = partition_of(ReplicaId(member))
            self._seen[partition].add(member)
            if member not in self.members[partition]:
                self.members[partition].add(member)
                self.versions[partition] += 1
        self.cursor = cursor
        if cursor == 0:
            self._end_turn()

    def _end_turn(self) -> None:
        self.turns += 1
        for partition, members in self.members.items():
            if members != self._seen[partition]:
                self.members[partition] = self._seen[partition]
                self.versions[partition] += 1
        self._seen = defaultdict(set)


class HashBus(ProbeBus):
    """A `ProbeBus` on the other layout."""

    def __init__(self, client: Client, keys: Keys | None = None, *, timeout_s: float = 5.0) -> None:
        super().__init__(client, keys, timeout_s=timeout_s)
        self._census = Census()
        self._known: dict[str, tuple[list[bytes | None], ReplicaProbeTarget]] = {}

    async def hello(self) -> WriteMode:
        """Find out that the bus answers; there is nothing to agree on.

        Raises:
            SettingsError: if the bus is a cluster.
        """
        self._link.refuse_if_cluster('bus_layout = "hash"')
        return await self._write_mode()

    async def poll(self) -> Poll:
        """Look at the next keys for targets; the first time at all of them."""
        census = self._census
        left = SCANS_PER_POLL
        while left > 0 or not census.turns:
            left -= 1
            await self._scan()
            if census.cursor == 0:
                break
        batch = self._link.batch()
        batch.add_words("TIME")
        (now,) = await self._link.read(batch)
        return Poll(versions=dict(census.versions), epoch=None, time_s=seconds(now))

    async def read_targets(self, partitions: Iterable[int], time_s: float) -> Targets:
        """Read every target of `partitions` that SCAN has found; one without a key is gone."""
        targets = Targets({partition: [] for partition in partitions})
        members = [
            (partition, member)
            for partition in targets.by_partition
            for member in sorted(self._census.members[partition])
        ]
        for chunk in chunks(members):
            names = [self._keys.target(ReplicaId(member)) for _, member in chunk]
            replies = await self._read_fields(names, _TARGET)
            for (partition, member), name, reply in zip(chunk, names, replies, strict=True):
                if reply is not None and not any(reply):
                    self._known.pop(member, None)
                    continue
                try:
                    target = self._target(member, reply)
                except MalformedEntry as error:
                    targets.rejected.append(Rejected(name, member, error))
                else:
                    targets.by_partition[partition].append(target)
        return targets

    async def read_statuses(
        self, replica_ids: Iterable[ReplicaId]
    ) -> dict[ReplicaId, ReplicaHealthStatus]:
        """Read what is known of `replica_ids`: the verdict, the failures and when."""
        found: dict[ReplicaId, ReplicaHealthStatus] = {}
        for chunk in chunks(list(dict.fromkeys(replica_ids))):
            names = [self._keys.status(replica_id) for replica_id in chunk]
            for replica_id, reply in zip(
                chunk, await self._read_fields(names, _STATUS), strict=True
            ):
                if reply is None:
                    self.rejected_statuses += 1
                elif any(reply):
                    try:
                        found[replica_id] = _status(replica_id, reply)
                    except (ValueError, TypeError):
                        self.rejected_statuses += 1
        return found

    async def write_statuses(self, build: Callable[[], Entries]) -> None:
        """Set the hashes of what `build` returns, each with its time to live, in one script."""
        await self._link.deliver_parcel(lambda: self._packed(build()))

    async def announce(self, changes: Sequence[HealthChange]) -> None:
        """Tell nobody: this layout has no stream, its reader looks at the statuses."""

    async def _scan(self) -> None:
        head = self._keys.target(ReplicaId(""))
        batch = self._link.batch()
        pattern = _GLOB.sub(r"\\\1", head) + "*"
        batch.add_words("SCAN", self._census.cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
        ((cursor, names),) = await self._link.read(batch)
        self._census.take(int(cursor), (text(name).removeprefix(head) for name in names))

    async def _read_fields(
        self, names: Sequence[str], fields: Sequence[str]
    ) -> list[list[bytes | None] | None]:
        """Read some fields of each hash; None for a key of another type."""
        batch = self._link.batch()
        for name in names:
            batch.add("HMGET", name, *fields)
        replies = [None if is_foreign(reply) else reply for reply in await self._link.ask(batch)]
        return self._link.accept(replies)

    def _target(self, member: str, fields: list[bytes | None] | None) -> ReplicaProbeTarget:
        """Make a target of its fields; one that is as it was stays the same object."""
        if fields is None:
            raise MalformedEntry("the probe target is not a hash")
        known = self._known.get(member)
        if known is not None and known[0] == fields:
            return known[1]
        values: Mapping[str, str] = {}
        with suppress(UnicodeDecodeError):
            values = {
                name: value.decode()
                for name, value in zip(_TARGET, fields, strict=True)
                if value is not None
            }
        try:
            target = msgspec.convert(values, ReplicaProbeTarget, strict=False)
        except msgspec.ValidationError as error:
            raise MalformedEntry(f"the probe target cannot be used: {error}") from error
        if target.replica_id != member:
            raise MalformedEntry(f"the probe target of {target.replica_id} has another's key")
        self._known[member] = (fields, target)
        return target

    def _packed(self, entries: Entries) -> Parcel:
        batch = Batch()
        for ttl_s, group in entries.items():
            for chunk in chunks(group):
                words: list[str] = []
                for packed in chunk:
                    key, value = read_entry(packed)
                    status = _written_decoder.decode(value)
                    words += (key, status.replica_id, "1" if status.healthy else "0")
                    words += (str(int(status.last_check)), str(status.consecutive_failures))
                batch.add_words("EVAL", _LUA_HSET_EX, 0, ttl_s, *words)
        return batch.packed()


def _status(replica_id: ReplicaId, fields: Sequence[bytes | None]) -> ReplicaHealthStatus:
    """Make of what the layout keeps what it says: no reason, and no run of passes but the last."""
    healthy, last_check, failures = (value or b"0" for value in fields)
    passed = healthy == b"1"
    return ReplicaHealthStatus(
        replica_id=replica_id,
        healthy=passed,
        outcome=OutcomeKind.PASSED if passed else OutcomeKind.FAILED,
        reason=Reason.OK if passed else Reason.STATUS_UNEXPECTED,
        consecutive_failures=int(failures),
        consecutive_successes=int(passed and int(failures) == 0),
        last_check=float(last_check),
    )
