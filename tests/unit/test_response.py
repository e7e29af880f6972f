"""What a replica's bytes mean, without sockets."""

import gc

import pytest

from probe.http.response import (
    BODY_MAX_BYTES,
    HEAD_MAX_BYTES,
    HEADERS_MAX,
    NOT_A_BYTE,
    Fault,
    Latch,
    Reply,
    read_whole,
)
from tests.fakes.replies import SCRIPTS

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def read(data: bytes, *, head_only: bool = False) -> Reply:
    """Read a reply whose sender closes behind it."""
    latch = Latch(head_only=head_only)
    return latch.feed(data) or latch.closed()


EXPECTED = {
    "ok200": (200, True, None),
    "ok200_http10": (200, False, None),
    "ok200_close": (200, False, None),
    "ok200_continue": (200, True, None),
    "head200": (200, False, None),
    "no_phrase": (200, True, None),
    "trailers": (200, True, None),
    "until_close": (200, False, None),
    "other_body": (200, True, None),
    "gzip": (200, True, None),
    "full_body": (200, True, None),
    "half_body": (200, False, None),
    "http2": (0, False, Fault.MALFORMED),
    "bare_lf": (200, True, None),
    "chunked": (200, True, None),
    "s101": (101, False, None),
    "s204": (204, True, None),
    "s301": (301, True, None),
    "s401": (401, True, None),
    "s403": (403, True, None),
    "s404": (404, True, None),
    "s500": (500, True, None),
    "s503": (503, True, None),
    "s999": (999, True, None),
    "two_replies": (500, False, None),
    "garbage": (0, False, Fault.MALFORMED),
    "http09": (0, False, Fault.MALFORMED),
    "nul_header": (0, False, Fault.MALFORMED),
    "dup_length": (0, False, Fault.MALFORMED),
    "len_and_chunked": (200, False, None),
    "bad_chunk": (200, False, None),
    "cut_head": (0, False, Fault.CLOSED),
    "cut_body": (200, False, None),
    "info5": (200, True, None),
    "info6": (0, False, Fault.TOO_LARGE),
    "big_head": (0, False, Fault.TOO_LARGE),
    "many_headers": (0, False, Fault.TOO_LARGE),
    "long_body": (200, False, None),
    "close_without_byte": (0, False, Fault.CLOSED),
    "close_idle": (200, True, None),
    "hang": (0, False, Fault.CLOSED),
}


@pytest.mark.parametrize("kind", sorted(SCRIPTS))
def test_each_kind_of_reply_has_its_verdict(kind: str) -> None:
    reply = read(SCRIPTS[kind].data)
    assert (reply.status, reply.reusable, reply.fault) == EXPECTED[kind]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"ICE/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 Long\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 -20 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1  200 Two blanks\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX y: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_what_is_not_http_1_is_malformed(data: bytes) -> None:
    reply = read(data)
    assert (reply.status, reply.reusable, reply.fault) == (0, False, Fault.MALFORMED)


def test_detail_shows_how_garbage_begins_with_its_bytes_escaped() -> None:
    reply = read(b"\x1b[31mSSH-2.0\n")
    assert reply.detail == "not HTTP/1; begins '\\x1b[31mSSH-2.0\\n'"


def test_first_final_status_stays_whatever_follows_it() -> None:
    assert read(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n" + OK).status == 500
    assert read(OK + b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n").status == 200
    assert read(OK + b"\xff\xfe").status == 200


@pytest.mark.parametrize("more", [b"H", b"HTTP/1.1 200 OK\r\n", b"\xff", OK])
def test_connection_with_bytes_beyond_the_reply_is_not_reused(more: bytes) -> None:
    assert not read(OK + more).reusable


def test_head_ends_the_reply_to_a_head_request() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    latch = Latch(head_only=True)
    assert latch.feed(head) == Reply(200, reusable=True)
    assert not read(head + b"x", head_only=True).reusable
    assert not read(b"HTTP/1.1 200 OK\r\n" + b"Connection: close\r\n\r\n", head_only=True).reusable


def test_body_must_come_whole_before_the_connection_is_free() -> None:
    latch = Latch()
    assert latch.feed(OK[:-1]) is None
    assert latch.feed(OK[-1:]) == Reply(200, reusable=True)


def head_of(size: int) -> bytes:
    start, end = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ", b"\r\n\r\n"
    return start + b"x" * (size - len(start) - len(end)) + end


def test_head_may_have_16_kib_and_not_a_byte_more() -> None:
    assert read(head_of(HEAD_MAX_BYTES)) == Reply(200, reusable=True)
    reply = read(head_of(HEAD_MAX_BYTES + 1))
    assert (reply.fault, reply.detail) == (Fault.TOO_LARGE, "head over 16 KiB")


def test_head_may_have_100_headers_and_not_one_more() -> None:
    def head(count: int) -> bytes:
        return b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (count - 1) + b"Content-Length: 0\r\n\r\n"

    assert read(head(HEADERS_MAX)) == Reply(200, reusable=True)
    assert read(head(HEADERS_MAX + 1)).fault is Fault.TOO_LARGE


def test_endless_head_is_given_up_on_at_its_limit() -> None:
    latch = Latch()
    latch.feed(b"HTTP/1.1 200 OK\r\nX: ")
    fed = 0
    while (reply := latch.feed(b"x" * 1000)) is None:
        fed += 1000
    assert reply.fault is Fault.TOO_LARGE
    assert fed <= HEAD_MAX_BYTES


@pytest.mark.parametrize(
    ("framing", "piece"),
    [
        (b"Content-Length: 1000000", b"x" * 1000),
        (b"Transfer-Encoding: chunked", b"3e8\r\n" + b"x" * 1000 + b"\r\n"),
        (b"Transfer-Encoding: chunked", b"1;" + b"e" * 1000 + b"\r\nx\r\n"),
        (b"X: until closed", b"x" * 1000),
    ],
)
def test_body_is_read_to_its_limit_and_then_the_status_counts(framing: bytes, piece: bytes) -> None:
    latch = Latch()
    latch.feed(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
    fed = 0
    while (reply := latch.feed(piece)) is None:
        fed += len(piece)
    assert reply == Reply(200, reusable=False)
    assert fed <= BODY_MAX_BYTES + HEAD_MAX_BYTES


def test_largest_body_leaves_the_connection_free() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    assert read(head % BODY_MAX_BYTES + b"x" * BODY_MAX_BYTES).reusable
    assert not read(head % (BODY_MAX_BYTES + 1) + b"x" * (BODY_MAX_BYTES + 1)).reusable


def test_closing_tells_silence_from_half_a_head() -> None:
    latch = Latch()
    latch.feed(b"HTTP/1.1 2")
    assert latch.closed().detail == "closed after 10 bytes of an incomplete head"
    assert NOT_A_BYTE.detail == "closed without a byte"


def test_part_of_a_reply_is_not_a_whole_one() -> None:
    assert read_whole(OK) == Reply(200, reusable=True)
    assert all(read_whole(OK[:cut]) is None for cut in range(len(OK)))


NEEDED = {
    "ok200": (200, True, None, b"ok"),
    "ok200_http10": (200, False, None, b"ok"),
    "chunked": (200, True, None, b"ok"),
    "bare_lf": (200, True, None, b"ok"),
    "ok200_continue": (200, True, None, b"ok"),
    "s204": (204, True, None, b""),
    "s101": (101, False, None, b""),
    "two_replies": (500, False, None, b""),
    "cut_body": (200, False, Fault.CLOSED, b""),
    "head200": (200, False, Fault.CLOSED, b""),
    "bad_chunk": (200, False, Fault.MALFORMED, b""),
    "len_and_chunked": (200, False, Fault.MALFORMED, b""),
    "long_body": (200, False, Fault.TOO_LARGE, b""),
    "cut_head": (0, False, Fault.CLOSED, b""),
    "garbage": (0, False, Fault.MALFORMED, b""),
    "big_head": (0, False, Fault.TOO_LARGE, b""),
}


@pytest.mark.parametrize("kind", NEEDED)
def test_needed_body_comes_whole_or_is_a_fault(kind: str) -> None:
    latch = Latch(keep=True)
    reply = latch.feed(SCRIPTS[kind].data) or latch.closed()
    assert (reply.status, reply.reusable, reply.fault, reply.body) == NEEDED[kind]
    assert bool(reply.detail) == (reply.fault is not None)


def test_kept_headers_are_those_of_the_final_reply_in_lower_case() -> None:
    data = b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nX-A: 1\r\nx-a:  2 \r\n"
    reply = Latch(keep=True).feed(
        data + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: t\r\n\r\n"
    )
    assert reply is not None
    assert reply.headers == ((b"x-a", b"1"), (b"x-a", b"2"), (b"transfer-encoding", b"chunked"))


def test_reset_ends_no_body_that_only_the_end_of_the_stream_may_end() -> None:
    def read_to_end(*, cleanly: bool) -> Reply:
        latch = Latch(keep=True)
        assert latch.feed(b"HTTP/1.1 200 OK\r\n\r\nhalf of") is None
        return latch.closed(cleanly=cleanly)

    assert read_to_end(cleanly=True).body == b"half of"
    assert read_to_end(cleanly=False).detail == "closed after 7 bytes of an incomplete body"


@pytest.mark.parametrize("data", [OK, OK[:-1], b"garbage"])
def test_ended_latch_leaves_nothing_to_the_garbage_collector(data: bytes) -> None:
    gc.collect()
    gc.disable()
    try:
        read(data)
        read_whole(data)
        assert not any(isinstance(thing, Latch) for thing in gc.get_objects())
    finally:
        gc.enable()
