"""Every way a replica can answer, by the name of its kind: what is sent, and what it must mean.

The table is data: the farm serves it, parser tests read its bytes, the wire is held to its
verdicts, and so are the probers that ours is compared with. A kind that needs more than fixed
bytes (`script` is None) is a behaviour of `tests.fakes.farm`.
"""

from typing import Final, NamedTuple

from probe.reasons import REASONS, OutcomeKind, Reason

BODY_TEXT: Final = "ok"
"""What is asked of the body where it is needed."""

_LENGTH_2: Final = b"Content-Length: 2\r\n\r\nok"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
_OK: Final = b"HTTP/1.1 200 OK\r\n"


class Script(NamedTuple):
    """What is sent after each request, and whether the server closes behind it."""

    data: bytes
    close: bool = False


class Kind(NamedTuple):
    """One way to answer, and what a probe must make of it."""

    script: Script | None
    reason: Reason
    """When the status alone is asked for: 2xx is expected."""
    status: int
    kept: bool
    """The connection carries the next probe too."""
    needed: Reason
    """When the body must contain `BODY_TEXT`."""
    what: str
    """In a few words, for people."""

    @property
    def outcome(self) -> OutcomeKind:
        """Return what the probe is worth as evidence when the status alone is asked for."""
        return REASONS[self.reason].kind

    @property
    def outcome_needed(self) -> OutcomeKind:
        """Return what the probe is worth as evidence when the body is needed."""
        return REASONS[self.needed].kind


def _passes(
    what: str,
    script: Script | None,
    *,
    status: int = 200,
    kept: bool = True,
    needed: Reason = Reason.OK,
) -> Kind:
    return Kind(script, Reason.OK, status, kept, needed, what)


def _fails(
    what: str, reason: Reason, script: Script | None = None, *, status: int = 0, kept: bool = False
) -> Kind:
    return Kind(script, reason, status, kept, reason, what)


def _answers(line: str, reason: Reason = Reason.STATUS_UNEXPECTED) -> Kind:
    script = Script(f"HTTP/1.1 {line}\r\n".encode() + _LENGTH_2)
    return _fails(line, reason, script, status=int(line[:3]), kept=True)


TABLE: Final[dict[str, Kind]] = {
    # Passed, whatever the rest of the message is like.
    "ok200": _passes("200 with a length", Script(_OK + _LENGTH_2)),
    "ok200_http10": _passes(
        "HTTP/1.0, closed behind", Script(b"HTTP/1.0 200 OK\r\n\r\nok", close=True), kept=False
    ),
    "ok200_close": _passes(
        "200, says that it closes",
        Script(_OK + b"Connection: close\r\n" + _LENGTH_2, close=True),
        kept=False,
    ),
    "close_idle": _passes("200, closes unsaid", Script(_OK + _LENGTH_2, close=True), kept=False),
    "stale": _passes("200, closes on the second request", None, kept=False),
    "ok200_continue": _passes(
        "100 before the 200", Script(b"HTTP/1.1 100 Continue\r\n\r\n" + _OK + _LENGTH_2)
    ),
    "info5": _passes(
        "five 102 before the 200", Script(b"HTTP/1.1 102 Wait\r\n\r\n" * 5 + _OK + _LENGTH_2)
    ),
    "no_phrase": _passes("200 without a phrase", Script(b"HTTP/1.1 200\r\n" + _LENGTH_2)),
    "bare_lf": _passes("lines end in LF", Script(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok")),
    "chunked": _passes("chunked body", Script(_OK + _CHUNKED)),
    "trailers": _passes(
        "chunked body with trailers",
        Script(
            _OK + b"Transfer-Encoding: chunked\r\n\r\n2;ext=1\r\nok\r\n0\r\nX-Trailer: t\r\n\r\n"
        ),
    ),
    "until_close": _passes(
        "body ends with the connection", Script(_OK + b"\r\nok", close=True), kept=False
    ),
    "s204": _passes(
        "204 No Content",
        Script(b"HTTP/1.1 204 No Content\r\n\r\n"),
        status=204,
        needed=Reason.BODY_MISMATCH,
    ),
    "other_body": _passes(
        "200, another body",
        Script(_OK + b"Content-Length: 5\r\n\r\nsorry"),
        needed=Reason.BODY_MISMATCH,
    ),
    "gzip": _passes(
        "200, encoded body",
        Script(_OK + b"Content-Encoding: gzip\r\n" + _LENGTH_2),
        needed=Reason.BODY_MISMATCH,
    ),
    "full_body": _passes(
        "body of 64 KiB",
        Script(_OK + b"Content-Length: 65536\r\n\r\nok" + b"x" * 65_534),
    ),
    # Passed by its status; a needed body is at fault.
    "long_body": _passes(
        "body over 64 KiB",
        Script(_OK + b"Content-Length: 70000\r\n\r\nok" + b"x" * 69_998),
        kept=False,
        needed=Reason.RESPONSE_TOO_LARGE,
    ),
    "endless_body": _passes("endless body", None, kept=False, needed=Reason.RESPONSE_TOO_LARGE),
    "cut_body": _passes(
        "closed inside the body",
        Script(_OK + b"Content-Length: 100\r\n\r\nonly this is ok", close=True),
        kept=False,
        needed=Reason.RESPONSE_CLOSED,
    ),
    "reset_body": _passes("reset inside the body", None, kept=False, needed=Reason.RESPONSE_CLOSED),
    "bad_chunk": _passes(
        "garbage for a chunk",
        Script(_OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        kept=False,
        needed=Reason.RESPONSE_MALFORMED,
    ),
    "len_and_chunked": _passes(
        "both a length and chunks",
        Script(_OK + b"Content-Length: 2\r\n" + _CHUNKED),
        kept=False,
        needed=Reason.RESPONSE_MALFORMED,
    ),
    # Failed by its status.
    "s101": _fails(
        "101 Switching",
        Reason.STATUS_UNEXPECTED,
        Script(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        status=101,
    ),
    "s301": _fails(
        "301 to somewhere else",
        Reason.REDIRECT_REFUSED,
        Script(
            b"HTTP/1.1 301 Moved\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
        ),
        status=301,
        kept=True,
    ),
    "s401": _answers("401 Unauthorized", Reason.AUTH_REJECTED),
    "s403": _answers("403 Forbidden", Reason.AUTH_REJECTED),
    "s404": _answers("404 Not Found"),
    "s500": _answers("500 Internal Server Error"),
    "s503": _answers("503 Service Unavailable"),
    "s999": _answers("999 Beyond"),
    "two_replies": _fails(
        "500, and a 200 right behind it",
        Reason.STATUS_UNEXPECTED,
        Script(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n" + _OK + _LENGTH_2),
        status=500,
    ),
    # Not HTTP/1, or too much of it.
    "garbage": _fails(
        "a TLS record",
        Reason.RESPONSE_MALFORMED,
        Script(b"\x15\x03\x01\x00\x02\x02\x28 not http at all\r\n\r\n", close=True),
    ),
    "http09": _fails(
        "HTTP/0.9", Reason.RESPONSE_MALFORMED, Script(b"<html>ok</html>\n", close=True)
    ),
    "http2": _fails(
        "HTTP/2 unasked",
        Reason.RESPONSE_MALFORMED,
        Script(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", close=True),
    ),
    "nul_header": _fails(
        "NUL in a header",
        Reason.RESPONSE_MALFORMED,
        Script(_OK + b"X-A: b\x00c\r\n" + _LENGTH_2),
    ),
    "dup_length": _fails(
        "two different lengths",
        Reason.RESPONSE_MALFORMED,
        Script(_OK + b"Content-Length: 5\r\n" + _LENGTH_2),
    ),
    "info6": _fails(
        "six 102 before the 200",
        Reason.RESPONSE_TOO_LARGE,
        Script(b"HTTP/1.1 102 Wait\r\n\r\n" * 6 + _OK + _LENGTH_2),
    ),
    "endless_info": _fails("102 for ever", Reason.RESPONSE_TOO_LARGE),
    "big_head": _fails(
        "head over 16 KiB",
        Reason.RESPONSE_TOO_LARGE,
        Script(_OK + (b"X-Pad: " + b"x" * 1000 + b"\r\n") * 20 + _LENGTH_2),
    ),
    "many_headers": _fails(
        "over 100 headers", Reason.RESPONSE_TOO_LARGE, Script(_OK + b"X: y\r\n" * 101 + _LENGTH_2)
    ),
    # No complete reply.
    "cut_head": _fails(
        "closed inside the head", Reason.RESPONSE_CLOSED, Script(_OK + b"Content-Le", close=True)
    ),
    "close_without_byte": _fails(
        "closed without a byte", Reason.RESPONSE_CLOSED, Script(b"", close=True)
    ),
    "reset": _fails("reset", Reason.CONNECT_RESET),
    "refused": _fails("refused", Reason.CONNECT_REFUSED),
    "unanswered": _fails("full accept queue", Reason.CONNECT_TIMEOUT),
    "hang": _fails("never answers", Reason.RESPONSE_TIMEOUT, Script(b"")),
    "half_head": _fails("half a head, then nothing", Reason.RESPONSE_TIMEOUT),
    "half_body": _fails(
        "half a body, then nothing",
        Reason.RESPONSE_TIMEOUT,
        Script(_OK + b"Content-Length: 100\r\n\r\nhalf is ok"),
    ),
    "head200": _fails(
        "a length without a body",
        Reason.RESPONSE_TIMEOUT,
        Script(_OK + b"Content-Length: 1000\r\n\r\n"),
    ),
    "slow_bytes": _fails("a byte every 0.1 s", Reason.RESPONSE_TIMEOUT),
}
"""`head200` is a good reply to a HEAD."""

SCRIPTS: Final = {name: kind.script for name, kind in TABLE.items() if kind.script is not None}
"""Kinds that send fixed bytes."""
BEHAVIOURS: Final = TABLE.keys() - SCRIPTS.keys()
