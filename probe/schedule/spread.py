"""Where in its interval each target is probed: an even spread from the hash of its id.

Pure: called by the scheduler when a target comes or goes, never on the hot path. A hash alone
leaves Poisson noise: of 2,000 targets at 10 s the fullest 100 ms hold 2.05x the mean. So each id
hashes to a few slots and takes the least crowded ("power of d choices", Azar et al. 1994).
"""

from typing import Final
from zlib import crc32

from probe.wire import ReplicaId

SLOTS_PER_S: Final = 100
"""A slot is 10 ms: the tick of the sweep, finer than anything a probe can tell."""

CHOICES: Final = 12
"""Fullest 100 ms of 2,000 targets at 10 s, worst of 120 fleets: 6 choices 1.3x, 12 1.25x."""

_WINDOW: Final = 10
_SHARED: Final = tuple((apart, _WINDOW - abs(apart)) for apart in range(1 - _WINDOW, _WINDOW))
"""Two starts so many slots apart fall together into so many of the windows of 100 ms."""

_HASH_BITS: Final = 32
_HASH_MAX: Final = (1 << _HASH_BITS) - 1


class Spread:
    """How crowded the 100 ms around each slot of each interval are; sparse, 4 us a target.

    >>> spread = Spread()
    >>> first, second = (spread.take(ReplicaId("the same id"), 10.0) for _ in range(2))
    >>> abs(first - second) > 9
    True
    """

    __slots__ = ("_crowding",)

    def __init__(self) -> None:
        self._crowding: dict[float, dict[int, int]] = {}

    def take(self, replica_id: ReplicaId, interval_s: float) -> int:
        """Return the slot, 0 to the interval's last, that the id occupies from now on."""
        crowding = self._crowding.setdefault(interval_s, {})
        slots, known = int(interval_s * SLOTS_PER_S), crowding.get
        slot = least = -1
        code = crc32(replica_id.encode())
        for _ in range(CHOICES):
            choice = code * slots >> _HASH_BITS
            crowd = known(choice, 0)
            if crowd < least or least < 0:
                slot, least = choice, crowd
                if not crowd:
                    break
            code = code * 0x9E3779B1 + 0x7F4A7C15 & _HASH_MAX  # a full-period generator's step
        for apart, windows in _SHARED:
            near = (slot + apart) % slots
            crowding[near] = known(near, 0) + windows
        return slot

    def give(self, slot: int, interval_s: float) -> None:
        """Free one place that `take` returned."""
        crowding = self._crowding[interval_s]
        slots = int(interval_s * SLOTS_PER_S)
        for apart, windows in _SHARED:
            near = (slot + apart) % slots
            crowding[near] -= windows
            if not crowding[near]:
                del crowding[near]
        if not crowding:
            del self._crowding[interval_s]
