"""What one probe found, and what a run of them means.

Pure: called by the scheduler with values, never with a clock. A failing probe never improves a
verdict, and the prober's own faults move no counter (R-02, S1).
"""

from enum import StrEnum
from typing import Final

import msgspec

from probe.wire import REASONS, OutcomeKind, Reason

_PASSED: Final = OutcomeKind.PASSED
_PROBE_ERROR: Final = OutcomeKind.PROBE_ERROR


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The result of one probe. Durations are seconds; 0 where a phase did not happen."""

    kind: OutcomeKind
    reason: Reason
    http_status: int = 0
    detail: str = ""
    connect_s: float = 0.0
    first_byte_s: float = 0.0
    total_s: float = 0.0
    resolve_s: float = 0.0
    tls_s: float = 0.0


def ended(
    reason: Reason,
    *,
    detail: str = "",
    http_status: int = 0,
    connect_s: float = 0.0,
    first_byte_s: float = 0.0,
    total_s: float = 0.0,
    resolve_s: float = 0.0,
    tls_s: float = 0.0,
) -> Outcome:
    """Build the outcome of `reason`; its kind comes from the reason table alone.

    >>> ended(Reason.LOCAL_FDS).kind
    <OutcomeKind.PROBE_ERROR: 'probe_error'>
    """
    return Outcome(
        REASONS[reason].kind,
        reason,
        http_status,
        detail,
        connect_s,
        first_byte_s,
        total_s,
        resolve_s,
        tls_s,
    )


class Transition(StrEnum):
    """A change of the verdict."""

    UP = "up"
    """Not healthy before, healthy now."""
    DOWN = "down"
    """Healthy before, not healthy now."""


class Streak(msgspec.Struct, frozen=True, gc=False):
    """The verdict on one replica and the run of equal results that leads to the next one."""

    healthy: bool
    consecutive_failures: int
    consecutive_successes: int


UNKNOWN: Final = Streak(healthy=False, consecutive_failures=0, consecutive_successes=0)
"""Never probed: not healthy, and no evidence against it either."""


def observe(
    streak: Streak,
    outcome: Outcome,
    *,
    healthy_threshold: int,
    max_retries: int,
    damped: bool = False,
) -> tuple[Streak, Transition | None]:
    """Return the streak after one more outcome, and the change of verdict if there is one.

    Inside the retry budget the previous verdict stays, and a prober's fault returns the very
    same streak. A `damped` target does not become healthy, however often it passes.

    >>> up = Streak(healthy=True, consecutive_failures=1, consecutive_successes=0)
    >>> observe(up, ended(Reason.CONNECT_REFUSED), healthy_threshold=1, max_retries=3)[1]
    >>> observe(up, ended(Reason.CONNECT_REFUSED), healthy_threshold=1, max_retries=2)[1]
    <Transition.DOWN: 'down'>
    """
    kind = outcome.kind
    if kind is _PASSED:
        successes = streak.consecutive_successes + 1
        if streak.healthy:
            return Streak(True, 0, successes), None  # noqa: FBT003 - keywords cost 60 ns here
        healthy = successes >= healthy_threshold and not damped
        return Streak(healthy, 0, successes), Transition.UP if healthy else None
    if kind is _PROBE_ERROR:
        return streak, None
    failures = streak.consecutive_failures + 1
    healthy = streak.healthy and failures < max_retries
    return Streak(healthy, failures, 0), Transition.DOWN if streak.healthy > healthy else None


def at_stake(streak: Streak, *, healthy_threshold: int) -> bool:
    """Tell whether the next few probes may change the verdict.

    >>> at_stake(Streak(True, 1, 0), healthy_threshold=1)
    True
    >>> at_stake(Streak(False, 1, 0), healthy_threshold=3)
    False
    """
    if streak.healthy:
        return streak.consecutive_failures > 0
    return 0 < streak.consecutive_successes < healthy_threshold
