"""What is sent to a replica."""

from typing import Literal

import pytest

from probe.errors import MalformedEntry
from probe.http.request import authority, encode_request


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_request_is_these_bytes_and_no_others(method: Literal["GET", "HEAD"]) -> None:
    request = encode_request(method, "/health?x=1", host_header="10.0.0.1:8000", agent="us/1.0")
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
    with pytest.raises(MalformedEntry, match="health_path"):
        encode_request("GET", path, host_header="a", agent="us/1.0")


@pytest.mark.parametrize("host", ["", "a b", "a\r\nX: y", "a\n", "user@host", "a/b", "h\xf6st"])
def test_host_header_that_could_write_more_than_a_host_is_refused(host: str) -> None:
    with pytest.raises(MalformedEntry, match="host_header"):
        encode_request("GET", "/", host_header=host, agent="us/1.0")


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
