"""Which port a replica on this machine gets.

Below the ports that the kernel hands out by itself (32768 and up), so that no outgoing connection
sits on one. Each is tried by binding it; the keeper tries once more, the moment before the
command is to have it.
"""

import errno
import random
import socket
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from controller.errors import ProvisionError

PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports from the first to the last, both included."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> "PortRange":
        """Read `20000-29999`.

        >>> PortRange.parse("20000-29999")
        PortRange(first=20000, last=29999)

        Raises:
            ValueError: if it is no such range.
        """
        first, dash, last = text.partition("-")
        found = cls(int(first), int(last if dash else first))
        if not 1 <= found.first <= found.last <= PORT_MAX:
            raise ValueError(text)
        return found

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


class Ports:
    """Hands out the ports of a range in turn, so that one just given back rests."""

    def __init__(self, host: str, ports: PortRange) -> None:
        self._host = host
        self._range = ports
        self._size = ports.last - ports.first + 1
        self._next = random.randrange(self._size)  # noqa: S311 - spreads, protects nothing

    def choose(self, taken: Container[int]) -> int:
        """Return a port that is free and not in `taken`.

        Raises:
            ProvisionError: if there is none.
        """
        for step in range(self._size):
            port = self._range.first + (self._next + step) % self._size
            if port not in taken and is_free(self._host, port):
                self._next = (self._next + step + 1) % self._size
                return port
        raise ProvisionError(
            f"no port of {self._range} is free on {self._host}: widen process_ports, or run fewer "
            "replicas on this machine"
        )


def is_free(host: str, port: int) -> bool:
    """Tell whether nobody has the port, by having it for a moment.

    Raises:
        ProvisionError: if the host is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
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
