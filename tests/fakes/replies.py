"""Replies by the name of their kind: what the farm sends, and what parser tests read."""

from typing import Final, NamedTuple

_LENGTH_2: Final = b"Content-Length: 2\r\n\r\nok"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


class Script(NamedTuple):
    """What is sent after each request, and whether the server closes behind it."""

    data: bytes
    close: bool = False


def _status(line: str) -> Script:
    return Script(f"HTTP/1.1 {line}\r\n".encode() + _LENGTH_2)


SCRIPTS: Final[dict[str, Script]] = {
    "ok200": _status("200 OK"),
    "head200": Script(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
    "ok200_http10": Script(b"HTTP/1.0 200 OK\r\n\r\nok", close=True),
    "ok200_close": Script(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + _LENGTH_2, close=True),
    "ok200_continue": Script(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + _LENGTH_2),
    "bare_lf": Script(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    "chunked": Script(b"HTTP/1.1 200 OK\r\n" + _CHUNKED),
    "s101": Script(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "s204": Script(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "s301": Script(
        b"HTTP/1.1 301 Moved\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
    ),
    "s401": _status("401 Unauthorized"),
    "s403": _status("403 Forbidden"),
    "s404": _status("404 Not Found"),
    "s500": _status("500 Internal Server Error"),
    "s503": _status("503 Service Unavailable"),
    "s999": _status("999 Beyond"),
    "two_replies": Script(
        b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n" + _LENGTH_2
    ),
    "garbage": Script(b"\x15\x03\x01\x00\x02\x02\x28 not http at all\r\n\r\n", close=True),
    "http09": Script(b"<html>ok</html>\n", close=True),
    "nul_header": Script(b"HTTP/1.1 200 OK\r\nX-A: b\x00c\r\n" + _LENGTH_2),
    "dup_length": Script(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + _LENGTH_2),
    "len_and_chunked": Script(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + _CHUNKED),
    "bad_chunk": Script(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "cut_head": Script(b"HTTP/1.1 200 OK\r\nContent-Le", close=True),
    "cut_body": Script(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", close=True),
    "info5": Script(b"HTTP/1.1 102 Wait\r\n\r\n" * 5 + b"HTTP/1.1 200 OK\r\n" + _LENGTH_2),
    "info6": Script(b"HTTP/1.1 102 Wait\r\n\r\n" * 6 + b"HTTP/1.1 200 OK\r\n" + _LENGTH_2),
    "big_head": Script(
        b"HTTP/1.1 200 OK\r\n" + (b"X-Pad: " + b"x" * 1000 + b"\r\n") * 20 + _LENGTH_2
    ),
    "many_headers": Script(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + _LENGTH_2),
    "long_body": Script(b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000),
    "close_without_byte": Script(b"", close=True),
    "close_idle": Script(b"HTTP/1.1 200 OK\r\n" + _LENGTH_2, close=True),
    "hang": Script(b""),
}
"""Kinds that send fixed bytes. `close_idle` says nothing of closing, and then does;
`head200` is a reply to HEAD."""
