"""The wire of the sweep: one kept connection per target at most, and a bound on all of them.

Called by the sweep with plain calls; tells it how each probe ended by `done`. A probe is neither
a task nor a timer: edges of its socket drive it on. A kept connection that turns out closed is
retried once on a fresh one, because replicas close idle connections at moments of their own.
What replies and failures mean, it asks its judge (`probe.check`).
"""

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import lru_cache, partial
from math import inf
from time import monotonic
from types import MappingProxyType
from typing import Final

from probe.errors import WireError
from probe.health import Outcome
from probe.http import response
from probe.http.connection import Connection, State
from probe.http.dial import endpoint_of
from probe.http.keep import KeepRule
from probe.http.line import NOTHING, Line
from probe.http.names import Resolved
from probe.http.poller import Poller
from probe.http.renewal import REFUSALS, Renewal, due
from probe.http.response import NOT_A_BYTE, Reply
from probe.http.roles import Detour, Judge, Phase, Resolver, nobody
from probe.reasons import Reason
from probe.schedule.scheduler import Check
from probe.wire import OutcomeKind

REPLIES_REMEMBERED: Final = 512
"""At most 2 KiB each: 1 MiB for all. One deployment needs one or two per second."""

KEEP_RULE: Final = KeepRule()

_IDLE: Final = State.IDLE
_CLOSED: Final = State.CLOSED
_PASSED: Final = OutcomeKind.PASSED

_PHASES: Final[Mapping[State, Phase]] = MappingProxyType(
    {State.RESOLVING: "resolve", State.DIALLING: "connect", State.SHAKING: "tls"}
)
_UNCONNECTED: Final = frozenset({State.RESOLVING, State.DIALLING})


class ConnectionEvent(StrEnum):
    """What happens to connections: a closed set, safe as a metric label."""

    OPENED = "opened"
    """A dial succeeded or is under way."""
    RETRIED = "retried"
    """A kept connection turned out closed, and the probe began again on a fresh one."""
    IDLED_OUT = "idled_out"
    """The replica closed a kept connection between two probes, or spoke unasked."""
    DROPPED = "dropped"
    """We closed it: not worth keeping, too old, reply not cleanly complete, late, or no room."""


class HttpPool:
    """Implements `probe.sweep.Wire`. Must be made and used on one event loop.

    At most `max_open` connections exist, and of these at most `max_kept` are kept between
    probes, so that targets without a kept connection always find room for theirs. A check holds
    its open connection, or between two the line to dial on; or what the detour has it hold.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        loop: asyncio.AbstractEventLoop,
        max_open: int,
        max_kept: int,
        keep: KeepRule = KEEP_RULE,
        resolver: Resolver | None = None,
        detour: Detour | None = None,
    ) -> None:
        self.max_open = max_open
        self.max_kept = max_kept
        self.poller = Poller(loop)
        self.read_whole = lru_cache(maxsize=REPLIES_REMEMBERED)(response.read_whole)
        self._done: Callable[[Check, Outcome], None] = nobody
        self._judge = judge
        self._renewal = Renewal(judge.admit)
        self._keep = keep
        self._resolver = resolver
        self._detour = detour
        self._open: set[Connection] = set()
        self._certificates: dict[Check, float] = {}
        self._opened = self._retried = self._idled_out = self._dropped = 0

    def __repr__(self) -> str:
        return f"HttpPool(open={len(self._open)} of {self.max_open})"

    @property
    def done(self) -> Callable[[Check, Outcome], None]:
        """Whom to tell how a probe ended; see `probe.sweep.Wire`."""
        return self._done

    @done.setter
    def done(self, done: Callable[[Check, Outcome], None]) -> None:
        self._done = done
        if self._detour is not None:
            self._detour.done = done

    @property
    def open_connections(self) -> int:
        """How many connections there are: idle, in use, and being dialled."""
        return len(self._open) + (0 if self._detour is None else self._detour.open_connections)

    @property
    def events(self) -> dict[ConnectionEvent, int]:
        """How often what happened to connections."""
        return {
            ConnectionEvent.OPENED: self._opened,
            ConnectionEvent.RETRIED: self._retried,
            ConnectionEvent.IDLED_OUT: self._idled_out,
            ConnectionEvent.DROPPED: self._dropped,
        }

    def certificate_ends(self) -> dict[str, float]:
        """Return by deployment when the first of its certificates ends, in wall-clock time.

        Only verified ones are known. O(targets with TLS).
        """
        ends: dict[str, float] = {}
        for check, ends_at in self._certificates.items():
            name = check.target.deployment
            ends[name] = min(ends.get(name, inf), ends_at)
        return ends

    # Called by the sweep.

    def start(self, check: Check, now: float) -> None:
        """Begin one probe; see `probe.sweep.Wire`."""
        held = check.connection
        if isinstance(held, Connection):  # idle: else the probe before this one has not ended
            request = held.again
            if request is not None:
                held.ask_same(request, now)
                return
            if held.line.name is None or self._is_current(held):
                held.ask_again(now)
                return
            self._drop(held, at_once=True)
            held = held.line
        if held is None:
            try:
                prepared = self._judge.admit(check.target)
            except WireError as error:  # targets are admitted when loaded: only a caller's slip
                self._done(check, self._judge.denied(str(error)))
                return
            held = Line(prepared, check.replica_id, renew_at=due(check.target, now))
            check.connection = None if prepared.detour else held
        if not isinstance(held, Line) or held.prepared.detour:
            self._go_round(check, now)
        elif held.prepared.refusal is not None:
            self._done(check, self._judge.denied(held.prepared.refusal))
        else:
            if now >= held.renew_at:
                self._renewal.renew(held, check.target, now)
            connection = Connection(self, check, held, began_at=monotonic())
            self._dial(connection, connect_by=now + check.connect_timeout_s)

    def expire(self, check: Check, now: float) -> float | None:
        """Judge a probe whose deadline passed; see `probe.sweep.Wire`."""
        connection = check.connection
        if not isinstance(connection, Connection):
            return None if self._detour is None else self._detour.expire(check, now)
        limit = check.started_at + check.timeout_s
        if connection.state in _UNCONNECTED:
            limit = min(limit, connection.connect_by)
        if now < limit:
            return limit
        outcome = self._judge.late(
            phase=_PHASES.get(connection.state, "reply"),
            received=connection.received,
            limit_s=limit - check.started_at,
        )
        self._drop(connection)
        self._done(check, outcome)
        return None

    def cancel(self, check: Check) -> None:
        """End the probe in flight without an outcome; a connection between probes is kept."""
        connection = check.connection
        if not isinstance(connection, Connection):
            if self._detour is not None:
                self._detour.cancel(check)
        elif connection.state is not _IDLE:
            self._drop(connection)

    def forget(self, check: Check) -> None:
        """Close the check's connection, in flight or idle."""
        connection = check.connection
        if isinstance(connection, Connection):
            self._drop(connection, at_once=connection.state is _IDLE)
        elif self._detour is not None:
            self._detour.forget(check)
        check.connection = None
        self._certificates.pop(check, None)

    def close(self) -> None:
        """Close every connection; those in flight end without an outcome. Nothing starts again."""
        for connection in tuple(self._open):
            self._drop(connection, at_once=connection.state is _IDLE)
        self.poller.close()
        if self._detour is not None:
            self._detour.close()

    # Called by the connections.

    def opened(self, connection: Connection, now: float) -> None:
        """Note how long it may live, and until when the peer's certificate does."""
        check = connection.check
        if connection.line.prepared.tls is not None:
            ends_at = connection.certificate_ends_at()
            if ends_at is not None:
                self._certificates[check] = ends_at
        if connection.step is not NOTHING:
            probes = connection.line.keep.probes(self._keep, interval_s=check.interval_s)
            if connection.left:
                connection.left = probes - 1
            return
        outcome = self._judge.connected(
            connect_s=connection.connect_s,
            total_s=now - connection.began_at,
            resolve_s=connection.resolve_s,
            tls_s=connection.tls_s,
        )
        self._drop(connection, at_once=True)
        self._done(check, outcome)

    def answered(self, connection: Connection, reply: Reply, now: float) -> None:
        """Do what `replied` does, for nearly all of a fleet's probes and with less ado."""
        check, left = connection.check, connection.left
        outcome = self._judge.answered(connection.expected, reply, now - connection.began_at)
        if left and reply.reusable and len(self._open) <= self.max_kept:
            connection.left = left - 1
            connection.carried = 2
            connection.state = _IDLE
        else:
            self._drop(connection, at_once=reply.status != 0)
        self._done(check, outcome)

    def replied(self, connection: Connection, reply: Reply, now: float) -> None:
        """Keep or close the connection, and ask the next step or tell how the probe ended."""
        check = connection.check
        outcome = self._judged(connection, reply, now)
        if connection.later and outcome.kind is _PASSED:
            self._ask_next(connection, keep=reply.reusable and connection.left != 0)
            return
        self._keep_or_drop(connection, reply)
        self._done(check, outcome)

    def broke(self, connection: Connection, error: Exception | None) -> None:
        """Begin again on a fresh connection if this one was kept, else tell how the probe ended."""
        check, now = connection.check, monotonic()
        if connection.carried or connection.spoken:
            self._retried += 1
            if connection.carried == 1:
                connection.line.keep.closed_early()
            self._dial_again(connection)
            return
        if error is None:
            self._done(check, self._judged(connection, NOT_A_BYTE, now))
            return
        outcome = self._judge.broke(
            error,
            connect_s=connection.connect_s,
            total_s=now - connection.began_at,
            resolve_s=connection.resolve_s,
            tls_s=connection.tls_s,
        )
        self._done(check, outcome)

    def idled_out(self, connection: Connection) -> None:
        """Count it, and learn from it; the next probe dials."""
        self._idled_out += 1
        if connection.carried == 1:
            connection.line.keep.closed_early()

    def gone(self, connection: Connection) -> None:
        """Take the connection off the books."""
        self._open.discard(connection)
        connection.check.connection = connection.line

    # Inside.

    def _go_round(self, check: Check, now: float) -> None:
        """Let the detour ask; what the check holds is the detour's."""
        if self._detour is None:
            self._done(check, self._judge.denied("HTTP/2 and proxies are not spoken here"))
        else:
            self._detour.start(check, now)

    def _judged(self, connection: Connection, reply: Reply, now: float) -> Outcome:
        asked_at = max(connection.asked_at, connection.began_at)
        dialled = not connection.carried
        return self._judge.replied(
            connection.step,
            reply,
            connect_s=connection.connect_s if dialled else 0.0,
            first_byte_s=max(0.0, connection.first_byte_at - asked_at),
            total_s=now - connection.began_at,
            resolve_s=connection.resolve_s if dialled else 0.0,
            tls_s=connection.tls_s if dialled else 0.0,
        )

    def _keep_or_drop(self, connection: Connection, reply: Reply) -> None:
        connection.carried = min(2, connection.carried + 1)
        line, left = connection.line, connection.left
        refused = reply.status in REFUSALS and line.renew_at != inf
        if left and reply.reusable and len(self._open) <= self.max_kept and not refused:
            connection.left = left - 1
            connection.state = _IDLE
            if line.plain:
                connection.again = line.request
        else:
            self._drop(connection, at_once=reply.status != 0)

    def _drop(self, connection: Connection, *, at_once: bool = False) -> None:
        if connection.state is not _CLOSED:
            self._dropped += 1
            connection.close(at_once=at_once)

    def _ask_next(self, connection: Connection, *, keep: bool) -> None:
        """Go on with the step behind the one that passed."""
        step, later = connection.later[0], connection.later[1:]
        if keep and connection.state is not _CLOSED:
            connection.ask(step, later)
            return
        self._drop(connection, at_once=True)
        connection.step, connection.later = step, later
        self._dial_again(connection)

    def _dial_again(self, former: Connection) -> None:
        """Open a fresh connection for the probe in flight, and ask what the former was to ask."""
        check = former.check
        fresh = Connection(self, check, former.line, began_at=former.began_at)
        fresh.step, fresh.later, fresh.dialled_at = former.step, former.later, monotonic()
        self._dial(fresh, connect_by=fresh.dialled_at + check.connect_timeout_s)

    def _dial(self, connection: Connection, *, connect_by: float) -> None:
        check, line = connection.check, connection.line
        if self.open_connections >= self.max_open:
            self._done(check, self._judge.crowded(self.max_open))
            return
        self._opened += 1
        self._open.add(connection)
        check.connection = connection
        connection.connect_by = connect_by
        if line.name is None:
            connection.dial(line.endpoints)
        else:
            self._resolve(connection, line.name)

    def _resolve(self, connection: Connection, name: str) -> None:
        if self._resolver is None:
            self._drop(connection)
            self._done(connection.check, self._judge.denied(f"{name}: names are not resolved here"))
            return
        port = connection.line.prepared.port
        answer = self._resolver.resolve(name, port, partial(self._resolved, connection))
        if answer is not None:
            self._resolved(connection, answer)

    def _resolved(self, connection: Connection, answer: Resolved) -> None:
        """Dial what the name stands for, if anybody still waits for it."""
        if connection.state is not State.RESOLVING:
            return
        now = monotonic()
        connection.resolve_s, connection.dialled_at = now - connection.dialled_at, now
        if answer.fault is None and answer.addresses:
            port = connection.line.prepared.port
            connection.dial(tuple(endpoint_of(address, port) for address in answer.addresses))
            return
        fault = answer.fault or Reason.DNS_FAILED
        outcome = self._judge.unresolved(fault, answer.detail, total_s=now - connection.began_at)
        self._drop(connection)
        self._done(connection.check, outcome)

    def _is_current(self, connection: Connection) -> bool:
        """Tell whether a kept connection's name still stands for its address, if that is known."""
        name, port = connection.line.name, connection.line.prepared.port
        if name is None or self._resolver is None:
            return True
        answer = self._resolver.resolve(name, port, _unheard)
        return answer is None or any(
            endpoint_of(address, port) == connection.endpoint for address in answer.addresses
        )


def _unheard(_answer: Resolved, /) -> None:
    """Leave it to the next probe, which finds the answer in the resolver's memory."""
