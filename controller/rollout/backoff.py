"""Not starting in vain: how long a deployment whose replicas end early waits for the next attempt.

Pure; called by check_replicas. Replicas that are made together are one attempt. A single early
end is an accident and is mended at once; a row of them is a crash loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FIRST_S: Final = 10.0
MAX_S: Final = 300.0
STABLE_S: Final = 600.0
"""A replica that lived so long did not end early."""
ROW_S: Final = STABLE_S + MAX_S
"""Attempts further apart than an early end and the longest wait are not of one row."""
WINDOW_S: Final = 7200.0
"""How far back the look goes: more than a row that leads to the longest wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A replica that ended by itself, or was given up before it was ready."""

    created_at_ms: int
    failed_at_ms: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOff:
    """No replica is made before `until_ms`."""

    attempts: int
    until_ms: int
    message: str


def back_off(failures: Sequence[Failure], *, now_ms: int) -> BackOff | None:
    """Return until when the next attempt waits; None: it need not.

    >>> lost = [Failure(created_at_ms=0, failed_at_ms=1_000, reason="exited with code 1")]
    >>> back_off(lost, now_ms=2_000) is None
    True
    >>> lost += [Failure(created_at_ms=1_500, failed_at_ms=2_000, reason="exited with code 1")]
    >>> back_off(lost, now_ms=3_000).message
    '2 attempts in a row ended early, the next in 9 s; the last: exited with code 1'
    """
    early = [f for f in failures if f.failed_at_ms - f.created_at_ms < STABLE_S * 1000]
    row = _newest_row(early, now_ms=now_ms)
    attempts = len({failure.created_at_ms for failure in row})
    if attempts <= 1:
        return None
    wait_s = min(MAX_S, FIRST_S * 2.0 ** (attempts - 2))
    until_ms = row[-1].failed_at_ms + int(wait_s * 1000)
    if now_ms >= until_ms:
        return None
    return BackOff(
        attempts=attempts,
        until_ms=until_ms,
        message=f"{attempts} attempts in a row ended early, the next in "
        f"{(until_ms - now_ms) / 1000:.0f} s; the last: {row[-1].reason}",
    )


def _newest_row(failures: Sequence[Failure], *, now_ms: int) -> list[Failure]:
    """Return the failures that followed each other up to now, oldest first."""
    row: list[Failure] = []
    next_ms = now_ms
    for failure in sorted(failures, key=lambda one: one.failed_at_ms, reverse=True):
        if next_ms - failure.failed_at_ms > ROW_S * 1000:
            break
        row.append(failure)
        next_ms = failure.failed_at_ms
    return row[::-1]
