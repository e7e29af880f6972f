"""How many connections this process may hold: what file descriptors and local ports leave.

Called by the daemon before anything is opened, and once its targets are known. Running out later
would look like a fault of the replicas to a careless reader, so a limit that cannot work is
refused at the start, and one that does not suffice is told.
"""

import resource
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

from probe.errors import SettingsError

RESERVED_FDS: Final = 64
"""The bus's pool (8), the metrics port (33), standard streams, the event loop, and some more."""
CONNECTIONS_MIN: Final = 16
CONNECTIONS_MAX: Final = 200_000
"""Nobody has measured beyond it; a limit of `unlimited` must not be taken at its word."""
PORTS_SHARE: Final = 0.5
"""Of the local ports one address and port may take; the kernel finds the last ones slowly."""
_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
IN_FLIGHT_SHARE: Final = 4
"""One connection in four may be on its way, the other three may be kept open between probes."""


class Room(NamedTuple):
    """How the connections are shared out; each probe in flight always finds one."""

    max_open: int
    max_kept: int
    max_in_flight: int


def make_room(max_connections: int, max_in_flight: int) -> Room:
    """Raise the soft limit as far as needed, and share out what there is; 0 means all of it.

    Raises:
        SettingsError: if the hard limit is below what was asked for, or below any use.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = CONNECTIONS_MAX + RESERVED_FDS if hard == resource.RLIM_INFINITY else hard
    needed = RESERVED_FDS + (max_connections or CONNECTIONS_MIN)
    if ceiling < needed:
        raise SettingsError(
            f"{needed - RESERVED_FDS} connections need {needed} file descriptors, but the limit "
            f"is {ceiling}: raise it (ulimit -Hn {needed}), or lower probe.max_connections"
        )
    wanted = needed if max_connections else min(ceiling, CONNECTIONS_MAX + RESERVED_FDS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return share(wanted - RESERVED_FDS, max_in_flight)


def share(max_open: int, max_in_flight: int) -> Room:
    """Share out connections; without a wish a quarter of them may be in flight.

    >>> share(20_000, 0)
    Room(max_open=20000, max_kept=15000, max_in_flight=5000)
    >>> share(100, 100)
    Room(max_open=100, max_kept=0, max_in_flight=100)

    Raises:
        SettingsError: if more are to be in flight than may be open.
    """
    in_flight = max_in_flight or max(1, max_open // IN_FLIGHT_SHARE)
    if in_flight > max_open:
        raise SettingsError(
            f"probe.max_in_flight = {in_flight}: only {max_open} connections may be open; "
            "lower it, or raise the file descriptor limit (ulimit -Hn)"
        )
    return Room(max_open, max_open - in_flight, in_flight)


def local_ports() -> int:
    """Return how many connections to one address and port the kernel has local ports for."""
    low, high = _PORTS.read_text(encoding="ascii").split()
    return int(high) - int(low) + 1


def descriptors_for(targets: int) -> int:
    """Return the limit at which each of so many targets may keep its connection.

    >>> share(descriptors_for(3000) - RESERVED_FDS, 0).max_kept >= 3000
    True
    """
    return RESERVED_FDS + -(-targets * IN_FLIGHT_SHARE // (IN_FLIGHT_SHARE - 1)) + 1


def short_of_ports(places: Counter[tuple[str, int]], ports: int) -> str | None:
    """Say which address and port is asked by more targets than it has local ports for.

    A kept connection holds one, and so does each of the last minute's that the replica closed.

    >>> short_of_ports(Counter({("10.0.0.1", 80): 3}), ports=4)
    '3 targets share 10.0.0.1:80, which has 4 local ports'
    """
    for (host, port), count in places.most_common(1):
        if count > PORTS_SHARE * ports:
            return f"{count} targets share {host}:{port}, which has {ports} local ports"
    return None
