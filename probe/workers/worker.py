"""One worker of a supervisor: the same prober, shown over a pipe instead of a port.

Started by the supervisor as a program of its own (`python -m probe.workers.worker DESCRIPTOR
PARENT`). Hears on that socket first what to do, then single bytes, each asking for its figures;
dies with the process that started it.
"""

import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
import msgspec
from anyio.abc import UNIXSocketStream

from probe import daemon, logs
from probe.errors import BusError, FleetpulseError
from probe.parts import View
from probe.settings import Settings
from probe.workers.gather import Snapshot, encode
from probe.workers.lifetime import die_with

EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
HEAD_BYTES: Final = 4
"""Each message begins with its length."""
ASKED_MAX: Final = 256


class Post(msgspec.Struct, frozen=True):
    """What a worker is to do."""

    settings: Settings
    once: bool
    peers: tuple[str, ...]
    """The names of all workers of the same supervisor."""


def framed(body: bytes) -> bytes:
    """Put a message's length before it."""
    return len(body).to_bytes(HEAD_BYTES) + body


def main(descriptor: int, parent: int) -> int:
    """Work until told to stop; return the exit code."""
    if not die_with(parent):
        return EXIT_UNREACHABLE
    logs.configure()
    link = socket.socket(fileno=descriptor)
    post = msgspec.json.decode(_read_message(link), type=Post)

    async def run() -> None:
        @asynccontextmanager
        async def show(view: View) -> AsyncIterator[str]:
            link.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            stream = await UNIXSocketStream.from_socket(link)
            async with anyio.create_task_group() as group:
                group.start_soon(answer, stream, view, name="link")
                yield "the supervisor's"
                group.cancel_scope.cancel()

        await daemon.run(post.settings, once=post.once, show=show, peers=post.peers)

    try:
        anyio.run(run, backend="asyncio", backend_options={"use_uvloop": True})
    except FleetpulseError as error:
        sys.stderr.write(f"Error: {error}\n")
        return EXIT_UNREACHABLE if isinstance(error, BusError) else EXIT_USAGE
    return 0


async def answer(stream: UNIXSocketStream, view: View) -> None:
    """Answer each byte with a snapshot; without a supervisor there is nothing left to do."""
    async with stream:
        try:
            async for asked in stream:
                said = framed(encode(Snapshot(view.read(), view.live(), view.ready())))
                for _ in asked[:ASKED_MAX]:
                    await stream.send(said)
        except anyio.BrokenResourceError:
            pass
    signal.raise_signal(signal.SIGTERM)


def _read_message(link: socket.socket) -> bytes:
    with link.makefile("rb", buffering=0) as file:
        length = int.from_bytes(file.read(HEAD_BYTES) or b"")
        body = b""
        while len(body) < length:
            body += file.read(length - len(body)) or b""
    return body


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
