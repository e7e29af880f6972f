"""What the policy wants to know of this machine: its addresses, its links, our own services.

Called when a prober is put together; the policy itself asks nobody. A target that leads to the
bus or to our own metrics would let who writes targets speak to them through us.
"""

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from os.path import realpath
from typing import Final
from urllib.parse import unquote, urlsplit

from probe.bus_url import Kind, parse_bus_url
from probe.http.place import Address, UnixPath
from probe.http.policy import Service

BUS_PORT: Final = 6379
_DISCARD_PORT: Final = 9


def is_here(address: Address) -> bool:
    """Tell whether `address` is one of this host's, as the kernel's routes say now.

    Connecting a datagram socket sends nothing; it only picks the address to send from, which to
    an address of our own is that very address.
    """
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect((str(address), _DISCARD_PORT))
            return ip_address(way.getsockname()[0]) == address
    except OSError:
        return False  # no such family or no route: nothing of ours is there


def bus_services(redis_url: str) -> list[Service | UnixPath]:
    """Return where the bus is, as its address resolves now; may wait for a name server.

    Of Sentinels and clusters these are the servers that are named; the ones they tell of later
    are the network's own to keep apart from replicas.

    Raises:
        SettingsError: if the address cannot be used.
    """
    parts = urlsplit(redis_url)
    if parts.scheme == "unix":
        return [UnixPath(realpath(unquote(parts.path)))]
    url = parse_bus_url(redis_url)
    hosts = url.hosts
    if url.kind is Kind.SINGLE:
        bare = urlsplit(url.bare)
        hosts = ((bare.hostname or "localhost", bare.port or BUS_PORT),)
    return [
        Service("the bus", address, port)
        for host, port in hosts
        for address in sorted(set(_addresses(host)), key=int)
    ]


def metrics_service(host: str, port: int) -> list[Service]:
    """Return where our own metrics are; none while the port is not known yet."""
    return [Service("the metrics port", each, port) for each in set(_addresses(host)) if port]


def _addresses(host: str) -> Iterator[Address]:
    """Yield what the system makes of `host`, as the bus client will; nothing if it fails."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return  # the bus client will say so in better words
    for *_, where in found:
        yield ip_address(str(where[0]).partition("%")[0])
