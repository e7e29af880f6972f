"""Which addresses this prober may dial.

A prober that connects where a bus tells it to is a request-forgery engine, unless the address
actually dialled is judged. Pure; asked once per target when it is loaded. What is never allowed
is looked at first, then the operator's list. An IPv4 address inside an IPv6 one (mapped, 6to4,
NAT64, ...) is judged as the IPv4 address it leads to; Python 3.11's own `is_private` and
`is_global` miss most of these.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from probe.errors import SettingsError, UnsupportedCheck

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Name:
    """A host name: resolved by the prober, each answer judged before it is dialled."""

    text: str


@dataclass(frozen=True, slots=True)
class UnixPath:
    """A socket on this host."""

    path: str


Place = Address | Name | UnixPath
"""Where a replica is."""

NEVER_DIALLED: Final[tuple[tuple[Network, str], ...]] = tuple(
    (ip_network(cidr), what)
    for cidr, what in (
        ("0.0.0.0/8", "unspecified"),
        ("169.254.0.0/16", "link-local, where clouds serve their metadata"),
        ("100.100.100.200/32", "a cloud's metadata service"),
        ("168.63.129.16/32", "a cloud's metadata service"),
        ("192.0.0.192/32", "a cloud's metadata service"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved or broadcast"),
        ("::/128", "unspecified"),
        ("fe80::/10", "link-local"),
        ("fd00:ec2::/32", "a cloud's metadata service"),
        ("fd20:ce::254/128", "a cloud's metadata service"),
        ("ff00::/8", "multicast"),
    )
)

# Where an IPv6 range carries an IPv4 address: the range, and how far right its last bit lies.
_CARRIERS: Final[tuple[tuple[IPv6Network, int], ...]] = (
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped, RFC 4291
    (IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated, RFC 2765
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052
    (IPv6Network("64:ff9b:1::/48"), 0),  # NAT64 of a site, RFC 8215, in its /96 form
    (IPv6Network("2002::/16"), 80),  # 6to4, RFC 3056
    (IPv6Network("::/96"), 0),  # IPv4-compatible, RFC 4291; ::1 is told apart below
)
_LOOPBACK_6: Final = IPv6Address("::1")
_LOOKS_NUMERIC: Final = frozenset("0123456789.xXabcdefABCDEF")


def parse_address(host: str) -> Address:
    """Return the address that `host` spells, if it spells exactly one on every machine.

    >>> parse_address("10.0.0.1")
    IPv4Address('10.0.0.1')

    Raises:
        UnsupportedCheck: if it is a name, or one of the forms that only `getaddrinfo` takes for
            an address (`127.1`, octal, hexadecimal, one big number).
    """
    try:
        address = ip_address(host)
    except ValueError:
        raise UnsupportedCheck(_explain(host)) from None
    scoped = isinstance(address, IPv6Address) and address.scope_id is not None
    if scoped or (isinstance(address, IPv4Address) and str(address) != host):
        raise UnsupportedCheck(_explain(host))
    return address


def _explain(host: str) -> str:
    if ":" in host or (host[:1].isdigit() and _LOOKS_NUMERIC.issuperset(host)):
        return (
            f"replica_host {host!a} is not a canonical IP address; "
            "write four decimal numbers (10.0.0.1) or IPv6 without a zone (fd00::1)"
        )
    return (
        f"replica_host {host!a} is a name, and this version does not resolve names; "
        "write the replica's IP address"
    )


def carried(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address leads to, or the address itself.

    >>> carried(IPv6Address("2002:7f00:1::"))
    IPv4Address('127.0.0.1')
    """
    if isinstance(address, IPv4Address) or address == _LOOPBACK_6 or int(address) == 0:
        return address
    for network, shift in _CARRIERS:
        if address in network:
            return IPv4Address((int(address) >> shift) & 0xFFFF_FFFF)
    return address


@dataclass(frozen=True, slots=True)
class ConnectPolicy:
    """The networks that may be dialled, less those that never are."""

    allowed: tuple[Network, ...]

    @classmethod
    def of(cls, cidrs: Iterable[str]) -> "ConnectPolicy":
        """Build the policy of the operator's list.

        Raises:
            SettingsError: if an entry is not a network in CIDR form.
        """
        try:
            return cls(tuple(ip_network(cidr) for cidr in cidrs))
        except ValueError as error:
            raise SettingsError(f"allow: {error}; write for example 10.0.0.0/8") from error

    def refusal(self, address: Address) -> str | None:
        """Return why `address` may not be dialled, or None if it may."""
        reached = carried(address)
        name = f"{address} (leads to {reached})" if reached != address else str(address)
        for network, what in NEVER_DIALLED:
            if reached in network or address in network:
                return f"{name} is {what}: never dialled"
        if any(reached in network for network in self.allowed):
            return None
        return f"{name} is in no allowed network; allow it with --allow {reached}"
