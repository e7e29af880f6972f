"""What judges the bus between looks: its memory, its probers, and when each status last moved.

The bus is a witness, not a record. Kept by the observer for one term of leadership; all times are
seconds of this process's monotonic clock. The rules themselves are `controller.route.guard`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from controller.bus import Evidence
from controller.model import Route, RouteId
from controller.route.guard import BusView, Case, StatusEvidence, second_source
from controller.route.guard.causes import PROBERS_WINDOW_S, lost_half
from controller.route.guard.evidence import NOTHING_SEEN
from probe.wire import PARTITIONS, ProberHeartbeat, ReplicaId

_NEVER: Final = float("-inf")
_NOBODY: Final[Mapping[RouteId, Case]] = {}


class Witness:
    """Turns what one look found into what may be believed of it."""

    def __init__(self) -> None:
        """Know nothing of any look before."""
        self.asked: dict[RouteId, ReplicaId] = {}
        """Under which second id routes are probed for a second opinion (S11)."""
        self.epoch: str | None = None
        self.looked_at_s = 0.0
        self._amnesia_at = _NEVER
        self._failed_looks = 0
        self._covered_since: dict[int, float] = {}
        self._moved: dict[ReplicaId, tuple[int, int, float]] = {}
        """Generation and seq of each status, and when they were first seen."""
        self._counts: list[tuple[float, int]] = []
        """How many probers lived, and until when so many did."""
        self._cases = _NOBODY

    def nothing(self) -> BusView:
        """Return what a look that found no bus tells: what was known before stays as it was."""
        self._failed_looks += 1
        self._covered_since.clear()
        return replace(NOTHING_SEEN, failed_looks=self._failed_looks, cases=self._cases)

    def forgot(self, evidence: Evidence, probed: Sequence[Route]) -> bool:
        """Tell whether the bus lost its memory since the look before, or half of it (S4)."""
        known = [r.id for r in probed if ReplicaId(r.id) in self._moved]
        gone = sum(
            ReplicaId(each) not in evidence.statuses and ReplicaId(each) not in evidence.unreadable
            for each in known
        )
        return self.epoch not in (None, evidence.epoch) or lost_half(len(known), gone=gone)

    def judge(
        self, evidence: Evidence, probed: Sequence[Route], *, now: float, forgot: bool
    ) -> BusView:
        """Return what may be believed of what the bus said."""
        self._failed_looks = 0
        self.looked_at_s = now
        self.epoch = evidence.epoch
        if forgot:
            self._amnesia_at = now
        trusted = {name: beat for name, beat in evidence.probers.items() if not beat.sick}
        found = self._ages(evidence, now)
        void = {
            key for key, each in found.items() if _is_sick(evidence.probers, each.status.prober)
        }
        statuses = {key: each for key, each in found.items() if key not in void}
        view = BusView(
            reachable=True,
            remembers_for_s=now - self._amnesia_at,
            covered_for_s=self._covered(trusted, now),
            statuses={RouteId(key): each for key, each in statuses.items()},
            unreadable=frozenset(map(RouteId, (*evidence.unreadable, *void))),
            clear_for_s=0.0,
            probers={name: frozenset(beat.partitions) for name, beat in trusted.items()},
            probers_max=self._most(len(trusted), now),
            second={r: statuses[twin] for r, twin in self.asked.items() if twin in statuses},
        )
        return self._with_cases(view, probed, now)

    def _with_cases(self, view: BusView, probed: Sequence[Route], now: float) -> BusView:
        failing = second_source.follow(self._cases, probed, view, now_s=now)
        self._cases = failing
        distrusted = second_source.distrusted(failing, probed, view)
        return replace(view, cases=failing, distrusted=distrusted)

    def _covered(self, trusted: Mapping[str, ProberHeartbeat], now: float) -> dict[int, float]:
        """Return for how long each partition has been covered by one who trusts itself (S7)."""
        covered = {p for prober in trusted.values() for p in prober.partitions}
        since = self._covered_since
        self._covered_since = {p: since.get(p, now) for p in covered if 0 <= p < PARTITIONS}
        return {p: now - at for p, at in self._covered_since.items()}

    def _most(self, living: int, now: float) -> int:
        """Return the most probers at once within the last 15 minutes (S8)."""
        kept = [entry for entry in self._counts if now - entry[0] <= PROBERS_WINDOW_S]
        if kept and kept[-1][1] == living:
            kept.pop()
        self._counts = [*kept, (now, living)]
        return max(count for _, count in self._counts)

    def _ages(self, evidence: Evidence, now: float) -> dict[ReplicaId, StatusEvidence]:
        """Tell how long ago each status last moved (S5); forget the ones that are gone.

        One that cannot be read now is not gone: it must not look fresh when it can be again.
        """
        known = self._moved
        moved = {each: known[each] for each in evidence.unreadable if each in known}
        statuses = {}
        for replica_id, status in evidence.statuses.items():
            seen = known.get(replica_id)
            if seen is None or (seen[0], seen[1]) != (status.generation, status.seq):
                seen = (status.generation, status.seq, now)
            moved[replica_id] = seen
            statuses[replica_id] = StatusEvidence(status=status, age_s=now - seen[2])
        self._moved = moved
        return statuses


def _is_sick(probers: Mapping[str, ProberHeartbeat], instance: str) -> bool:
    """Tell whether a prober lives and says that it does not trust itself (S7)."""
    beat = probers.get(instance)
    return beat is not None and bool(beat.sick)
