"""Many simulated replicas: gives each an address, keeps what it shows in step with its life."""

import asyncio
import itertools
import socket
import struct
from collections.abc import Iterator, Sequence

from controller.provision.fleet.messages import Count, Inject, Mend, Report, Wanted
from controller.provision.fleet.replica import (
    Behaviour,
    Fault,
    Life,
    Moment,
    Repair,
    born,
    moment,
    repair,
    spared,
    suffer,
)
from controller.provision.fleet.server import Server

_NETWORK = 0x7F400000
"""127.64.0.0/10: far from 127.0.0.1 and from what else is used on loopback."""
_ADDRESSES = 1 << 22
_ANCHOR = "127.64.0.0"
_TICK_S = 0.001
"""The loop's clock has whole milliseconds: a timer without this wakes before its moment."""


class Fleet:
    """Starts, watches, breaks and stops replicas by id.

    Every replica has an address of its own and all share one port. The port is the kernel's
    choice and held by an anchor socket, so that any number of fleets live on one machine.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Choose the port."""
        self._loop = loop
        self._replicas: dict[str, _Replica] = {}
        self._hosts = _hosts()
        self._turns = itertools.count(1)
        self._anchor = socket.socket()
        self._anchor.bind((_ANCHOR, 0))
        self._port: int = self._anchor.getsockname()[1]

    def start(self, wanted: Sequence[Wanted]) -> dict[str, str]:
        """Start what is not there yet; return for each id why it was refused, or nothing."""
        return {one.id: self._start(one) for one in wanted}

    def inspect(self, ids: Sequence[str]) -> dict[str, Report]:
        """Report on those of `ids` that exist."""
        return {one: self._replicas[one].report() for one in ids if one in self._replicas}

    def stop(self, ids: Sequence[str]) -> list[str]:
        """Stop and forget those of `ids` that exist; return them."""
        there = [one for one in ids if one in self._replicas]
        for one in there:
            self._replicas.pop(one).close()
        return there

    def inject(self, inject: Inject) -> list[str]:
        """Break replicas; return the ids that are not known."""
        for replica in self._known(inject.ids):
            replica.suffer(inject.fault, inject.seconds)
        return self._unknown(inject.ids)

    def repair(self, mend: Mend) -> list[str]:
        """Repair replicas; return the ids that are not known."""
        for replica in self._known(mend.ids):
            replica.repair(mend.how)
        return self._unknown(mend.ids)

    def counts(self, ids: Sequence[str]) -> dict[str, Count]:
        """Count what those of `ids` that exist have seen."""
        return {one: self._replicas[one].count() for one in ids if one in self._replicas}

    def close(self) -> None:
        """Stop everything."""
        self.stop(tuple(self._replicas))
        self._anchor.close()

    def _known(self, ids: Sequence[str]) -> "list[_Replica]":
        return [self._replicas[one] for one in ids if one in self._replicas]

    def _unknown(self, ids: Sequence[str]) -> list[str]:
        return [one for one in ids if one not in self._replicas]

    def _start(self, wanted: Wanted) -> str:
        if wanted.id in self._replicas:
            return ""
        behaviour = self._fated(wanted.behaviour)
        if behaviour.refuse:
            return behaviour.refuse
        try:
            sock = self._bound()
        except OSError as error:
            return (
                f"no socket for another replica beside {len(self._replicas)}: {error}; "
                "raise the limit of open files, or start fewer"
            )
        server = Server(self._loop, sock, path=wanted.path, body=wanted.id)
        life = born(behaviour, now=self._loop.time())
        self._replicas[wanted.id] = _Replica(self._loop, server, life)
        return ""

    def _fated(self, behaviour: Behaviour) -> Behaviour:
        every = behaviour.fault_every
        return spared(behaviour) if every > 1 and next(self._turns) % every else behaviour

    def _bound(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        # A restarted replica listens again while old connections are in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((next(self._hosts), self._port))
        except OSError:
            sock.close()
            raise
        return sock


class _Replica:
    """A life, the server that shows it, and the timer that keeps them in step."""

    __slots__ = ("_life", "_loop", "_server", "_shown", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Server, life: Life) -> None:
        self._loop = loop
        self._server = server
        self._life = life
        self._timer: asyncio.TimerHandle | None = None
        self._show()

    def report(self) -> Report:
        """Tell what the server shows: the life itself may be a tick ahead of its sockets."""
        now = self._shown
        return Report(
            state=now.state,
            host=self._server.host,
            port=self._server.port,
            exit_reason=now.exit_reason,
        )

    def count(self) -> Count:
        return Count(self._server.requests, self._server.connections)

    def suffer(self, fault: Fault, seconds: float) -> None:
        self._life = suffer(self._life, fault, now=self._loop.time(), seconds=seconds)
        self._show()

    def repair(self, how: Repair) -> None:
        self._life = repair(self._life, how, now=self._loop.time())
        self._show()

    def close(self) -> None:
        self._cancel()
        self._server.close()

    def _now(self) -> Moment:
        return moment(self._life, self._loop.time())

    def _show(self) -> None:
        self._cancel()
        self._shown = now = self._now()
        self._server.show(now.manner, delay_s=now.delay_s)
        if now.until is not None:
            self._timer = self._loop.call_at(now.until + _TICK_S, self._show)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _hosts() -> Iterator[str]:
    """Yield the addresses in turn: one given back is used again only after four million others."""
    for n in itertools.cycle(range(1, _ADDRESSES)):
        yield socket.inet_ntoa(struct.pack("!I", _NETWORK + n))
