"""How long a connection is kept between probes: learnt per target, bounded for all.

Pure; asked by the pool once per connection. Most inference servers close what idles for 5 s: at an
interval of 10 s a kept connection is never found open, and only costs both sides. A kept one must
not hide a replica that moved or accepts nobody new, so none carries more than so many probes, nor
lives for ever; neither ends for all targets at once.
"""

from dataclasses import dataclass
from typing import Final
from zlib import crc32

TRY_AGAIN_AFTER: Final = 100
"""Connections closed after one probe before one is kept again, to see: a server may have been
replaced by a more patient one, and to find out costs no more than another connection."""
AGE_JITTER: Final = 0.25
"""The youngest to go has lived for three quarters of the age: a fleet dialled in one second is
renewed over a quarter of it."""

_HASH_RANGE: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class KeepRule:
    """The bounds of every kept connection."""

    connection_age_s: float = 300.0
    """About: counted in probes at the target's interval, of which it may carry so many."""
    fresh_every: int = 250
    """One probe in so many finds no open connection; 1: every probe. A dial in a fleet that is
    otherwise kept finds every cache cold: 1 in 100 added a tenth to what all of them cost."""


class Keep:
    """What is known of one replica's patience; 80 bytes.

    >>> keep = Keep("6ba7b810-9dad-41d1-80b4-00c04fd430c8")
    >>> rule = KeepRule(fresh_every=10)
    >>> keep.probes(rule, interval_s=1.0), keep.probes(rule, interval_s=1.0)
    (2, 10)
    >>> keep.probes(rule, interval_s=100.0)
    2
    >>> keep.closed_early()
    >>> keep.probes(rule, interval_s=1.0)
    1
    """

    __slots__ = ("_met", "_share", "_unkept", "_worth")

    def __init__(self, replica_id: str) -> None:
        self._share = crc32(replica_id.encode()) / _HASH_RANGE
        self._met = False
        self._worth = True
        self._unkept = 0

    def __repr__(self) -> str:
        return f"Keep(worth={self._worth}, unkept={self._unkept})"

    def probes(self, rule: KeepRule, *, interval_s: float) -> int:
        """Return how many probes the connection about to be opened may carry, 1 or more.

        The first one's count is staggered, so that a fleet's forced fresh connections are spread
        evenly from then on.
        """
        if not self._worth:
            self._unkept += 1
            if self._unkept <= TRY_AGAIN_AFTER:
                return 1
            self._worth, self._unkept = True, 0
        age_s = rule.connection_age_s * (1 - AGE_JITTER * self._share)
        most = max(1, min(rule.fresh_every, int(age_s / interval_s)))
        if self._met:
            return most
        self._met = True
        return 1 + int(self._share * most)

    def closed_early(self) -> None:
        """Learn from a connection that was closed before it could carry a second probe.

        One that has carried two shows that the replica grants the interval; what ends it later is
        a restart, not impatience, and teaches nothing.
        """
        self._worth = False
        self._unkept = 0
