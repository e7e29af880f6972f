"""The wire of the sweep: one kept connection per target at most, and a bound on all of them.

Called by the sweep with plain calls; tells it how each probe ended by `done`. A dial is one
tracked task; a probe on a kept connection is none. A kept connection that turns out closed is
retried once on a fresh one, because replicas close idle connections at moments of their own.
What replies and failures mean, it asks its judge (`probe.check`).
"""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache, partial
from time import monotonic
from typing import Final, Literal, Protocol

from probe.errors import WireError
from probe.health import Outcome
from probe.http import response
from probe.http.connection import Connection, Dial, State
from probe.http.request import Prepared, Step
from probe.http.response import NOT_A_BYTE, Reply
from probe.scheduler import Check
from probe.wire import Reason, ReplicaProbeTarget

REPLIES_REMEMBERED: Final = 512
"""At most 2 KiB each: 1 MiB for all. One deployment needs one or two per second."""

_IDLE: Final = State.IDLE
_CLOSED: Final = State.CLOSED
_DIALLING: Final = State.DIALLING


Phase = Literal["resolve", "connect", "tls", "reply"]
"""What a deadline finds a probe doing."""


class ConnectionEvent(StrEnum):
    """What happens to connections: a closed set, safe as a metric label."""

    OPENED = "opened"
    """A dial succeeded or is under way."""
    RETRIED = "retried"
    """A kept connection turned out closed, and the probe began again on a fresh one."""
    IDLED_OUT = "idled_out"
    """The replica closed a kept connection between two probes, or spoke unasked."""
    DROPPED = "dropped"
    """We closed it: reply not cleanly complete, not kept by the replica, late, or no room."""


class Judge(Protocol):
    """What replies and failures mean. Durations are seconds."""

    def admit(self, target: ReplicaProbeTarget, /) -> Prepared:
        """Prepare the target. Raises `WireError` if it cannot be probed."""

    def replied(
        self,
        check: Check,
        step: Step,
        reply: Reply,
        /,
        *,
        connect_s: float,
        first_byte_s: float,
        total_s: float,
    ) -> Outcome:
        """Judge a reply, or what came instead of one."""

    def broke(self, error: BaseException, /, *, connect_s: float, total_s: float) -> Outcome:
        """Judge a failure of the dial, or of an open connection."""

    def unresolved(self, fault: Reason, detail: str, /, *, total_s: float) -> Outcome:
        """Judge a name without an address to dial."""

    def late(self, *, phase: Phase, received: int, limit_s: float) -> Outcome:
        """Judge a deadline that passed after `received` bytes of an incomplete reply."""

    def denied(self, why: str, /) -> Outcome:
        """Judge a target that must not be dialled."""

    def crowded(self, max_open: int, /) -> Outcome:
        """Judge a probe for which there was no connection left."""


def _nobody(check: Check, outcome: Outcome, /) -> None:
    raise RuntimeError(f"{check} ended with {outcome.reason} before the wire was given its sweep")


class HttpPool:
    """Implements `probe.sweep.Wire`. Must be made and used on one event loop.

    At most `max_open` connections exist, and of these at most `max_kept` are kept between
    probes, so that targets without a kept connection always find room for theirs.
    """

    def __init__(
        self, judge: Judge, *, loop: asyncio.AbstractEventLoop, max_open: int, max_kept: int
    ) -> None:
        self.done: Callable[[Check, Outcome], None] = _nobody
        self.max_open = max_open
        self.max_kept = max_kept
        self.events = dict.fromkeys(ConnectionEvent, 0)
        self.read_whole = lru_cache(maxsize=REPLIES_REMEMBERED)(response.read_whole)
        self._judge = judge
        self._loop = loop
        self._open: set[Connection] = set()
        self._dials: set[Dial] = set()

    def __repr__(self) -> str:
        return f"HttpPool(open={len(self._open)} of {self.max_open}, dials={len(self._dials)})"

    @property
    def open_connections(self) -> int:
        """How many connections hold a descriptor: idle, in use, and being dialled or closed."""
        return len(self._open)

    # Called by the sweep.

    def start(self, check: Check, now: float) -> None:
        """Begin one probe; see `probe.sweep.Wire`."""
        connection = check.connection
        if isinstance(connection, Connection):
            if connection.state is _IDLE:
                connection.ask_again()
                return
            prepared = connection.prepared
        else:
            try:
                prepared = self._judge.admit(check.target)
            except WireError as error:  # targets are admitted when loaded: only a caller's slip
                self.done(check, self._judge.denied(str(error)))
                return
        connection = check.connection = Connection(self, check, prepared)
        connection.began_at = monotonic()
        if prepared.refusal is not None:
            self.done(check, self._judge.denied(prepared.refusal))
        else:
            self._dial(connection, now)

    def expire(self, check: Check, now: float) -> float | None:
        """Judge a probe whose deadline passed; see `probe.sweep.Wire`."""
        connection = check.connection
        if not isinstance(connection, Connection):
            return None
        connected = connection.state is not _DIALLING
        limit = check.started_at + check.timeout_s
        if not connected:
            limit = min(limit, connection.connect_by)
        if now < limit:
            return limit
        outcome = self._judge.late(
            phase="reply" if connected else "connect",
            received=connection.received,
            limit_s=limit - check.started_at,
        )
        self._drop(connection)
        self.done(check, outcome)
        return None

    def cancel(self, check: Check) -> None:
        """End the probe in flight without an outcome; a connection between probes is kept."""
        connection = check.connection
        if isinstance(connection, Connection) and connection.state is not _IDLE:
            self._drop(connection)

    def forget(self, check: Check) -> None:
        """Close the check's connection, in flight or idle."""
        if isinstance(check.connection, Connection):
            self._drop(check.connection)
        check.connection = None

    def close(self) -> None:
        """Close every connection; those in flight end without an outcome."""
        for connection in tuple(self._open):
            self._drop(connection)

    # Called by the connections.

    def replied(self, connection: Connection, reply: Reply, now: float) -> None:
        """Keep or close the connection, and tell how the probe ended."""
        if reply.reusable and len(self._open) <= self.max_kept:
            connection.state = _IDLE
        else:
            self._drop(connection)
        check, asked_at = connection.check, connection.asked_at
        outcome = self._judge.replied(
            check,
            connection.prepared.steps[0],
            reply,
            connect_s=0.0 if connection.reused else asked_at - connection.dialled_at,
            first_byte_s=connection.first_byte_at - asked_at,
            total_s=now - connection.began_at,
        )
        self.done(check, outcome)

    def broke(self, connection: Connection, error: Exception | None) -> None:
        """Begin again on a fresh connection if this one was kept, else tell how the probe ended."""
        check = connection.check
        now = monotonic()
        if connection.reused:
            self.events[ConnectionEvent.RETRIED] += 1
            fresh = check.connection = Connection(self, check, connection.prepared)
            fresh.began_at = connection.began_at
            self._dial(fresh, now)
            return
        total_s = now - connection.began_at
        connect_s = connection.asked_at - connection.dialled_at
        if error is not None:
            outcome = self._judge.broke(error, connect_s=connect_s, total_s=total_s)
        else:
            outcome = self._judge.replied(
                check,
                connection.prepared.steps[0],
                NOT_A_BYTE,
                connect_s=connect_s,
                first_byte_s=0.0,
                total_s=total_s,
            )
        self.done(check, outcome)

    def idled_out(self, _connection: Connection) -> None:
        """Count it; the next probe dials."""
        self.events[ConnectionEvent.IDLED_OUT] += 1

    def gone(self, connection: Connection) -> None:
        """Take the connection off the books."""
        self._open.discard(connection)

    # Inside.

    def _drop(self, connection: Connection) -> None:
        if connection.state is not _CLOSED:
            self.events[ConnectionEvent.DROPPED] += 1
            connection.abandon()

    def _dial(self, connection: Connection, now: float) -> None:
        if len(self._open) >= self.max_open:
            self.done(connection.check, self._judge.crowded(self.max_open))
            return
        self.events[ConnectionEvent.OPENED] += 1
        self._open.add(connection)
        connection.state = _DIALLING
        connection.dialled_at = monotonic()
        connection.connect_by = now + connection.check.connect_timeout_s
        prepared = connection.prepared
        dialling = self._loop.create_connection(
            lambda: connection, str(prepared.place), prepared.port
        )
        connection.dial = task = self._loop.create_task(dialling)
        self._dials.add(task)
        task.add_done_callback(partial(self._dialled, connection))

    def _dialled(self, connection: Connection, task: Dial) -> None:
        """Clean up behind a dial: one that is cancelled before its first step runs no `finally`."""
        self._dials.discard(task)
        connection.dial = None
        if connection.transport is None:
            self._open.discard(connection)
        error = None if task.cancelled() else task.exception()
        if error is None or connection.state is not _DIALLING:
            return
        connection.state = _CLOSED
        now = monotonic()
        outcome = self._judge.broke(
            error, connect_s=now - connection.dialled_at, total_s=now - connection.began_at
        )
        self.done(connection.check, outcome)
