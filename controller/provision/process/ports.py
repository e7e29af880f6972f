"""Which port a replica on this machine gets.

Below the ports that the kernel hands out by itself (32768 and up), so that no outgoing connection
sits on one. Each is tried by binding it; the keeper tries once more, the moment before the
command is to have it.
"""

import errno
import random
import socket
from collections.abc import Container

from controller.errors import ProvisionError


class Ports:
    """Hands out the ports of a range in turn, so that one just given back rests."""

    def __init__(self, host: str, ports: range) -> None:
        self._host = host
        self._range = ports
        self._next = random.randrange(len(ports))  # noqa: S311 - spreads, protects nothing

    def choose(self, taken: Container[int]) -> int:
        """Return a port that is free and not in `taken`.

        Raises:
            ProvisionError: if there is none.
        """
        for _ in self._range:
            port = self._range[self._next]
            self._next = (self._next + 1) % len(self._range)
            if port not in taken and is_free(self._host, port):
                return port
        raise ProvisionError(
            f"no port of {self._range[0]}-{self._range[-1]} is free on {self._host}: "
            "widen process_ports, or run fewer replicas on this machine"
        )


def is_free(host: str, port: int) -> bool:
    """Tell whether nobody has the port, by having it for a moment.

    As servers ask for it: the connections of a server that died, which the kernel keeps for a
    minute, are nobody.

    Raises:
        ProvisionError: if the host is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise ProvisionError(
                f"process_host {host!r} cannot be bound: {error.strerror or error}; name an "
                "address of this machine"
            ) from error
    return True
