"""Where in its interval each target is probed: an even spread from the hash of its id.

Pure: called by the scheduler when a target comes or goes, never on the hot path. A hash alone
leaves Poisson noise (2,000 targets at 10 s: the fullest 100 ms hold 2x the mean), so each id
hashes to a few candidate slots and takes the emptiest of them ("power of d choices", Azar et al.
1994): the fullest 100 ms stay below 1.3x the mean (R-61), also right after a restart.
"""

from collections.abc import Iterator
from typing import Final
from zlib import crc32

from probe.wire import ReplicaId

SLOTS_PER_S: Final = 100
"""A slot is 10 ms: the tick of the sweep, finer than anything a probe can tell."""

_HASH_RANGE: Final = 1 << 32
_MULTIPLIERS: Final = (1, 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35)
"""Odd 32-bit constants with well mixed bits (golden ratio, murmur3): four independent slots."""


def fraction_of(replica_id: ReplicaId) -> float:
    """Return the place of an id in [0, 1), the same on every machine.

    >>> round(fraction_of(ReplicaId("00000000-0000-4000-8000-000000000000")), 3)
    0.234
    """
    return crc32(replica_id.encode()) / _HASH_RANGE


def _candidates(replica_id: ReplicaId, slots: int) -> Iterator[int]:
    code = crc32(replica_id.encode())
    for multiplier in _MULTIPLIERS:
        yield (code * multiplier % _HASH_RANGE) * slots // _HASH_RANGE


class Spread:
    """How many targets start in each slot of each interval; O(1) a target, sparse."""

    __slots__ = ("_load",)

    def __init__(self) -> None:
        self._load: dict[float, dict[int, int]] = {}

    def take(self, replica_id: ReplicaId, interval_s: float) -> int:
        """Return the slot, 0 to the interval's last, that the id occupies from now on."""
        load = self._load.setdefault(interval_s, {})
        slots = max(1, int(interval_s * SLOTS_PER_S))
        slot = min(_candidates(replica_id, slots), key=lambda slot: load.get(slot, 0))
        load[slot] = load.get(slot, 0) + 1
        return slot

    def give(self, slot: int, interval_s: float) -> None:
        """Free one place that `take` returned."""
        load = self._load[interval_s]
        load[slot] -= 1
        if not load[slot]:
            del load[slot]
            if not load:
                del self._load[interval_s]
