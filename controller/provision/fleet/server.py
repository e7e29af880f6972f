"""One replica's HTTP server: one address, as little work a request as will do.

Plain non-blocking sockets on the loop's readers, no transports: the fleet stands beside the
prober it is measured with, so its CPU is the measurement's noise. The socket stays bound while
nothing listens, so "refused" is the kernel's own answer and the address is never lost.
"""

import asyncio
import errno
import socket

from controller.provision.fleet.replica import Manner

_HEAD_MAX_BYTES = 16_384
_END = b"\r\n\r\n"
_BACKLOG = 128
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RETRY_ACCEPT_S = 0.1
"""A listener stays readable when no descriptor is left: look again later, do not spin."""


def _reply(status: str, body: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


_UNAVAILABLE = _reply("503 Service Unavailable", "not ready\n")
_NOT_FOUND = _reply("404 Not Found", "no such path\n")
_NOT_ALLOWED = _reply("405 Method Not Allowed", "GET or HEAD\n")


class Server:
    """Listens on one address, and meets clients in the manner last shown.

    `requests` and `connections` count since construction, whatever became of them.
    """

    __slots__ = (
        "_answer", "_delay_s", "_good", "_listening", "_loop", "_open", "_path", "_sock",
        "connections", "host", "port", "requests",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, *, path: str, body: str
    ) -> None:
        """Take over `sock`, which is bound and does not listen yet."""
        self._loop = loop
        self._sock = sock
        self._path = path.encode()
        self._good = _reply("200 OK", body)
        self._answer: bytes | None = None
        self._delay_s = 0.0
        self._listening = False
        self._open: set[_Connection] = set()
        self.host, self.port = sock.getsockname()
        self.requests = 0
        self.connections = 0

    def show(self, manner: Manner, *, delay_s: float = 0.0) -> None:
        """Meet clients in this manner from now on."""
        self._delay_s = delay_s
        self._answer = {Manner.ANSWERS: self._good, Manner.UNAVAILABLE: _UNAVAILABLE}.get(manner)
        if manner is Manner.REFUSES:
            self._refuse()
        elif not self._listening:
            self._sock.listen(_BACKLOG)
            self._listening = True
            self._accept_again()

    def close(self) -> None:
        """Drop every connection and give the address back."""
        self._refuse()
        self._sock.close()

    def _refuse(self) -> None:
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._sock)
            # Ends listening, keeps the binding: the next connection is refused.
            self._sock.shutdown(socket.SHUT_RDWR)
        for connection in tuple(self._open):
            connection.close()

    def _accept_again(self) -> None:
        if self._listening:
            self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError as error:
            if error.errno in _FULL:
                self._loop.remove_reader(self._sock)
                self._loop.call_later(_RETRY_ACCEPT_S, self._accept_again)
            return
        sock.settimeout(0)
        self.connections += 1
        self._open.add(_Connection(self, self._loop, sock))

    def forget(self, connection: "_Connection") -> None:
        """Drop the record of a connection that has closed."""
        self._open.discard(connection)

    def answer(self, head: bytes) -> tuple[bytes, float] | None:
        """Return the reply to one request and how late it is; None: never."""
        self.requests += 1
        if self._answer is None:
            return None
        method, _, rest = head.partition(b" ")
        if method not in (b"GET", b"HEAD"):
            return _NOT_ALLOWED, 0.0
        path = rest.partition(b" ")[0].partition(b"?")[0]
        reply = self._answer if path == self._path else _NOT_FOUND
        if method == b"HEAD":
            reply = reply[: reply.index(_END) + len(_END)]
        return reply, self._delay_s


class _Connection:
    __slots__ = ("_loop", "_pending", "_server", "_sock")

    def __init__(
        self, server: Server, loop: asyncio.AbstractEventLoop, sock: socket.socket
    ) -> None:
        self._server = server
        self._loop = loop
        self._sock = sock
        self._pending = b""
        loop.add_reader(sock, self._readable)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._server.forget(self)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        *heads, self._pending = (self._pending + data).split(_END)
        if len(self._pending) > _HEAD_MAX_BYTES:
            self.close()
            return
        for head in heads:
            answer = self._server.answer(head)
            if answer is None:
                continue
            reply, delay_s = answer
            last = b"\r\nconnection: close" in head.lower()
            if delay_s > 0:
                self._loop.call_later(delay_s, self._send, reply, last)
            else:
                self._send(reply, last)

    def _send(self, reply: bytes, last: bool) -> None:  # noqa: FBT001 - call_later passes no keywords
        if self._sock.fileno() < 0:
            return
        try:
            sent = self._sock.send(reply)
        except OSError:
            sent = 0
        # A reply of 100 bytes that does not fit is a client that stopped reading long ago.
        if last or sent != len(reply):
            self.close()
