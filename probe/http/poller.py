"""Readiness of our own sockets: an epoll nested in the event loop, edge-triggered.

Made by the pool. The loop watches one descriptor, the epoll's; connections register with it once
and are told of every edge. A transport of the loop costs twice as much per probe, and three times
as much per connection. It must not know what its watchers do.
"""

import asyncio
from collections.abc import Callable
from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, epoll
from socket import SocketType
from time import monotonic
from typing import Final, Protocol

INWARD: Final = EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP
"""There is something to read: bytes, an end or an error."""
ENDS: Final = EPOLLRDHUP | EPOLLERR | EPOLLHUP
"""The peer has said its last: behind what there is to read lies the end."""
READABLE: Final = EPOLLIN | EPOLLRDHUP | EPOLLET
WRITABLE_TOO: Final = READABLE | EPOLLOUT

_BATCH: Final = 512
"""Edges taken at once: at 10 us each the loop's other callers wait 5 ms."""
_CLOSED_TOGETHER: Final = 32
"""Half of the descriptors that nobody counts on: so many more may be held for a moment."""


Closing = Callable[[SocketType], None]
"""A way to close a socket."""


class Watcher(Protocol):
    """Who is told of the edges of a descriptor."""

    def ready(self, events: int, now: float, /) -> None:
        """Do what can be done. `events` are a hint: only the socket knows; `now` is when."""


class Poller:
    """Must be made and used on one event loop."""

    __slots__ = ("_delivering", "_epoll", "_leaving", "_loop", "_watchers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = epoll()
        self._watchers: dict[int, Watcher] = {}
        self._delivering = False
        self._leaving: list[tuple[SocketType, Closing]] = []
        loop.add_reader(self._epoll.fileno(), self._deliver)

    def __repr__(self) -> str:
        return f"Poller(watched={len(self._watchers)})"

    def watch(self, descriptor: int, watcher: Watcher, *, events: int) -> None:
        """Tell `watcher` of every edge from now on, and of how things are now.

        Raises:
            OSError: if the kernel has no room for one more.
        """
        self._epoll.register(descriptor, events)
        self._watchers[descriptor] = watcher

    def change(self, descriptor: int, *, events: int) -> None:
        """Tell of these edges from now on, and of how things are now."""
        self._epoll.modify(descriptor, events)

    def part(self, sock: SocketType, closing: Closing) -> None:
        """Tell nobody of a socket's edges any more, and close it: soon, or at once between batches.

        Sockets closed one right after the other wake the other side once, not each time: a probe
        with a connection of its own costs 8 % less.
        """
        self._watchers.pop(sock.fileno(), None)
        if not self._delivering:
            closing(sock)
            return
        self._leaving.append((sock, closing))
        if len(self._leaving) >= _CLOSED_TOGETHER:
            self._close_all()

    def close(self) -> None:
        """Stop for good; to be called again does nothing."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _deliver(self) -> None:
        """Hand out one batch.

        Every edge finds its watcher before the first one acts: what that one closes may be
        opened again as another's before its turn comes, with the same number. All have the same
        `now`: what those before it cost us is no time of the replica's. An edge is told only once,
        so a watcher that fails must not take those behind it along.
        """
        watchers = self._watchers
        self._delivering = True
        edges = self._epoll.poll(0, _BATCH)
        now = monotonic()
        for watcher, events in [(watchers[fd], events) for fd, events in edges if fd in watchers]:
            try:
                watcher.ready(events, now)
            except Exception as error:  # noqa: BLE001 - a fault of ours; the other edges are due
                self._loop.call_exception_handler(
                    {"message": f"{watcher} failed", "exception": error}
                )
        self._delivering = False
        self._close_all()

    def _close_all(self) -> None:
        while self._leaving:
            sock, closing = self._leaving.pop()
            closing(sock)
