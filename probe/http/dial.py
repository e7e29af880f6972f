"""Opening sockets: where a replica is in the words of the kernel, and the start of a dial.

Called by connections. Nothing here waits: a socket comes back while the kernel still connects,
or an error at once.
"""

import os
from errno import EAGAIN, ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, EINPROGRESS, ENETUNREACH
from ipaddress import IPv4Address
from socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    IPPROTO_TCP,
    SO_LINGER,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    SocketType,
)
from struct import pack
from typing import Final, NamedTuple

from probe.http.place import Address, UnixPath

ELSEWHERE: Final = frozenset({ECONNREFUSED, EHOSTUNREACH, EHOSTDOWN, ENETUNREACH})
"""Errors that another address of the same name may not have."""
_LINGER_0: Final = pack("ii", 1, 0)
_KIND: Final = SOCK_STREAM | SOCK_NONBLOCK


class Endpoint(NamedTuple):
    """An address as `connect` takes it."""

    family: int
    address: tuple[str, int] | str


def endpoint_of(place: Address | UnixPath, port: int) -> Endpoint:
    """Return the address of a place.

    >>> endpoint_of(IPv4Address("10.0.0.1"), 8000).address
    ('10.0.0.1', 8000)
    """
    if isinstance(place, UnixPath):
        return Endpoint(AF_UNIX, place.path)
    return Endpoint(AF_INET if isinstance(place, IPv4Address) else AF_INET6, (str(place), port))


def start_dial(endpoint: Endpoint, *, in_parts: bool) -> SocketType | None:
    """Return a socket that connects or has connected, or None when it cannot even begin to.

    None is a Unix socket whose queue is full: over TCP a dial like that waits for an answer.
    `in_parts` is for what is not sent in one small packet.

    Raises:
        OSError: if there is no descriptor, port or route left, or the answer is no.
    """
    family, address = endpoint
    sock = SocketType(family, _KIND)  # one call of the kernel; `socket.socket` wraps it in Python
    try:
        if in_parts and family != AF_UNIX:
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        code = sock.connect_ex(address)
    except OSError:
        sock.close()
        raise
    if code in {0, EINPROGRESS}:
        return sock
    sock.close()
    if code == EAGAIN and family == AF_UNIX:
        return None
    raise OSError(code, os.strerror(code))


def leads_to_itself(sock: SocketType) -> bool:
    """Tell whether both ends are one: the kernel may lend a free port as its own peer.

    Raises:
        OSError: if it is not connected any more.
    """
    return sock.family != AF_UNIX and sock.getsockname() == sock.getpeername()


def close_at_once(sock: SocketType) -> None:
    """Close with a reset, so that no TIME_WAIT holds the port; for when both have said all."""
    sock.setsockopt(SOL_SOCKET, SO_LINGER, _LINGER_0)
    sock.close()
