"""A small HTTP responder of our own, that answers as it is asked to.

In the daemon it is what the self-test asks; as `python -m probe.selfwatch.responder` it stands in
for a fleet, for `fleetpulse capacity`: it listens on every loopback address, prints its port, and
ends with its standard input.
"""

import asyncio
import socket
import struct
import sys
from enum import StrEnum
from typing import Final, cast

BACKLOG: Final = 4096
HEAD_MAX_BYTES: Final = 4096
_END: Final = b"\r\n\r\n"
_LINGER_0: Final = struct.pack("ii", 1, 0)


class Answer(StrEnum):
    """How it answers, by the path it is asked for."""

    GOOD = "/200"
    BAD = "/503"
    RESET = "/reset"


_REPLIES: Final = {
    Answer.GOOD.encode(): b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    Answer.BAD.encode(): b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
}


class Responder(asyncio.Protocol):
    """One connection. What it does not understand it resets."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._buffer += data
        while _END in self._buffer:
            head, _, self._buffer = self._buffer.partition(_END)
            words = head.split(b" ", 2)
            reply = _REPLIES.get(words[1]) if len(words) > 1 else None
            if reply is None:
                self._reset()
                return
            self._transport.write(reply)
        if len(self._buffer) > HEAD_MAX_BYTES:
            self._reset()

    def _reset(self) -> None:
        own = self._transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self._transport.abort()


async def _stand_in() -> None:
    """Be a fleet until standard input ends."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    server = await loop.create_server(Responder, "0.0.0.0", 0, backlog=BACKLOG)  # all of 127/8
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await over.wait()
    server.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_stand_in())
