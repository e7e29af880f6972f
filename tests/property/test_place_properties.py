"""No host is read in two ways: what the system takes for an address is never a name."""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from probe.errors import UnsupportedCheck
from probe.http.place import Name, UnixPath, parse_place
from probe.http.policy import NEVER_DIALLED, ConnectPolicy, carried

NUMERIC = st.text("0123456789.xXabcdefABCDEF:%[]", max_size=40)
PARTS = st.integers(0, 2**32).flatmap(
    lambda n: st.sampled_from([f"{n}", f"{n:o}", f"0{n:o}", hex(n)])
)
DOTTED = st.lists(PARTS, min_size=1, max_size=5).map(".".join)


def system_takes_it_for_an_address(host: str) -> bool:
    try:
        socket.inet_aton(host)
    except (OSError, ValueError):
        return False
    return True


@given(st.one_of(NUMERIC, DOTTED, st.text(max_size=300), st.text(max_size=80).map("unix:".__add__)))
def test_host_has_one_reading_or_none(host: str) -> None:
    try:
        place = parse_place(host)
    except UnsupportedCheck:
        return
    again = parse_place(str(place))
    assert again == place
    match place:
        case Name():
            assert not system_takes_it_for_an_address(host)
            assert place.text.isascii()
        case UnixPath():
            assert ".." not in place.path.split("/")
        case IPv4Address():
            assert socket.inet_ntoa(socket.inet_aton(host)) == host
        case IPv6Address():
            assert "%" not in host


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_carrier_is_judged_as_what_it_carries(inner: IPv4Address) -> None:
    policy = ConnectPolicy.of(["10.0.0.0/8", "::/0"])
    number = int(inner)
    plain = policy.refusal_of_address(inner, 80)
    carriers = [
        (0xFFFF << 32) | number,
        (0xFFFF << 48) | number,
        (0x64FF9B << 96) | number,
        (0x2002 << 112) | (number << 80),
        (0x20010000 << 96) | (number ^ 0xFFFFFFFF),
        (0xFD00 << 112) | (0x5EFE << 32) | number,
    ]
    for carrier in map(IPv6Address, carriers):
        assert carried(carrier) == inner
        assert (policy.refusal_of_address(carrier, 80) is None) == (plain is None)


NETWORKS = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
        lambda net: str(IPv4Network(net, strict=False))
    ),
    max_size=4,
)
EDGES = [
    address
    for never, _ in NEVER_DIALLED
    if isinstance(never, IPv4Network)
    for address in (int(never[0]) - 1, int(never[0]), int(never[-1]), int(never[-1]) + 1)
    if 0 <= address < 2**32
]


@given(NETWORKS, st.one_of(st.integers(0, 2**32 - 1), st.sampled_from(EDGES)))
def test_addresses_are_cleared_at_once_only_where_every_network_says_so(
    allow: list[str], number: int
) -> None:
    """The short way over ranges answers as the long one over networks."""
    policy = ConnectPolicy.of(allow)
    for address in (IPv4Address(number), *(n[e] for n in policy.networks for e in (0, -1))):
        assert isinstance(address, IPv4Address)
        assert policy.refusal_of_address(address, 80) == policy._refusal_of_address(address, 80)
