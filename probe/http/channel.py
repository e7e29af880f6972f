"""Bytes to and from one replica: a socket of our own, and TLS on it where the target asks for it.

What a connection stands on. Nothing here waits or decides: what the kernel does not take at once
is sent on its edge, and every failure is raised, as the `OSError` that it is.
"""

from errno import ECONNREFUSED
from os import write
from socket import SocketType
from typing import Final

from probe.http.dial import Endpoint, close_at_once, leads_to_itself, start_dial
from probe.http.line import Line
from probe.http.poller import READABLE, WRITABLE_TOO, Poller, Watcher
from probe.http.tunnel import Tunnel

SEGMENT_BYTES: Final = 1200
"""What one packet carries on any network. Of a longer request the kernel would hold back the
rest until the first part is acknowledged (Nagle), up to 40 ms later."""


class _PerProbe:
    """What every probe on a kept connection touches: together, so that it fills two cache lines."""

    __slots__ = (
        "again",
        "began_at",
        "carried",
        "check",
        "descriptor",
        "expected",
        "left",
        "owner",
        "state",
    )


class Channel(_PerProbe):
    """See the module. `descriptor` is valid from `open` to `shut`."""

    __slots__ = ("_poller", "_sock", "_unsent", "tunnel")

    descriptor: int

    def __init__(self, poller: Poller) -> None:
        self.descriptor = -1
        self.tunnel: Tunnel | None = None
        self._poller = poller
        self._sock: SocketType | None = None
        self._unsent = b""

    def _connect(self, endpoint: Endpoint, line: Line, request: bytes, now: float) -> bool:
        """Begin to dial, with the first bytes ready; False: it cannot even begin, nor fail."""
        plan = line.prepared.tls
        in_parts = plan is not None or len(request) > SEGMENT_BYTES
        self._sock = sock = start_dial(endpoint, in_parts=in_parts)
        if sock is None:
            return False
        self.descriptor = sock.fileno()
        if plan is None:
            self._unsent = request
        else:
            self.tunnel = tunnel = Tunnel(plan, line.session(now))
            tunnel.shake()
            self._unsent = tunnel.outgoing()
        return True

    def _watch(self, watcher: Watcher, *, connecting: bool) -> None:
        """Have `watcher` told of edges; of room to send only where something waits for it."""
        events = WRITABLE_TOO if connecting or self._unsent else READABLE
        self._poller.watch(self.descriptor, watcher, events=events)

    def _push(self) -> bool:
        """Send what waits; tell whether the kernel took any, which it does when it has connected.

        It takes nothing, too, if there is nothing to send: so this asks whether it has connected,
        and what became of the dial if not, without a call of its own.
        """
        try:
            sent = write(self.descriptor, self._unsent)
        except BlockingIOError:
            return False
        self._unsent = self._unsent[sent:]
        return True

    def _send(self, data: bytes) -> bool:
        """Send in order; False: some of it waits for its edge."""
        try:
            sent = 0 if self._unsent or not data else write(self.descriptor, data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return True
        self._unsent += data[sent:]
        self._poller.change(self.descriptor, events=WRITABLE_TOO)
        return False

    def _refuse_oneself(self) -> None:
        """Refuse a connection whose two ends are one: the kernel may lend a free port like that."""
        if self._sock is not None and leads_to_itself(self._sock):
            raise OSError(ECONNREFUSED, "connected to itself: nothing listens")

    def _farewell(self, error: OSError | None) -> OSError | None:
        """End a handshake: send the alert if we broke it off, name what it is if they did."""
        if self.tunnel is None:
            return error
        try:
            if error is None:
                self.tunnel.broken_off()
            write(self.descriptor, self.tunnel.outgoing())
        except OSError as reason:
            return error or reason
        return error

    def _shut(self, *, at_once: bool) -> None:
        """Give the descriptor back; `at_once` leaves no trace of the connection in the kernel."""
        sock, self._sock = self._sock, None
        self._unsent = b""
        if sock is None:
            return
        self._poller.part(sock, close_at_once if at_once else SocketType.close)
