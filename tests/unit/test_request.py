"""What is sent to a replica."""

from typing import Literal

import pytest

from probe.errors import MalformedEntry
from probe.http.request import NOT_THE_TARGETS, Headers, authority, encode_request, headers_of

PLAIN = headers_of(host_header="10.0.0.1:8000", agent="us/1.0")


def with_headers(*own: tuple[str, str]) -> Headers:
    return headers_of(host_header="a", agent="us/1.0", own=own)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_request_is_these_bytes_and_no_others(method: Literal["GET", "HEAD"]) -> None:
    request = encode_request(method, "/health?x=1", PLAIN)
    assert request == (
        f"{method} /health?x=1 HTTP/1.1\r\n"
        "Host: 10.0.0.1:8000\r\n"
        "User-Agent: us/1.0\r\n"
        "Accept: */*\r\n"
        "Accept-Encoding: identity\r\n"
        "Connection: keep-alive\r\n"
        "\r\n"
    ).encode("ascii")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "health",
        "/he alth",
        "/health\n",
        "/health\r\nX: y",
        "/health\x00",
        "/gesundheit\xe4",
        "*",
    ],
)
def test_path_that_could_write_more_than_a_path_is_refused(path: str) -> None:
    with pytest.raises(MalformedEntry, match=r"^path "):
        encode_request("GET", path, PLAIN)


@pytest.mark.parametrize("host", ["", "a b", "a\r\nX: y", "a\n", "user@host", "a/b", "h\xf6st"])
def test_host_header_that_could_write_more_than_a_host_is_refused(host: str) -> None:
    with pytest.raises(MalformedEntry, match="host_header"):
        headers_of(host_header=host, agent="us/1.0")


@pytest.mark.parametrize(
    "name", [*sorted(NOT_THE_TARGETS), "Content-Length", "a b", "", "X:", "x\n"]
)
def test_header_that_decides_about_the_message_is_not_the_targets(name: str) -> None:
    with pytest.raises(MalformedEntry, match="not a target's to set"):
        with_headers((name, "x"))


@pytest.mark.parametrize(
    "value", ["", " sk-1", "sk-1 ", "sk-1\r\nX: y", "sk-1\n", "sk-1\x00", "sk-1\xf6", "x" * 4097]
)
def test_header_value_that_could_write_more_than_a_value_is_refused_unseen(value: str) -> None:
    with pytest.raises(MalformedEntry, match="the value of X-Key cannot be sent") as refused:
        with_headers(("X-Key", value))
    assert "sk-1" not in str(refused.value)


def test_targets_own_header_takes_the_place_of_ours() -> None:
    headers = with_headers(("accept", "text/plain"), ("Authorization", "Bearer a b"))
    assert headers == (
        ("Host", "a"),
        ("User-Agent", "us/1.0"),
        ("Accept-Encoding", "identity"),
        ("accept", "text/plain"),
        ("Authorization", "Bearer a b"),
    )
    request = encode_request("OPTIONS", "/", headers)
    assert request.endswith(b"Authorization: Bearer a b\r\nConnection: keep-alive\r\n\r\n")


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("10.0.0.1", 80, "10.0.0.1"),
        ("10.0.0.1", 8000, "10.0.0.1:8000"),
        ("fd00::1", 80, "[fd00::1]"),
        ("fd00::1", 8000, "[fd00::1]:8000"),
    ],
)
def test_host_header_names_the_port_unless_it_is_the_default(
    host: str, port: int, expected: str
) -> None:
    assert authority(host, port) == expected
