"""Ages and cadences of all checks, found a few checks at a time.

Called by the ticker at every tick and read at scrape time: a walk over 100,000 checks at once
would hold the loop for 35 ms. One round looks at every check; what a scrape sees is of the last
whole round. Pure.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final, Protocol

from probe.schedule.watch import REMOVED, Check

CHECKS_PER_LOOK: Final = 50
"""20 us in every tick of 10 ms: 5,000 checks a second, 100,000 of them in 20 s."""
LOOKS_PER_ROUND_MIN: Final = 20
"""A small fleet need not be looked at more often than five times a second."""


class Checks(Protocol):
    """Where the checks are."""

    def slices(self) -> Iterator[list[Check]]:
        """Yield all checks in parts; what there is may change between two of them."""


@dataclass(slots=True)
class Ages:
    """The checks of one deployment."""

    oldest_s: float = 0.0
    """Since the probe that ended longest ago; of one never probed, since it should have begun."""
    overdue: int = 0
    """Checks without a result for two intervals and a timeout (R-65)."""


@dataclass(slots=True)
class Round:
    """What one round found."""

    ages: dict[str, Ages] = field(default_factory=dict)
    """By deployment."""
    cadences: set[tuple[float, float]] = field(default_factory=set)
    """Intervals and timeouts that there are."""


class Census:
    """See the module."""

    def __init__(self, checks: Checks) -> None:
        self.last = Round()
        """The last whole round."""
        self._checks = checks
        self._next = Round()
        self._left: Iterator[Check] = iter(())
        self._looks = 0

    def look(self, now: float, *, stretch: float = 1.0) -> None:
        """Look at the next few checks, whose intervals are stretched by so much."""
        self._looks += 1
        some = list(islice(self._left, CHECKS_PER_LOOK))
        if some:
            self._take(some, now, stretch)
        elif self._looks >= LOOKS_PER_ROUND_MIN:
            self.last, self._next, self._looks = self._next, Round(), 0
            self._left = chain.from_iterable(self._checks.slices())

    def _take(self, checks: Iterable[Check], now: float, stretch: float) -> None:
        ages, cadences = self._next.ages, self._next.cadences
        for check in checks:
            if check.hold & REMOVED:
                continue
            interval_s, deployment = check.interval_s, check.target.deployment
            cadences.add((interval_s, check.timeout_s))
            age_s = now - (check.ended_at or check.due_at)
            of = ages.get(deployment)
            if of is None:
                of = ages[deployment] = Ages()
            if age_s > of.oldest_s:  # noqa: PLR1730 - `max` costs three times as much
                of.oldest_s = age_s
            if age_s > interval_s and age_s > _due_within_s(check, stretch):
                of.overdue += 1


def _due_within_s(check: Check, stretch: float) -> float:
    """Return two intervals and a timeout, with intervals as they are now."""
    return 2 * check.interval_s * check.spacing * stretch + check.timeout_s
