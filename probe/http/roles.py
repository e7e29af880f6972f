"""Who the pool works with, and what it expects of them.

Written by what the pool calls, so that tests and other wires can stand in.
"""

from collections.abc import Callable
from typing import Literal, Protocol

from probe.health import Outcome
from probe.http.names import Resolved
from probe.http.request import Prepared, Step
from probe.http.response import Reply
from probe.reasons import Reason
from probe.schedule.scheduler import Check
from probe.wire import ReplicaProbeTarget, StatusSet

Phase = Literal["resolve", "connect", "tls", "reply"]
"""What a deadline finds a probe doing."""


def nobody(check: Check, outcome: Outcome, /) -> None:
    """Stand for the sweep until there is one."""
    raise RuntimeError(f"{check} ended with {outcome.reason} before the wire was given its sweep")


class Judge(Protocol):
    """What replies and failures mean. Durations are seconds."""

    def admit(self, target: ReplicaProbeTarget, /) -> Prepared:
        """Prepare the target. Raises `WireError` if it cannot be probed."""

    def replied(
        self,
        step: Step,
        reply: Reply,
        /,
        *,
        connect_s: float,
        first_byte_s: float,
        total_s: float,
        resolve_s: float = 0.0,
        tls_s: float = 0.0,
    ) -> Outcome:
        """Judge a reply, or what came instead of one."""

    def answered(self, expected: StatusSet, reply: Reply, total_s: float, /) -> Outcome:
        """Judge a whole reply on a kept connection, by its status alone."""

    def connected(
        self,
        *,
        connect_s: float,
        total_s: float,
        resolve_s: float = 0.0,
        tls_s: float = 0.0,
    ) -> Outcome:
        """Judge a connection where it is all that is asked for."""

    def broke(
        self,
        error: BaseException,
        /,
        *,
        connect_s: float,
        total_s: float,
        resolve_s: float = 0.0,
        tls_s: float = 0.0,
    ) -> Outcome:
        """Judge a failure of the dial or the handshake, or of an open connection."""

    def unresolved(self, fault: Reason, detail: str, /, *, total_s: float) -> Outcome:
        """Judge a name without an address to dial."""

    def late(self, *, phase: Phase, received: int, limit_s: float) -> Outcome:
        """Judge a deadline that passed after `received` bytes of an incomplete reply."""

    def denied(self, why: str, /) -> Outcome:
        """Judge a target that must not be dialled."""

    def crowded(self, max_open: int, /) -> Outcome:
        """Judge a probe for which there was no connection left."""


class Resolver(Protocol):
    """Who knows the addresses of names."""

    def resolve(self, name: str, port: int, then: Callable[[Resolved], None], /) -> Resolved | None:
        """Return what is known, or None and call `then` once, later."""


class Detour(Protocol):
    """Another wire, for what is not HTTP/1.1 on a connection of ours; as `probe.sweep.Wire`."""

    done: Callable[[Check, Outcome], None]

    @property
    def open_connections(self) -> int:
        """How many connections are open."""

    def start(self, check: Check, now: float) -> None:
        """Begin one probe."""

    def expire(self, check: Check, now: float) -> float | None:
        """Judge a probe whose deadline passed."""

    def cancel(self, check: Check) -> None:
        """End the probe in flight without an outcome."""

    def forget(self, check: Check) -> None:
        """Close what is held for the check."""

    def close(self) -> None:
        """Close everything."""
