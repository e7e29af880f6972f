"""One connection to one replica: an `asyncio.Protocol` that asks and reads, and decides nothing.

Made by the pool, one per dial and never used again once closed, so that a late callback of an
old transport cannot be taken for the new one's. Kept alive it costs no task and no timer: the
deadline belongs to the sweep. What a reply or a failure means, it leaves to its owner.
"""

import asyncio
from enum import IntEnum
from os import write
from time import monotonic
from typing import Final, Protocol, cast

from probe.http.request import Prepared
from probe.http.response import NOT_A_BYTE, WHOLE_MAX_BYTES, Latch, Reply
from probe.scheduler import Check

Dial = asyncio.Task[tuple[asyncio.Transport, asyncio.Protocol]]


class State(IntEnum):
    """Where a connection stands; it only moves down this list, or between the middle two."""

    DIALLING = 1
    """Being opened for a probe in flight."""
    ASKED = 2
    """Open, a probe in flight on it."""
    IDLE = 3
    """Open, kept for the next probe."""
    CLOSED = 4
    """Not ours any more, whatever its transport still says."""


# Global names are read in half the time of enum attributes, twenty times per probe.
_DIALLING: Final = State.DIALLING
_ASKED: Final = State.ASKED
_IDLE: Final = State.IDLE
_CLOSED: Final = State.CLOSED


class Owner(Protocol):
    """What a connection tells its pool."""

    def read_whole(self, data: bytes, /) -> Reply | None:
        """Return the reply that `data` is by itself, if it is one."""

    def replied(self, connection: "Connection", reply: Reply, now: float, /) -> None:
        """Take the reply to the probe in flight, complete `now`; the connection is still open."""

    def broke(self, connection: "Connection", error: Exception | None, /) -> None:
        """Take note that the probe in flight lost its connection before a reply."""

    def idled_out(self, connection: "Connection", /) -> None:
        """Take note that the peer closed a kept connection, or spoke on it unasked."""

    def gone(self, connection: "Connection", /) -> None:
        """Take note that the transport is closed: its descriptor is free again."""


class Connection(asyncio.Protocol):
    """See the module. Times are monotonic seconds."""

    __slots__ = (
        "asked_at",
        "began_at",
        "check",
        "connect_by",
        "descriptor",
        "dial",
        "dialled_at",
        "first_byte_at",
        "latch",
        "owner",
        "prepared",
        "reused",
        "state",
        "transport",
    )

    def __init__(self, owner: Owner, check: Check, prepared: Prepared) -> None:
        self.owner = owner
        self.check = check
        self.prepared = prepared
        self.state = _CLOSED
        self.transport: asyncio.Transport | None = None
        self.descriptor = -1
        self.dial: Dial | None = None
        self.latch: Latch | None = None
        self.reused = False  # the probe in flight found the connection open
        self.connect_by = 0.0
        self.began_at = 0.0  # start of the probe in flight, a dial before this one included
        self.dialled_at = 0.0
        self.asked_at = 0.0
        self.first_byte_at = 0.0

    def __repr__(self) -> str:
        where = f"{self.prepared.place}:{self.prepared.port}"
        return f"Connection({where}, {self.state.name}, reused={self.reused})"

    @property
    def received(self) -> int:
        """How many bytes of an incomplete reply have come."""
        return self.latch.received if self.latch is not None else 0

    def ask_again(self) -> None:
        """Send the request on a kept connection.

        Past the transport, whose write queues for the end of the loop's turn: 12.0 us a probe
        against 13.6 (medians of five rounds in turn). What the kernel does not take at once, or
        refuses, is the transport's affair again.
        """
        self.state = _ASKED
        self.reused = True
        self.began_at = self.asked_at = monotonic()
        transport, request = self.transport, self.prepared.steps[0].request
        if transport is None or transport.is_closing():
            return  # its descriptor may be another's by now; `connection_lost` is on its way
        try:
            sent = write(self.descriptor, request)
        except OSError:
            sent = 0
        if sent != len(request):
            transport.write(request[sent:])

    def abandon(self) -> None:
        """Let go of the connection, whatever it is doing; nothing more is told of the probe."""
        if self.state is _DIALLING and self.dial is not None:
            self.dial.cancel()
        self.state = _CLOSED
        if self.latch is not None:
            self.latch.closed()
            self.latch = None
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request, unless nobody waits for it any longer."""
        self.transport = cast("asyncio.Transport", transport)
        self.descriptor = transport.get_extra_info("socket").fileno()
        if self.state is not _DIALLING:
            self.transport.abort()
            return
        self.state = _ASKED
        self.asked_at = monotonic()
        self.transport.write(self.prepared.steps[0].request)

    def data_received(self, data: bytes) -> None:
        """Read on until the reply is known."""
        if self.state is not _ASKED:
            self._unasked()
            return
        latch = self.latch
        now = monotonic()
        if latch is None:
            self.first_byte_at = now
            step = self.prepared.steps[0]
            if len(data) <= WHOLE_MAX_BYTES and not step.head_only and step.content is None:
                owner = self.owner
                reply = owner.read_whole(data)
                if reply is not None:
                    owner.replied(self, reply, now)
                    return
            latch = Latch(head_only=step.head_only, keep=step.content is not None)
            self.latch = latch
        reply = latch.feed(data)
        if reply is not None:
            self.latch = None
            self.owner.replied(self, reply, now)

    def eof_received(self) -> None:
        """Stop keeping a connection that the peer is done with; the transport closes itself."""
        if self.state is _IDLE:
            self._unasked()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, and how far the probe in flight came if there is one."""
        self.owner.gone(self)
        state, self.state = self.state, _CLOSED
        if state is _IDLE:
            self.owner.idled_out(self)
        elif state is _ASKED:
            latch, self.latch = self.latch, None
            reply = NOT_A_BYTE if latch is None else latch.closed(cleanly=exc is None)
            if reply.status or (exc is None and latch is not None):
                self.owner.replied(self, reply, monotonic())
            else:
                self.owner.broke(self, exc)

    def _unasked(self) -> None:
        if self.state is _IDLE:
            self.abandon()
            self.owner.idled_out(self)
