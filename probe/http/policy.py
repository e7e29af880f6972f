"""Where this prober may connect to.

A prober that connects where a bus tells it to is a request-forgery engine, unless the address
actually dialled is judged. Pure; asked once per target when it is loaded, and by the resolver for
each answer. What is never allowed is looked at first, then the operator's list. An IPv4 address
inside an IPv6 one (mapped, 6to4, NAT64, Teredo, ...) is judged as the address it leads to;
Python 3.11's own `is_private` and `is_global` miss most of these.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_network,
)
from typing import Final

from probe import allow as spelt
from probe.allow import ANY_PORT, PORT_MAX, UNIX, Network
from probe.http.place import Address, Name, Place, UnixPath, parse_place

__all__ = [
    "NEVER_DIALLED",
    "Address",
    "ConnectPolicy",
    "Name",
    "Network",
    "Place",
    "Service",
    "UnixPath",
    "carried",
    "parse_place",
]


@dataclass(frozen=True, slots=True)
class Service:
    """A port of our own, which no target may lead to."""

    what: str
    address: Address
    port: int


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
_TEREDO: Final = IPv6Network("2001::/32")  # RFC 4380: the client's address, every bit turned over
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})  # RFC 5214, under any prefix
_LOW_32: Final = 0xFFFF_FFFF
_LOOPBACK_6: Final = IPv6Address("::1")


def carried(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address leads to, or the address itself.

    >>> carried(IPv6Address("2002:7f00:1::"))
    IPv4Address('127.0.0.1')
    """
    if isinstance(address, IPv4Address) or address == _LOOPBACK_6 or int(address) == 0:
        return address
    if address in _TEREDO:
        return IPv4Address(~int(address) & _LOW_32)
    if _is_isatap(address):
        return IPv4Address(int(address) & _LOW_32)
    for network, shift in _CARRIERS:
        if address in network:
            return IPv4Address((int(address) >> shift) & _LOW_32)
    return address


def _is_isatap(address: IPv6Address) -> bool:
    return (int(address) >> 32) & _LOW_32 in _ISATAP


def _clear_of(networks: Iterable[Network]) -> tuple[int, ...]:
    """Return where the IPv4 addresses allowed, and not forbidden for ever, begin and end.

    A number stands in such a range if an odd count of these edges is not above it. Most of a
    fleet is cleared by one search, 0.5 us; to look through the networks one by one takes 9.
    """
    clear = list(collapse_addresses(n for n in networks if isinstance(n, IPv4Network)))
    for never, _ in NEVER_DIALLED:
        if isinstance(never, IPv4Network):
            clear = [part for network in clear for part in _without(network, never)]
    return tuple(
        edge
        for part in sorted(clear)
        for edge in (int(part.network_address), int(part.broadcast_address) + 1)
    )


def _without(network: IPv4Network, never: IPv4Network) -> Iterable[IPv4Network]:
    if not network.overlaps(never):
        return (network,)
    return network.address_exclude(never) if never.subnet_of(network) else ()


def _is_loopback(address: Address) -> bool:
    return address.is_loopback or address.is_unspecified


@dataclass(frozen=True, slots=True)
class ConnectPolicy:
    """The networks, sockets and ports that may be dialled, less those that never are.

    Two questions go to the machine, so who makes the policy hands in the answers: `real_path`
    follows links, `is_here` tells the addresses of this host.
    """

    networks: tuple[Network, ...] = ()
    sockets: tuple[str, ...] = ()
    """Directories, and sockets by themselves."""
    ports: tuple[range, ...] = (range(1, PORT_MAX + 1),)
    allow_dns: bool = False
    own: tuple[Service | UnixPath, ...] = ()
    real_path: Callable[[str], str] = str
    is_here: Callable[[Address], bool] = _is_loopback
    _clear: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_clear", _clear_of(self.networks))

    @classmethod
    def of(
        cls,
        allow: Iterable[str],
        *,
        ports: Iterable[str] = (ANY_PORT,),
        allow_dns: bool = False,
        own: Iterable[Service | UnixPath] = (),
        real_path: Callable[[str], str] = str,
        is_here: Callable[[Address], bool] = _is_loopback,
    ) -> "ConnectPolicy":
        """Build the policy of the operator's lists.

        Raises:
            SettingsError: if an entry is neither a network in CIDR form nor `unix:/prefix`, or a
                range of ports is none.
        """
        networks: list[Network] = []
        sockets: list[str] = []
        for entry in allow:
            if entry.startswith(UNIX):
                sockets.append(spelt.prefix(entry))
            else:
                networks.append(spelt.network(entry))
        return cls(
            networks=tuple(networks),
            sockets=tuple(sockets),
            ports=tuple(map(spelt.ports, ports)),
            allow_dns=allow_dns,
            own=tuple(own),
            real_path=real_path,
            is_here=is_here,
        )

    def refusal(self, place: Place, port: int) -> str | None:
        """Return why `place` may not be dialled, or None if it may.

        Of a name it is only asked whether names are allowed at all: each address it resolves to
        goes through `refusal_of_address`.
        """
        match place:
            case Name():
                if self.allow_dns:
                    return self._refusal_of_port(port)
                return f"{place} is a name, and names are not allowed: set allow_dns = true"
            case UnixPath():
                return self._refusal_of_socket(place)
            case _:
                return self.refusal_of_address(place, port)

    def refusal_of_address(self, address: Address, port: int) -> str | None:
        """Return why `address` may not be dialled at `port`, or None if it may."""
        if isinstance(address, IPv4Address) and bisect_right(self._clear, int(address)) % 2:
            near = any(isinstance(one, Service) and port == one.port for one in self.own)
            return self._refusal_of_address(address, port) if near else self._refusal_of_port(port)
        return self._refusal_of_address(address, port)

    def _refusal_of_address(self, address: Address, port: int) -> str | None:
        reached = carried(address)
        name = f"{address} (leads to {reached})" if reached != address else str(address)
        for network, what in NEVER_DIALLED:
            if reached in network or address in network:
                return f"{name} is {what}: never dialled"
        for service in self.own:
            if isinstance(service, Service) and self._is(service, reached, port):
                return f"{name} port {port} is {service.what}: never dialled"
        if not any(reached in network for network in self.networks):
            return f"{name} is in no allowed network; allow it with --allow {reached}"
        if reached != address and self._is_tunnel(address) and not self._holds(address):
            # Without a tunnel on this host the packets go to whoever owns the outer address.
            return f"{name} is in no allowed network; allow it with --allow {address}"
        return self._refusal_of_port(port)

    def _refusal_of_port(self, port: int) -> str | None:
        if any(port in ports for ports in self.ports):
            return None
        return f"port {port} is not allowed; add it to allow_ports"

    def _refusal_of_socket(self, place: UnixPath) -> str | None:
        real = self.real_path(place.path)
        if real != place.path:
            return f"{place} is behind a link; name the socket itself, {UNIX}{real}"
        if place in self.own:
            return f"{place} is a service of our own: never dialled"
        if any(real == prefix or real.startswith(f"{prefix}/") for prefix in self.sockets):
            return None
        return f"{place} is below no allowed directory; allow it with --allow {place}"

    def _is(self, service: Service, reached: Address, port: int) -> bool:
        if port != service.port:
            return False
        # A server on loopback or on all addresses is met at every address of its host.
        return reached == service.address or (
            self.is_here(service.address) and self.is_here(reached)
        )

    def _is_tunnel(self, address: Address) -> bool:
        return isinstance(address, IPv6Address) and (address in _TEREDO or _is_isatap(address))

    def _holds(self, address: Address) -> bool:
        return any(address in network for network in self.networks)
