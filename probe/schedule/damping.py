"""Flap damping: a verdict that changes too often stays down until it has calmed down.

Pure: asked by the scheduler at each change of a verdict. As routers do it with routes (RFC 2439):
each change adds 1 to a penalty that halves every so often; a verdict that goes down with too much
of it stays down until the penalty has decayed. Damping only ever keeps a target from becoming
healthy, it takes nobody's health away (R-02).
"""

from dataclasses import dataclass
from functools import lru_cache
from math import exp2, inf, log2
from typing import Final, NamedTuple

TOLD_MAX: Final = 1024
"""Sentences remembered: a fleet that flaps says the same ones all the time."""


class Flaps(NamedTuple):
    """The penalty of one target, as of `at`; it is damped until `until`. Monotonic seconds."""

    penalty: float
    at: float
    until: float


@dataclass(frozen=True, slots=True)
class Damping:
    """What an operator may set; `suppress` 0 turns damping off.

    With the defaults the third fall within some minutes is one too many: a rollout's restart, or
    a replica that fails twice, is not damped.
    """

    half_life_s: float = 300.0
    suppress: float = 4.0
    reuse: float = 2.0
    max_s: float = 900.0

    def penalty(self, flaps: Flaps, now: float) -> float:
        """Return what is left of a penalty.

        >>> Damping().penalty(Flaps(4.0, at=0.0, until=0.0), 600.0)
        1.0
        """
        return flaps.penalty * exp2((flaps.at - now) / self.half_life_s)

    def changed(self, flaps: Flaps | None, now: float, *, healthy: bool) -> Flaps | None:
        """Return the penalty after one more change of the verdict, to `healthy`.

        >>> third_fall = Damping().changed(Flaps(4.0, 0.0, 0.0), 0.0, healthy=False)
        >>> third_fall.penalty, round(third_fall.until)
        (5.0, 397)
        """
        if not self.suppress:
            return None
        penalty = 1.0 if flaps is None else 1.0 + self.penalty(flaps, now)
        if healthy or penalty < self.suppress:
            return Flaps(penalty, now, -inf)
        return Flaps(penalty, now, now + self._wait_s(penalty))

    def _wait_s(self, penalty: float) -> float:
        return min(self.half_life_s * log2(penalty / self.reuse), self.max_s)


def told(detail: str, flaps: Flaps, at: float) -> str:
    """Add to what a probe found that its target is damped, and for how long, by tens of seconds.

    In few words: of a fleet that flaps every status carries them (P10).

    >>> told("", Flaps(4.0, at=0.0, until=300.0), 8.0)
    'damped for 290 s more'
    """
    tens = int((flaps.until - at) / 10 + 0.5)
    return _told(detail, 10 * tens if tens > 0 else 10)


@lru_cache(TOLD_MAX)
def _told(detail: str, left_s: int) -> str:
    note = f"damped for {left_s} s more"
    return f"{detail}; {note}" if detail else note
