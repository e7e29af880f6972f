"""A reply means the same however the network cuts it, and however we remember it."""

import re
from functools import lru_cache
from itertools import pairwise
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from probe.http.response import (
    BODY_MAX_BYTES,
    HEAD_MAX_BYTES,
    READ_MAX_BYTES,
    Fault,
    Latch,
    Reply,
    read_whole,
)
from tests.fakes.replies import SCRIPTS

KNOWN: Final = sorted({script.data for script in SCRIPTS.values() if script.data})

_tokens = st.sampled_from(
    b"HTTP/1.1 200 OK|HTTP/1.0 503 No|HTTP/1.1 100 Go|HTTP/1.1 101 Up|HTTP/1.1 204 Nil"
    b"|Content-Length: 2|Content-Length: 0|content-length: 3|Transfer-Encoding: chunked"
    b"|Connection: close|Connection: keep-alive|Upgrade: x|X-A: b|X\x00Y: z| folded"
    b"|\r\n|\n|\r\n\r\n|\r\n\r\n|\r|:| |0\r\n\r\n|2\r\nok\r\n|ok|zz|\x00".split(b"|")
)
_grammatical = st.lists(_tokens, max_size=24).map(b"".join)
_mutated = st.builds(
    lambda data, at, new: data[:at] + new + data[at + 1 :],
    st.sampled_from([data for data in KNOWN if len(data) < 1000]),
    st.integers(0, 200),
    st.binary(max_size=3),
)
_long_heads = st.integers(-40, 40).map(
    lambda extra: (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: "
        + b"x" * (HEAD_MAX_BYTES - 50 + extra)
        + b"\r\n\r\n"
    )
)
replies = st.one_of(st.sampled_from(KNOWN), _grammatical, _mutated, _long_heads, st.binary())


def read(segments: list[bytes], *, head_only: bool) -> tuple[int, bool, Fault | None]:
    """Read the segments, then the close; a connection with unread bytes is not reused."""
    reply, left = read_by(Latch(head_only=head_only), segments)
    return reply.status, reply.reusable and not any(left), reply.fault


def read_by(latch: Latch, segments: list[bytes]) -> tuple[Reply, list[bytes]]:
    """Read the segments, then the close; return also what was not read."""
    reply: Reply | None = None
    left = list(segments)
    while left and reply is None:
        reply = latch.feed(left.pop(0))
    return reply or latch.closed(), left


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place for place in at if place < len(data))})
    return [data[a:b] for a, b in pairwise(places)]


@given(replies, st.lists(st.integers(0, 20_000) | st.integers(0, 200), max_size=8), st.booleans())
def test_any_split_of_the_bytes_has_the_same_verdict(
    data: bytes,
    at: list[int],
    head_only: bool,  # noqa: FBT001 - drawn
) -> None:
    whole, split = read([data], head_only=head_only), read(cut(data, at), head_only=head_only)
    assert whole[0] == split[0]
    assert whole[2] == split[2]
    if not re.search(rb"[\r\n]$", data):  # empty lines behind a reply are no bytes of another
        assert whole[1] == split[1]


@given(_mutated | _grammatical)
def test_byte_by_byte_has_the_same_verdict(data: bytes) -> None:
    whole = read([data], head_only=False)
    single = read([data[i : i + 1] for i in range(len(data))], head_only=False)
    assert (whole[0], whole[2]) == (single[0], single[2])


remembered = lru_cache(maxsize=8)(read_whole)


@given(st.lists(replies, min_size=1, max_size=12))
def test_remembered_reply_is_what_the_parser_says(many: list[bytes]) -> None:
    for data in many + many:
        assert remembered(data) == Latch().feed(data)


def kept(data: bytes, at: list[int], *, head_only: bool = False) -> Reply:
    """Read a reply whose body is needed, cut at those places."""
    reply, left = read_by(Latch(head_only=head_only, keep=True), cut(data, at))
    return reply._replace(reusable=reply.reusable and not any(left), detail="")


_places = st.lists(st.integers(0, 100_000) | st.integers(0, 200), max_size=8)


@given(replies, _places, st.booleans())
def test_any_split_of_a_needed_body_has_the_same_verdict_headers_and_body(
    data: bytes,
    at: list[int],
    head_only: bool,  # noqa: FBT001 - drawn
) -> None:
    whole, split = kept(data, [], head_only=head_only), kept(data, at, head_only=head_only)
    if re.search(rb"[\r\n]$", data):  # empty lines behind a reply are no bytes of another
        whole, split = whole._replace(reusable=False), split._replace(reusable=False)
    assert whole == split


@given(replies)
def test_needing_the_body_changes_no_status_and_only_adds_faults(data: bytes) -> None:
    without, with_body = read([data], head_only=False), kept(data, [])
    assert with_body.status == without[0]
    assert with_body.fault or (with_body.reusable, with_body.fault) == without[1:]


_bodies = st.binary(max_size=300) | st.integers(BODY_MAX_BYTES - 3, BODY_MAX_BYTES + 3).map(
    lambda size: b"b" * size
)


@given(_bodies, st.lists(st.integers(1, 4000), min_size=1), st.sampled_from(range(3)), _places)
def test_kept_body_is_the_body_that_was_framed(
    body: bytes, sizes: list[int], framing: int, at: list[int]
) -> None:
    head = b"HTTP/1.1 200 OK\r\nX-A: b\r\n"
    if framing == 0:
        data = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    elif framing == 1:
        data = head + b"\r\n" + body
    else:
        data = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, sizes)
    reply = kept(data, at)
    too_large = len(body) > BODY_MAX_BYTES or len(data) > READ_MAX_BYTES
    assert reply.fault is (Fault.TOO_LARGE if too_large else None)
    assert reply.body == (b"" if too_large else body)
    assert reply.headers[:1] == (() if too_large else ((b"x-a", b"b"),))


def chunked(body: bytes, sizes: list[int]) -> bytes:
    """Frame `body` in chunks of those sizes, over and over."""
    out, at, turn = bytearray(), 0, 0
    while at < len(body):
        piece = body[at : at + sizes[turn % len(sizes)]]
        out += b"%x\r\n%s\r\n" % (len(piece), piece)
        at, turn = at + len(piece), turn + 1
    return bytes(out + b"0\r\n\r\n")


@given(replies)
def test_verdict_is_a_status_or_a_fault_and_never_both(data: bytes) -> None:
    status, reusable, fault = read([data], head_only=False)
    assert (status == 0) == (fault is not None)
    assert not (reusable and fault)
    assert status in {0, 101} or 200 <= status <= 999
