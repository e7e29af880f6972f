"""Edges and descriptors: none is told to a stranger, and none is lost behind a failure."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from socket import SocketType

import pytest

from probe.http.poller import READABLE, Poller
from tests.fakes.asker import until


class Heard:
    """A watcher that remembers, and does what the test says."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.events: list[int] = []
        self._then = then

    def ready(self, events: int, _now: float) -> None:
        self.events.append(events)
        self._then()


@pytest.fixture
async def poller() -> AsyncIterator[Poller]:
    poller = Poller(asyncio.get_running_loop())
    yield poller
    poller.close()
    poller.close()


def pair() -> tuple[socket.socket, socket.socket]:
    mine, theirs = socket.socketpair()
    mine.settimeout(0)
    return mine, theirs


async def test_edge_is_told_once_and_again_with_the_next_byte(poller: Poller) -> None:
    mine, theirs = pair()
    heard = Heard()
    poller.watch(mine.fileno(), heard, events=READABLE)
    with mine, theirs:
        theirs.send(b"a")
        await until(lambda: len(heard.events) == 1)
        await asyncio.sleep(0)
        theirs.send(b"b")
        await until(lambda: len(heard.events) == 2)
        assert mine.recv(10) == b"ab"
        poller.part(mine, SocketType.close)


async def test_edge_of_a_closed_descriptor_never_reaches_who_got_its_number(
    poller: Poller,
) -> None:
    """All are ready; the first one told closes the others, and new ones get their numbers."""
    pairs = [pair() for _ in range(100)]
    newcomers = [Heard() for _ in range(90)]
    opened: list[socket.socket] = []

    def replace_all() -> None:
        if opened:
            return
        numbers = {mine.fileno() for mine, _ in pairs}
        for mine, _ in pairs:
            poller.part(mine, SocketType.close)
        for newcomer in newcomers:
            fresh, end = pair()
            opened.extend((fresh, end))
            poller.watch(fresh.fileno(), newcomer, events=READABLE)
        assert numbers & {sock.fileno() for sock in opened}, "numbers are used again"

    watchers = [Heard(replace_all) for _ in pairs]
    for (mine, theirs), watcher in zip(pairs, watchers, strict=True):
        poller.watch(mine.fileno(), watcher, events=READABLE)
        theirs.send(b"x")
    await until(lambda: bool(opened))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(newcomer.events for newcomer in newcomers)
    opened[1].send(b"x")
    await until(lambda: len(newcomers[0].events) == 1)
    for each in (*opened, *(theirs for _, theirs in pairs)):
        each.close()


async def test_sockets_parted_from_in_a_batch_are_closed_with_it(poller: Poller) -> None:
    mine, theirs = pair()
    poller.watch(mine.fileno(), Heard(lambda: poller.part(mine, SocketType.close)), events=READABLE)
    theirs.send(b"x")
    await until(lambda: mine.fileno() < 0)
    theirs.close()


async def test_failing_watcher_takes_no_edge_of_another_along(poller: Poller) -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))

    def fail() -> None:
        raise ValueError("a fault of ours")

    pairs = [pair() for _ in range(6)]
    heard = [Heard(fail if n % 2 else lambda: None) for n in range(6)]
    for (mine, theirs), watcher in zip(pairs, heard, strict=True):
        poller.watch(mine.fileno(), watcher, events=READABLE)
        theirs.send(b"x")
    await until(lambda: all(watcher.events for watcher in heard))
    assert len(told) == 3
    for mine, theirs in pairs:
        poller.part(mine, SocketType.close)
        theirs.close()
