"""Where a replica is, and how that must be written: one spelling, one meaning on every machine.

Pure; called when a target is loaded. `getaddrinfo` takes `127.1`, octal, hexadecimal and
full-width digits for loopback; here a host is a canonical IP address, a host name that cannot be
read as one, or the path of a socket.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from probe.allow import UNIX, is_canonical
from probe.errors import UnsupportedCheck

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Name:
    """A host name: resolved by the prober, each answer judged before it is dialled."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class UnixPath:
    """A socket on this host."""

    path: str

    def __str__(self) -> str:
        return f"{UNIX}{self.path}"


Place = Address | Name | UnixPath
"""Where a replica is."""

SOCKET_PATH_MAX: Final = 107
"""The kernel's `sun_path` less its closing zero."""
NAME_MAX: Final = 253
_OCTETS: Final = {str(number): number for number in range(256)}
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


def parse_place(host: str, field: str = "replica_host") -> Place:
    """Return the place that `host` spells, if it spells exactly one on every machine.

    An error names `field`.

    >>> parse_place("10.0.0.1"), parse_place("unix:/run/a.sock")
    (IPv4Address('10.0.0.1'), UnixPath(path='/run/a.sock'))

    Raises:
        UnsupportedCheck: if it is one of the forms that only `getaddrinfo` takes for an address
            (`127.1`, octal, hexadecimal, one big number), or no host name, or no canonical path.
    """
    try:  # most are IPv4, and the general way takes 4 us
        first, second, third, fourth = map(_OCTETS.__getitem__, host.split("."))
    except (KeyError, ValueError):
        return _uncommon(host, field)
    return IPv4Address(first << 24 | second << 16 | third << 8 | fourth)


def _uncommon(host: str, field: str) -> Place:
    if host.startswith(UNIX):
        return _socket(host, field)
    try:
        address = ip_address(host)
    except ValueError:
        return _name(host, field)
    scoped = isinstance(address, IPv6Address) and address.scope_id is not None
    if scoped or isinstance(address, IPv4Address):  # not spelt as we spell it
        raise _not_canonical(host, field)
    return address


def _not_canonical(host: str, field: str) -> UnsupportedCheck:
    return UnsupportedCheck(
        f"{field} {host!a} is not a canonical IP address; "
        "write four decimal numbers (10.0.0.1) or IPv6 without a zone (fd00::1)"
    )


def _socket(host: str, field: str) -> UnixPath:
    path = host.removeprefix(UNIX)
    if not is_canonical(path) or len(path) > SOCKET_PATH_MAX:
        raise UnsupportedCheck(
            f"{field} {host!a} is not a canonical path of at most {SOCKET_PATH_MAX} "
            "characters; write for example unix:/run/replicas/a.sock"
        )
    return UnixPath(path)


def _name(host: str, field: str) -> Name:
    labels = host.lower().split(".")
    if ":" in host or "%" in host or _NUMBER.fullmatch(labels[-1]):
        raise _not_canonical(host, field)
    if len(host) > NAME_MAX or not all(map(_LABEL.fullmatch, labels)):
        raise UnsupportedCheck(
            f"{field} {host[:80]!a} is not a host name; write labels of letters, digits and "
            "inner dashes between single dots, without a dot at the end"
        )
    return Name(".".join(labels))
