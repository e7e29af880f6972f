"""`python -m tests.fakes.farm_process`: every kind of reply at once, each on a port of its own.

For what cannot run on a test's own loop: other probers, and hostile fleets. Prints one JSON object
from kinds to ports, and serves each of them on every 127.x.y.z until its standard input ends.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from functools import partial

import click

from tests.fakes.farm import ANYWHERE, BACKLOG, OWN_SOCKET, Served, unserved
from tests.fakes.replies import TABLE


class _OneKind:
    """Answers every request in one way."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def accepted(self, _host: str, _transport: asyncio.Transport, /) -> None:
        pass

    def asked(self, _host: str, _head: bytes, /) -> str:
        return self._kind

    def lost(self, _transport: asyncio.Transport, /) -> None:
        pass


async def serve() -> None:
    """Serve all kinds until the standard input ends."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    ports: dict[str, int] = {}
    async with AsyncExitStack() as stack:
        for name in TABLE:
            if name in OWN_SOCKET:
                sockets = [stack.enter_context(s) for s in unserved(ANYWHERE, name)]
                ports[name] = sockets[0].getsockname()[1]
                continue
            protocol = partial(Served, _OneKind(name))
            server = await loop.create_server(protocol, ANYWHERE, 0, backlog=BACKLOG)
            stack.callback(server.close)
            ports[name] = server.sockets[0].getsockname()[1]
        click.echo(json.dumps(ports))
        await over.wait()
    loop.remove_reader(sys.stdin.fileno())


if __name__ == "__main__":
    asyncio.run(serve())
