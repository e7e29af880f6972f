"""Which addresses may be dialled, and how a host must be written."""

from ipaddress import ip_address

import pytest

from probe.errors import SettingsError, UnsupportedCheck
from probe.http.policy import ConnectPolicy, carried, parse_address
from probe.settings import PRIVATE_RANGES

DEFAULT = ConnectPolicy.of(PRIVATE_RANGES)
EVERYTHING = ConnectPolicy.of(["0.0.0.0/0", "::/0"])


@pytest.mark.parametrize("host", ["10.0.0.1", "172.16.5.4", "192.168.1.1", "fd00::1"])
def test_private_ranges_are_dialled_by_default(host: str) -> None:
    assert DEFAULT.refusal(ip_address(host)) is None


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "::1", "8.8.8.8", "172.32.0.1", "100.64.0.1", "2606:4700::1111", "198.51.100.1"],
)
def test_loopback_and_the_rest_of_the_world_are_not(host: str) -> None:
    refusal = DEFAULT.refusal(ip_address(host))
    assert refusal is not None
    assert f"allow it with --allow {host}" in refusal


def test_loopback_is_dialled_once_allowed() -> None:
    policy = ConnectPolicy.of(["127.0.0.0/8", "::1/128"])
    assert policy.refusal(ip_address("127.3.2.1")) is None
    assert policy.refusal(ip_address("::1")) is None


@pytest.mark.parametrize(
    ("host", "what"),
    [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("169.254.169.254", "link-local"),
        ("169.254.170.2", "link-local"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("192.0.0.192", "metadata"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.250", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("fe80::1", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("ff02::1", "multicast"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::169.254.169.254", "link-local"),
        ("::ffff:0:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("64:ff9b:1::a9fe:a9fe", "link-local"),
        ("2002:a9fe:a9fe::1", "link-local"),
        ("::ffff:0.0.0.0", "unspecified"),
    ],
)
def test_some_addresses_are_never_dialled_whatever_is_allowed(host: str, what: str) -> None:
    refusal = EVERYTHING.refusal(ip_address(host))
    assert refusal is not None
    assert what in refusal
    assert refusal.endswith("never dialled")


@pytest.mark.parametrize(
    "host",
    [
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_ipv4_inside_ipv6_is_judged_as_what_it_leads_to(host: str) -> None:
    address = ip_address(host)
    assert str(carried(address)) == "127.0.0.1"
    refusal = ConnectPolicy.of(["::/0", "10.0.0.0/8"]).refusal(address)
    assert refusal is not None
    assert "leads to 127.0.0.1" in refusal
    assert ConnectPolicy.of(["127.0.0.0/8"]).refusal(address) is None


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "::1", "::"])
def test_plain_addresses_carry_themselves(host: str) -> None:
    assert carried(ip_address(host)) == ip_address(host)


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "127.0.0.01",
        "0x7f.0.0.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "127.0.0.1.",
        "256.0.0.1",
        "10.0.0.1/8",
        "fe80::1%1",
        "fd00::1::2",
        ":",
    ],
)
def test_forms_that_only_getaddrinfo_takes_for_an_address_are_refused(host: str) -> None:
    with pytest.raises(UnsupportedCheck, match="replica_host"):
        parse_address(host)


@pytest.mark.parametrize(
    "host",
    ["localhost", "replica-1.example", "metadata.google.internal", "１２７.0.0.1", "①"],  # noqa: RUF001 - full-width digits are the point
)
def test_name_is_refused_because_it_is_a_name(host: str) -> None:
    with pytest.raises(UnsupportedCheck, match="does not resolve names"):
        parse_address(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "255.255.255.255", "fd00::1", "FD00::0:1", "::1"])
def test_address_has_one_meaning_however_it_is_spelt(host: str) -> None:
    assert parse_address(host) == ip_address(host)


@pytest.mark.parametrize("cidr", ["10.0.0.1/8", "private", "", "10.0.0.0/33"])
def test_list_with_something_else_than_a_network_is_refused(cidr: str) -> None:
    with pytest.raises(SettingsError, match=r"write for example 10\.0\.0\.0/8"):
        ConnectPolicy.of(["10.0.0.0/8", cidr])
