"""What an operator writes to say what may be reached: networks, sockets, ports, name suffixes.

Pure; used where settings are checked and where they become a policy, so that both agree. `key`
is the setting that an error names.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from probe.errors import SettingsError

Network = IPv4Network | IPv6Network

UNIX: Final = "unix:"
ANY_PORT: Final = "1-65535"
PORT_MAX: Final = 65535
_PART: Final = re.compile(r"[!-.0-~]+")
_PORTS: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_SUFFIX: Final = re.compile(r"\.?[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


def is_canonical(path: str) -> bool:
    """Tell whether `path` is absolute and has neither empty parts nor dots for parts."""
    first, *parts = path.split("/")
    return (
        not first
        and bool(parts)
        and all(_PART.fullmatch(part) and part not in {".", ".."} for part in parts)
    )


def network(entry: str, key: str = "allow") -> Network:
    """Return the network that `entry` spells in CIDR form.

    Raises:
        SettingsError: if it spells none.
    """
    try:
        return ip_network(entry)
    except ValueError as error:
        raise SettingsError(f"{key}: {error}; write for example 10.0.0.0/8") from error


def prefix(entry: str, key: str = "allow") -> str:
    """Return the path of `unix:/path`, a directory of sockets or one socket.

    Raises:
        SettingsError: if it is not canonical.
    """
    path = entry.removeprefix(UNIX).removesuffix("/")
    if not is_canonical(path):
        raise SettingsError(
            f"{key}: {entry!a} is not unix: and a canonical path; "
            "write for example unix:/run/replicas"
        )
    return path


def ports(entry: str, key: str = "allow_ports") -> range:
    """Return the ports of `8000` or `8000-8999`.

    Raises:
        SettingsError: if it is neither.
    """
    match = _PORTS.fullmatch(entry)
    if match is not None:
        first, last = int(match[1]), int(match[2] or match[1])
        if 1 <= first <= last <= PORT_MAX:
            return range(first, last + 1)
    raise SettingsError(
        f"{key}: {entry!a} is neither a port nor an ascending range in {ANY_PORT}; "
        "write for example 8000-8999"
    )


def network_or_suffix(entry: str, key: str = "proxy_for") -> Network | str:
    """Return the network, or the end of names, that `entry` spells.

    >>> network_or_suffix(".example")
    '.example'

    Raises:
        SettingsError: if it spells neither.
    """
    try:
        return ip_network(entry)
    except ValueError:
        if _SUFFIX.fullmatch(entry) and not entry[-1].isdigit():
            return entry
    raise SettingsError(
        f"{key}: {entry!a} is neither a network nor the end of names; "
        "write for example 10.0.0.0/8 or .example"
    )
