"""How a host must be written: one spelling, one meaning."""

from ipaddress import ip_address

import pytest

from probe.errors import UnsupportedCheck
from probe.http.place import SOCKET_PATH_MAX, Name, UnixPath, parse_place


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "127.0.0.01",
        "0x7f.0.0.1",
        "0x7f000001",
        "0x7F.1",
        "2130706433",
        "017700000001",
        "127.0.0.1.",
        "256.0.0.1",
        "1.2.3.4.5",
        "10.0.0.1/8",
        "fe80::1%1",
        "fe80::1%eth0",
        "fd00::1::2",
        "[::1]",
        "::ffff:127.1",
        "a.example.127",
        "a.example.0x7f",
        "dead.beef.0",
        ":",
    ],
)
def test_forms_that_only_getaddrinfo_takes_for_an_address_are_refused(host: str) -> None:
    with pytest.raises(UnsupportedCheck, match="replica_host"):
        parse_place(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a..b",
        ".a",
        "a.",
        "-a",
        "a-",
        "a_b",
        "a b",
        "a\r\nb",
        "a\x00b",
        "user@a",
        "a/b",
        "a#b",
        "a?b",
        "a\\b",
        "１２７.0.0.1",  # noqa: RUF001 - full-width digits are the point
        "①",
        "ⓔxample.com",
        "127。0。0。1",
        "x" * 64,
        ".".join(["abcdefgh"] * 29),
    ],
)
def test_what_is_no_host_name_is_refused(host: str) -> None:
    with pytest.raises(UnsupportedCheck, match="replica_host"):
        parse_place(host)


@pytest.mark.parametrize(
    "host", ["localhost", "a", "replica-1.example", "10.example", "xn--e1afmk"]
)
def test_names_are_names(host: str) -> None:
    assert parse_place(host) == Name(host)


def test_name_is_compared_without_case() -> None:
    assert parse_place("Replica.Example") == Name("replica.example")


@pytest.mark.parametrize("host", ["10.0.0.1", "255.255.255.255", "fd00::1", "FD00::0:1", "::1"])
def test_address_has_one_meaning_however_it_is_spelt(host: str) -> None:
    assert parse_place(host) == ip_address(host)


def test_socket_is_a_canonical_path() -> None:
    place = parse_place("unix:/run/replicas/a.sock")
    assert place == UnixPath("/run/replicas/a.sock")
    assert str(place) == "unix:/run/replicas/a.sock"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "a.sock",
        "./a",
        "/run/../etc/a",
        "/run/./a",
        "/run//a",
        "/run/a/",
        "//run/a",
        "/run/a b",
        "/run/a\n",
        "/run/\x00a",
        "@abstract",
        "/" + "a" * SOCKET_PATH_MAX,
    ],
)
def test_path_with_two_spellings_is_refused(path: str) -> None:
    with pytest.raises(UnsupportedCheck, match="canonical path"):
        parse_place(f"unix:{path}")
