"""Who watches which partition: rendezvous hashing with equal shares, from the members alone.

Pure; asked by the membership stage, and by whoever splits work by hand (`--shard`). Probers that
see the same members agree without a word: each partition has one owner, no member has more than
ceil(partitions / members), and a member that comes or goes moves little more than its own share.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import shake_256
from typing import Final, NamedTuple, Self

from probe.errors import SettingsError
from probe.wire import PARTITIONS

_FORM: Final = re.compile(r"\A(?P<index>[1-9][0-9]?)/(?P<count>[1-9][0-9]?)\Z")
_WEIGHT_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Shard:
    """A fixed share: the `index`-th of `count`, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read I/N.

        >>> Shard.parse("2/4")
        Shard(index=2, count=4)

        Raises:
            SettingsError: if it is not of that form, or I or N is out of range.
        """
        found = _FORM.match(text)
        shard = cls(int(found["index"]), int(found["count"])) if found else cls(1, 0)
        if not shard.index <= shard.count <= PARTITIONS:
            raise SettingsError(
                f"the shard {text!r} is not I/N with 1 <= I <= N <= {PARTITIONS}; "
                "write for example 1/4"
            )
        return shard

    def partitions(self) -> frozenset[int]:
        """Return what belongs to it; the shards of one count are disjoint and cover everything.

        >>> sorted(Shard(2, 20).partitions())
        [1, 21, 41, 61]
        """
        return frozenset(range(self.index - 1, PARTITIONS, self.count))

    def split(self, ways: int) -> tuple["Shard", ...]:
        """Return the shards that together are this one.

        >>> Shard(2, 4).split(2)
        (Shard(index=2, count=8), Shard(index=6, count=8))

        Raises:
            SettingsError: if a part would be without a partition.
        """
        count = self.count * ways
        if count > PARTITIONS:
            raise SettingsError(
                f"{self.count} shards of {ways} workers are {count} parts, but there are only "
                f"{PARTITIONS} partitions: use fewer workers"
            )
        return tuple(Shard(self.index + self.count * way, count) for way in range(ways))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class Shares(NamedTuple):
    """Who watches each partition, and who steps in where the owner does not."""

    owners: Mapping[int, str]
    heirs: Mapping[int, str]
    """The next-ranked member of each partition; nobody where there is only one member."""

    def of(self, member: str) -> frozenset[int]:
        """Return what a member owns."""
        return frozenset(p for p, owner in self.owners.items() if owner == member)

    def heirloom(self, member: str) -> frozenset[int]:
        """Return what a member would take over."""
        return frozenset(p for p, heir in self.heirs.items() if heir == member)


def share_out(members: Collection[str]) -> Shares:
    """Share all partitions out; O(partitions x members x log) for members in any order.

    The heaviest pair of member and partition is served first, while the member has room: what
    this does to one partition changes others only where a share was full.
    """
    distinct = set(members)
    room = dict.fromkeys(distinct, -(-PARTITIONS // max(1, len(distinct))))
    pairs = sorted(
        ((weight, member, p) for member in room for p, weight in enumerate(_weights(member))),
        reverse=True,
    )
    owners: dict[int, str] = {}
    for _, member, partition in pairs:
        if partition not in owners and room[member]:
            owners[partition] = member
            room[member] -= 1
    heirs: dict[int, str] = {}
    for _, member, partition in pairs:
        if owners[partition] != member:
            heirs.setdefault(partition, member)
    return Shares(owners, heirs)


def owned(instance: str, members: Collection[str], *, shard: Shard | None = None) -> frozenset[int]:
    """Return what `instance` has to watch; a shard is fixed, whoever else there is.

    >>> len(owned("a", {"a", "b"})), len(owned("a", {"b"}))
    (32, 0)
    >>> owned("a", {"a", "b"}, shard=Shard(1, 64))
    frozenset({0})
    """
    return shard.partitions() if shard is not None else share_out(members).of(instance)


def _weights(member: str) -> list[int]:
    """Return how much a member wants each partition: even, and independent of the others."""
    digest = shake_256(member.encode()).digest(_WEIGHT_BYTES * PARTITIONS)
    return [
        int.from_bytes(digest[start : start + _WEIGHT_BYTES])
        for start in range(0, len(digest), _WEIGHT_BYTES)
    ]
