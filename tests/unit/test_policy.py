"""Which addresses may be dialled, and how a host must be written."""

from ipaddress import ip_address

import pytest

from probe.errors import SettingsError
from probe.http.policy import (
    ConnectPolicy,
    Name,
    Service,
    UnixPath,
    carried,
    parse_place,
)
from probe.settings import PRIVATE_RANGES

DEFAULT = ConnectPolicy.of(PRIVATE_RANGES)
EVERYTHING = ConnectPolicy.of(["0.0.0.0/0", "::/0"])


@pytest.mark.parametrize("host", ["10.0.0.1", "172.16.5.4", "192.168.1.1", "fd00::1"])
def test_private_ranges_are_dialled_by_default(host: str) -> None:
    assert DEFAULT.refusal(ip_address(host), 8000) is None


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "::1", "8.8.8.8", "172.32.0.1", "100.64.0.1", "2606:4700::1111", "198.51.100.1"],
)
def test_loopback_and_the_rest_of_the_world_are_not(host: str) -> None:
    refusal = DEFAULT.refusal(ip_address(host), 8000)
    assert refusal is not None
    assert f"allow it with --allow {host}" in refusal


def test_loopback_is_dialled_once_allowed() -> None:
    policy = ConnectPolicy.of(["127.0.0.0/8", "::1/128"])
    assert policy.refusal(ip_address("127.3.2.1"), 8000) is None
    assert policy.refusal(ip_address("::1"), 8000) is None


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
    refusal = EVERYTHING.refusal(ip_address(host), 8000)
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
    refusal = ConnectPolicy.of(["::/0", "10.0.0.0/8"]).refusal(address, 8000)
    assert refusal is not None
    assert "leads to 127.0.0.1" in refusal
    assert ConnectPolicy.of(["127.0.0.0/8"]).refusal(address, 8000) is None


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "::1", "::"])
def test_plain_addresses_carry_themselves(host: str) -> None:
    assert carried(ip_address(host)) == ip_address(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "255.255.255.255", "fd00::1", "FD00::0:1", "::1"])
def test_address_has_one_meaning_however_it_is_spelt(host: str) -> None:
    assert parse_place(host) == ip_address(host)


@pytest.mark.parametrize("cidr", ["10.0.0.1/8", "private", "", "10.0.0.0/33"])
def test_list_with_something_else_than_a_network_is_refused(cidr: str) -> None:
    with pytest.raises(SettingsError, match=r"write for example 10\.0\.0\.0/8"):
        ConnectPolicy.of(["10.0.0.0/8", cidr])


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", "127.0.0.1"),  # Teredo turns every bit over
        ("2001:0:4136:e378:8000:63bf:5601:5601", "169.254.169.254"),
        ("fd00::5efe:127.0.0.1", "127.0.0.1"),
        ("fd00::200:5efe:169.254.169.254", "169.254.169.254"),
        ("2001:db8::5efe:10.0.0.1", "10.0.0.1"),
    ],
)
def test_tunnels_are_judged_by_where_they_end(host: str, reached: str) -> None:
    address = ip_address(host)
    assert str(carried(address)) == reached
    refusal = ConnectPolicy.of(["10.0.0.0/8", "::/0"]).refusal(address, 80)
    assert (refusal is None) == (reached == "10.0.0.1")


def test_tunnel_is_judged_by_its_outer_address_too() -> None:
    outside = ip_address("2606:4700::5efe:10.0.0.1")
    refusal = DEFAULT.refusal(outside, 80)
    assert refusal is not None
    assert refusal.endswith("allow it with --allow 2606:4700::5efe:a00:1")


@pytest.mark.parametrize(
    ("ports", "port", "allowed"),
    [
        (["1-65535"], 1, True),
        (["8000-8999", "80"], 80, True),
        (["8000-8999", "80"], 8999, True),
        (["8000-8999", "80"], 9000, False),
        (["8000-8999", "80"], 22, False),
    ],
)
def test_ports_are_dialled_by_allow_list(ports: list[str], port: int, allowed: bool) -> None:  # noqa: FBT001 - a column of the table
    policy = ConnectPolicy.of(["10.0.0.0/8"], ports=ports, allow_dns=True)
    for place in (ip_address("10.0.0.1"), Name("a.example")):
        refusal = policy.refusal(place, port)
        assert (refusal is None) == allowed
        assert allowed or refusal == f"port {port} is not allowed; add it to allow_ports"


@pytest.mark.parametrize("entry", ["0", "65536", "9-8", "0-80", "80-65536", "http", "80,81", "-1"])
def test_range_of_ports_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(SettingsError, match="allow_ports"):
        ConnectPolicy.of(["10.0.0.0/8"], ports=[entry])


def test_names_are_dialled_only_once_allowed() -> None:
    refusal = DEFAULT.refusal(Name("a.example"), 80)
    assert refusal == "a.example is a name, and names are not allowed: set allow_dns = true"
    assert ConnectPolicy.of(PRIVATE_RANGES, allow_dns=True).refusal(Name("a.example"), 80) is None


OWN = ConnectPolicy.of(
    ["0.0.0.0/0", "::/0", "unix:/run"],
    own=[
        Service("the bus", ip_address("10.0.0.5"), 6379),
        Service("the metrics port", ip_address("127.0.0.1"), 9155),
        UnixPath("/run/bus.sock"),
    ],
)


@pytest.mark.parametrize(
    ("host", "port", "what"),
    [
        ("10.0.0.5", 6379, "the bus"),
        ("::ffff:10.0.0.5", 6379, "the bus"),
        ("64:ff9b::10.0.0.5", 6379, "the bus"),
        ("127.0.0.1", 9155, "the metrics port"),
        ("127.9.9.9", 9155, "the metrics port"),
        ("::1", 9155, "the metrics port"),
    ],
)
def test_our_own_services_are_never_dialled(host: str, port: int, what: str) -> None:
    refusal = OWN.refusal(ip_address(host), port)
    assert refusal is not None
    assert refusal.endswith(f"port {port} is {what}: never dialled")
    assert OWN.refusal(ip_address(host), port + 1) is None
    assert OWN.refusal(ip_address("10.0.0.6"), port) is None


def test_service_of_this_host_is_met_at_every_address_of_it() -> None:
    here = {ip_address("0.0.0.0"), ip_address("192.168.0.9")}
    policy = ConnectPolicy.of(
        PRIVATE_RANGES,
        own=[Service("the metrics port", ip_address("0.0.0.0"), 9155)],
        is_here=here.__contains__,
    )
    assert policy.refusal(ip_address("192.168.0.9"), 9155) is not None
    assert policy.refusal(ip_address("192.168.0.8"), 9155) is None


def test_sockets_are_dialled_only_below_an_allowed_directory() -> None:
    policy = ConnectPolicy.of(["unix:/run/replicas", "unix:/srv/one.sock"])
    for path in ("/run/replicas/a.sock", "/run/replicas/b/c.sock", "/srv/one.sock"):
        assert policy.refusal(UnixPath(path), 1) is None
    for path in ("/run/replicas-2/a.sock", "/run/docker.sock", "/srv/one.sock.2"):
        refusal = policy.refusal(UnixPath(path), 1)
        assert refusal is not None
        assert f"allow it with --allow unix:{path}" in refusal
    assert DEFAULT.refusal(UnixPath("/run/replicas/a.sock"), 1) is not None


def test_socket_behind_a_link_is_refused_with_its_real_path() -> None:
    policy = ConnectPolicy.of(["unix:/run"], real_path={"/run/a": "/var/b"}.__getitem__)
    refusal = policy.refusal(UnixPath("/run/a"), 1)
    assert refusal == "unix:/run/a is behind a link; name the socket itself, unix:/var/b"


def test_socket_of_the_bus_is_never_dialled() -> None:
    assert OWN.refusal(UnixPath("/run/other.sock"), 1) is None
    refusal = OWN.refusal(UnixPath("/run/bus.sock"), 1)
    assert refusal == "unix:/run/bus.sock is a service of our own: never dialled"


@pytest.mark.parametrize(
    "entry", ["unix:run", "unix:/run/../etc", "unix:", "unix://run", "unix:/", "unix:/run//"]
)
def test_directory_that_is_no_canonical_path_is_refused(entry: str) -> None:
    with pytest.raises(SettingsError, match="canonical path"):
        ConnectPolicy.of([entry])
