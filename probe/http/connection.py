"""One connection to one replica on a socket of our own: asks and reads, and decides nothing.

Made by the pool, one per dial and never used again once closed, so that a late edge of an old
descriptor cannot be taken for the new one's. Kept alive it costs no task, no timer and no
transport: the deadline belongs to the sweep. What a reply or a failure means, it leaves to its
owner.
"""

from enum import IntEnum
from errno import ENOBUFS
from os import read, write
from time import monotonic
from typing import Final, Protocol

from probe.http.channel import Channel
from probe.http.dial import ELSEWHERE, Endpoint
from probe.http.line import NOTHING, Line
from probe.http.poller import ENDS, INWARD, Poller
from probe.http.request import Step
from probe.http.response import NOT_A_BYTE, WHOLE_MAX_BYTES, Latch, Reply
from probe.http.tunnel import Tunnel
from probe.schedule.scheduler import Check

READ_BYTES: Final = 4096
"""At once; less than asked for means that there is no more."""


class State(IntEnum):
    """Where a connection stands."""

    RESOLVING = 1
    """Waiting for the address, for a probe in flight."""
    DIALLING = 2
    """Being opened."""
    SHAKING = 3
    """Open, TLS being agreed on."""
    ASKED = 4
    """Open, a probe in flight, and what comes may be a whole reply to it in plain sight."""
    READING = 5
    """Open, a probe in flight, and what comes is part of something."""
    IDLE = 6
    """Open, kept for the next probe."""
    CLOSED = 7
    """Not ours any more, whatever edges are still told of it."""


# Global names are read in half the time of enum attributes, twenty times per probe.
_DIALLING: Final = State.DIALLING
_SHAKING: Final = State.SHAKING
_ASKED: Final = State.ASKED
_READING: Final = State.READING
_IDLE: Final = State.IDLE
_CLOSED: Final = State.CLOSED
_NOT_OPEN: Final = frozenset({State.DIALLING, State.CLOSED})


class Owner(Protocol):
    """What a connection tells its pool."""

    poller: Poller

    def read_whole(self, data: bytes, /) -> Reply | None:
        """Return the reply that `data` is by itself, if it is one."""

    def opened(self, connection: "Connection", now: float, /) -> None:
        """Take the end of the dial, handshake included."""

    def answered(self, connection: "Connection", reply: Reply, now: float, /) -> None:
        """Take the reply to a probe that found the connection open, and asks for one thing."""

    def replied(self, connection: "Connection", reply: Reply, now: float, /) -> None:
        """Take any reply to the probe in flight, complete `now`; it may still be open."""

    def broke(self, connection: "Connection", error: Exception | None, /) -> None:
        """Take note that the probe in flight lost its connection before a reply; it is closed."""

    def idled_out(self, connection: "Connection", /) -> None:
        """Take note that the peer closed a kept connection, or spoke on it unasked."""

    def gone(self, connection: "Connection", /) -> None:
        """Take note that the descriptor is free again."""


class Connection(Channel):
    """See the module. Times are monotonic seconds."""

    __slots__ = (
        "_ahead",
        "_latch",
        "asked_at",
        "connect_by",
        "connect_s",
        "dialled_at",
        "endpoint",
        "first_byte_at",
        "later",
        "line",
        "resolve_s",
        "spoken",
        "step",
        "tls_s",
    )

    def __init__(self, owner: Owner, check: Check, line: Line, *, began_at: float) -> None:
        super().__init__(owner.poller)
        self.owner = owner
        self.check = check
        self.line = line
        self.state = State.RESOLVING
        self.began_at = began_at  # start of the probe in flight, a dial before this one included
        self.dialled_at = self.asked_at = self.first_byte_at = began_at
        self.connect_by = 0.0
        self.resolve_s = self.connect_s = self.tls_s = 0.0
        self.step: Step = line.first  # being asked
        self.expected = line.first.expected
        self.later: tuple[Step, ...] = line.later
        self.carried = 0  # probes that ended with a reply, up to 2; any: this one found it open
        self.spoken = False  # a step has been answered: there are further ones
        self.left = -1  # probes it may carry after this one; 0: it, or the peer, is at its end
        self.again: bytes | None = None  # what it is asked each time, if that is all there is to do
        self.endpoint: Endpoint | None = None
        self._ahead: tuple[Endpoint, ...] = ()
        self._latch: Latch | None = None

    def __repr__(self) -> str:
        place, port = self.line.prepared.place, self.line.prepared.port
        return f"Connection({place}:{port}, {self.state.name}, carried={self.carried})"

    @property
    def received(self) -> int:
        """How many bytes of an incomplete reply have come."""
        return self._latch.received if self._latch is not None else 0

    # Called by the owner.

    def dial(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Try the addresses in turn, each when the one before it says no, and ask.

        `dialled_at` is now; whoever set it knows the time.
        """
        self._ahead = endpoints
        self._dial_next()

    def ask_same(self, request: bytes, now: float) -> None:
        """Send once more what was answered by one plain reply before: nearly all probes."""
        self.began_at = now
        self.state = _ASKED
        try:
            if write(self.descriptor, request) == len(request):
                return
            self._lost(OSError(ENOBUFS, "a whole send buffer could not take one request"))
        except OSError as error:
            self._lost(error)

    def ask_again(self, now: float) -> None:
        """Send the first request on a kept connection."""
        line = self.line
        self.began_at = self.asked_at = now
        self.step, self.later = line.first, line.later
        try:
            self._ask(line.request)
        except OSError as error:
            self._lost(error)

    def ask(self, step: Step, later: tuple[Step, ...]) -> None:
        """Send the request of a later step on the connection of the one before it."""
        self.step, self.later = step, later
        self.spoken = True
        self.asked_at = monotonic()
        try:
            self._ask(step.request)
        except OSError as error:
            self._lost(error)

    def certificate_ends_at(self) -> float | None:
        """Return until when the peer's certificate is valid, if a full handshake has shown it."""
        tunnel = self.tunnel
        return None if tunnel is None or tunnel.resumed else tunnel.certificate_ends_at()

    def close(self, *, at_once: bool = False) -> None:
        """Let go of the connection, whatever it is doing; nothing more is told of the probe.

        `at_once` leaves no trace of it in the kernel: for when both sides have said all.
        """
        self.state = _CLOSED
        if self._latch is not None:
            self._latch.closed()  # breaks its circle of references
            self._latch = None
        if self.tunnel is not None:
            if self.carried:
                self.line.remember(self.tunnel, monotonic())
            self.tunnel = None
        self._shut(at_once=at_once)
        self.owner.gone(self)

    # Called by the poller.

    def ready(self, events: int, now: float) -> None:
        """Read on; short, because nearly every call finds a whole reply in one piece."""
        if self.state is not _ASKED:
            self._go_on(events)
            return
        try:
            data = read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error)
            return
        if events & ENDS:
            self.left = 0
        if 0 < len(data) <= WHOLE_MAX_BYTES:
            owner = self.owner
            reply = owner.read_whole(data)
            if reply is not None:
                if self.again is not None:
                    owner.answered(self, reply, now)
                else:
                    self.first_byte_at = now
                    owner.replied(self, reply, now)
                return
        self._read_on(data, events)

    # Inside.

    def _go_on(self, events: int) -> None:
        """Go on where more is to be done than to take a reply."""
        if self.state is _CLOSED:
            return  # its descriptor may be another's
        try:
            if self.state is _DIALLING:
                self._knock()
            elif self._unsent:
                self._push()
            if self.state in _NOT_OPEN or not events & INWARD:
                return
            data = read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error)
            return
        if events & ENDS:
            self.left = 0
        self._read_on(data, events)

    def _read_on(self, data: bytes, events: int) -> None:
        """Take what was read, and read until there is no more: an edge is told only once."""
        try:
            while data:
                self._take(data)
                if self.state is _CLOSED or (len(data) < READ_BYTES and not events & ENDS):
                    return
                data = read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:  # of the socket, or of TLS
            self._lost(error)
            return
        self._lost(None)

    def _take(self, data: bytes) -> None:
        tunnel = self.tunnel
        if tunnel is None:
            self._read(data)
        elif self.state is _SHAKING:
            self._shake(tunnel, data)
        else:
            plain = tunnel.open(data)
            if plain:
                self._read(plain)
            if tunnel.ended and self.state is not _CLOSED:
                self._lost(None)

    def _read(self, data: bytes) -> None:
        if self.state is _IDLE:
            self.close()
            self.owner.idled_out(self)
            return
        step, latch = self.step, self._latch
        if latch is None:
            self.first_byte_at = monotonic()
            keep = step.content is not None
            if len(data) <= WHOLE_MAX_BYTES and not (keep or step.head_only):
                reply = self.owner.read_whole(data)
                if reply is not None:
                    self.owner.replied(self, reply, self.first_byte_at)
                    return
            self._latch = latch = Latch(head_only=step.head_only, keep=keep)
        self.state = _READING
        reply = latch.feed(data)
        if reply is not None:
            self._latch = None
            self.owner.replied(self, reply, monotonic())

    def _dial_next(self) -> None:
        self.endpoint, self._ahead = self._ahead[0], self._ahead[1:]
        self.state = _DIALLING
        try:
            if self._connect(self.endpoint, self.line, self.step.request, self.dialled_at):
                self._knock()
                if self.state is not _CLOSED:
                    self._watch(self, connecting=self.state is _DIALLING)
        except OSError as error:
            self._lost(error)

    def _knock(self) -> None:
        """Send the first bytes if it has connected: on loopback it has before the dial returns."""
        now = monotonic()
        if self._push():
            self._connected(now)

    def _connected(self, now: float) -> None:
        self.connect_s = now - self.dialled_at
        if self.tunnel is not None:
            self.state = _SHAKING
            return
        self.asked_at = now
        whole = self.line.plain and self.step is self.line.first and not self._unsent
        self.state = _ASKED if whole else _READING
        if self.step is NOTHING:
            self._refuse_oneself()
        self.owner.opened(self, now)

    def _shake(self, tunnel: Tunnel, data: bytes) -> None:
        complete = tunnel.shake(data)
        if complete and self.step is not NOTHING:
            tunnel.seal(self.step.request)
        self._send(tunnel.outgoing())
        if complete:
            self.asked_at = now = monotonic()
            self.tls_s = now - self.dialled_at - self.connect_s
            self.state = _READING
            self.owner.opened(self, now)

    def _ask(self, request: bytes) -> None:
        self.state = _READING
        if self.tunnel is not None:
            self.tunnel.seal(request)
            request = self.tunnel.outgoing()
        self._send(request)

    def _lost(self, error: OSError | None) -> None:
        """Tell the owner how far the probe in flight came, if there is one."""
        state, latch = self.state, self._latch
        if state is _DIALLING and error is not None and self._ahead and error.errno in ELSEWHERE:
            self._shut(at_once=False)
            self._dial_next()
            return
        if state is _SHAKING:
            error = self._farewell(error)
        self._latch = None
        self.close()
        if state is _IDLE:
            self.owner.idled_out(self)
            return
        reply = NOT_A_BYTE if latch is None else latch.closed(cleanly=error is None)
        if reply.status or (error is None and latch is not None):
            self.owner.replied(self, reply, monotonic())
        else:
            self.owner.broke(self, error)
