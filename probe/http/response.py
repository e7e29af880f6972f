"""What a replica's bytes mean, in status-only mode: sans-I/O, over the llhttp parser.

The first final status is latched and nothing after it can change it; httptools alone ends with
the last status it saw, so that "500 then 200" in one segment would read as 200. What follows
the head only decides whether the connection may carry another request. All that a peer can make
us keep is bounded. It must not know sockets or reasons: `probe.check` turns replies into those.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

HEAD_MAX_BYTES: Final = 16 * 1024
HEADERS_MAX: Final = 100
INFORMATIONAL_MAX: Final = 5
BODY_MAX_BYTES: Final = 64 * 1024
WHOLE_MAX_BYTES: Final = 2048
"""Replies longer than this are not worth remembering (see `read_whole`)."""

_START: Final = b"HTTP/1."
_INFORMATIONAL: Final = range(100, 200)
_SWITCHING: Final = 101
_EXCERPT_BYTES: Final = 24


class Fault(StrEnum):
    """Why a reply has no status."""

    MALFORMED = "malformed"
    """Not HTTP/1."""
    TOO_LARGE = "too large"
    """More head than a probe reads."""
    CLOSED = "closed"
    """The connection ended before a complete head."""


class Reply(NamedTuple):
    """What one exchange came to: a status, or a fault."""

    status: int
    """The first final status; 0 with a fault."""
    reusable: bool
    """The reply ended where it said it would, and the peer keeps the connection."""
    fault: Fault | None = None
    detail: str = ""
    """More about the fault; may hold text of the peer, escaped."""


NOT_A_BYTE: Final = Reply(0, reusable=False, fault=Fault.CLOSED, detail="closed without a byte")


class Latch:
    """Reads one reply. Feed it segments until it returns a `Reply`, then drop it."""

    __slots__ = (
        "_body_bytes",
        "_complete",
        "_excess",
        "_fault",
        "_framings",
        "_head_only",
        "_headers",
        "_informational",
        "_keep",
        "_parser",
        "_start",
        "_status",
        "received",
    )

    def __init__(self, *, head_only: bool = False) -> None:
        self.received = 0
        self._head_only = head_only
        self._start = b""
        self._status = 0
        self._keep = False
        self._complete = False
        self._excess = False  # bytes beyond the end of the reply
        self._fault: Fault | None = None
        self._headers = 0
        self._framings = 0
        self._informational = 0
        self._body_bytes = 0
        self._parser = HttpResponseParser(self)
        # A bare LF ends a line (RFC 9112, 2.2), and both framings together are a reason not to
        # reuse the connection, not to call the replica down.
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_chunked_length=True
        )

    def feed(self, data: bytes) -> Reply | None:
        """Take one segment; return the reply once it is known, None while more is needed.

        The verdict does not depend on how the bytes were cut into segments.
        """
        head_room = HEAD_MAX_BYTES - self.received
        self.received += len(data)
        if len(self._start) < len(_START):
            self._start += data[:_EXCERPT_BYTES]
            if not _START.startswith(self._start[: len(_START)]):
                return self._end(self._malformed("not HTTP/1"))
        if self._status or len(data) <= head_room:
            reply = self._parse(data)
        else:
            reply = self._parse_across_limit(data, head_room)
        return None if reply is None else self._end(reply)

    def closed(self) -> Reply:
        """Return what the reply came to when no more of it will be read."""
        if self._status:
            return self._end(Reply(self._status, reusable=False))
        detail = f"closed after {self.received} bytes of an incomplete head"
        return self._end(Reply(0, reusable=False, fault=Fault.CLOSED, detail=detail))

    def _parse_across_limit(self, data: bytes, head_room: int) -> Reply | None:
        """Parse a segment that outgrows what a head may hold: the head must end before that."""
        reply = self._parse(data[:head_room])
        if reply is not None:
            return reply._replace(reusable=False)  # there is more behind it
        if not self._status:
            return Reply(0, reusable=False, fault=Fault.TOO_LARGE, detail="head over 16 KiB")
        return self._parse(data[head_room:])

    def _parse(self, data: bytes) -> Reply | None:
        broken = False
        problem = ""
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            broken = True
        except HttpParserError as error:
            broken, problem = True, str(error)
        if self._fault is not None:
            detail = f"over {HEADERS_MAX} headers or {INFORMATIONAL_MAX} informational replies"
            return Reply(0, reusable=False, fault=self._fault, detail=detail)
        if not self._status:
            return self._malformed(problem) if broken else None
        if self._complete:
            return Reply(self._status, reusable=self._reusable() and not broken)
        if broken or self._body_bytes > BODY_MAX_BYTES or self._too_long():
            return Reply(self._status, reusable=False)
        return None

    def _too_long(self) -> bool:
        """Tell whether framing alone (chunk extensions, trailers) outgrew head and body."""
        return self.received > HEAD_MAX_BYTES + BODY_MAX_BYTES

    def _reusable(self) -> bool:
        return (
            self._keep
            and not self._excess
            and self._framings < 2  # noqa: PLR2004 - a length and an encoding
            and self._status != _SWITCHING
            and self._body_bytes <= BODY_MAX_BYTES
        )

    def _malformed(self, problem: str) -> Reply:
        begins = ascii(self._start[:_EXCERPT_BYTES].decode("latin-1"))
        detail = f"{problem}; begins {begins}"
        return Reply(0, reusable=False, fault=Fault.MALFORMED, detail=detail)

    def _end(self, reply: Reply) -> Reply:
        del self._parser  # it refers back to us: without this every reply waits for the gc
        return reply

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Note bytes that begin another reply after the one we asked for."""
        if self._complete:
            self._excess = True

    def on_header(self, name: bytes, _value: bytes) -> None:
        """Count a header, or a trailer."""
        self._headers += 1
        if self._status:
            return
        if self._headers > HEADERS_MAX:
            self._fault = Fault.TOO_LARGE
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self._framings += 1

    def on_headers_complete(self) -> None:
        """Latch the first final status."""
        if self._status or self._fault is not None:
            return
        code = self._parser.get_status_code()
        if code in _INFORMATIONAL and code != _SWITCHING:
            self._informational += 1
            self._framings = 0
            if self._informational > INFORMATIONAL_MAX:
                self._fault = Fault.TOO_LARGE
            return
        self._status = code
        self._keep = self._parser.should_keep_alive()
        self._complete = self._head_only

    def on_body(self, body: bytes) -> None:
        """Count and drop a piece of the body."""
        self._body_bytes += len(body)
        if self._head_only:
            self._excess = True

    def on_chunk_header(self) -> None:
        """Note the body that the reply to a HEAD must not have."""
        if self._head_only:
            self._excess = True

    def on_message_complete(self) -> None:
        """Note the end of the reply, if it was the final one."""
        if self._status:
            self._complete = True


def read_whole(data: bytes) -> Reply | None:
    """Return the reply that `data` is by itself, or None if more is needed.

    A pure function of the bytes, so it may be remembered: the replicas of one deployment send
    the very same bytes within one second of their Date header (0.14 us from a memory of 512,
    against 3.0 us through the parser).
    """
    latch = Latch()
    reply = latch.feed(data)
    if reply is None:
        latch.closed()
    return reply
