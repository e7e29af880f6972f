"""Edges and descriptors: none is told to a stranger, and none is lost behind a failure."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

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
        poller.forget(mine.fileno())


async def test_edge_of_a_closed_descriptor_never_reaches_who_got_its_number(
    poller: Poller,
) -> None:
    """Two are ready; the first closes the second and watches a new socket of the same number."""
    one, other = pair(), pair()
    newcomer = Heard()
    opened: list[socket.socket] = []

    def replace(victim: socket.socket) -> Callable[[], None]:
        def act() -> None:
            number = victim.fileno()
            if number < 0 or opened:
                return
            poller.forget(number)
            victim.close()
            fresh, end = pair()
            opened.extend((fresh, end))
            assert number in {fresh.fileno(), end.fileno()}
            taken = fresh if fresh.fileno() == number else end
            poller.watch(number, newcomer, events=READABLE)
            assert taken.fileno() == number

        return act

    watchers = Heard(replace(other[0])), Heard(replace(one[0]))
    poller.watch(one[0].fileno(), watchers[0], events=READABLE)
    poller.watch(other[0].fileno(), watchers[1], events=READABLE)
    one[1].send(b"x")
    other[1].send(b"x")
    await until(lambda: bool(opened))
    for _ in range(20):
        await asyncio.sleep(0)
    assert newcomer.events == []
    assert len(watchers[0].events) == len(watchers[1].events) == 1
    for each in (*one, *other, *opened):
        each.close()


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
        poller.forget(mine.fileno())
        mine.close()
        theirs.close()
