"""One prober put together on doubles: bus and wire are fakes, time is a number."""

from math import inf

from probe.errors import UnsupportedCheck
from probe.flusher import Flusher
from probe.ledger import Ledger, Lifeline
from probe.refresh import Refresh
from probe.refresher import Refresher
from probe.schedule.scheduler import Check, Scheduler
from probe.sharing.heartbeat import Heartbeat
from probe.stages import Prober, Ticker
from probe.sweep import Sweep
from probe.wire import (
    PARTITIONS,
    Keys,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    decode_status,
    partition_of,
)
from tests.fakes.bus import FakeBus, FakeServer
from tests.fakes.entries import replica
from tests.fakes.wire import FakeWire

LATE_S = 5.0
FULL_ROUND = 30
"""Polls until everything was read again, here."""


def admit(entry: ReplicaProbeTarget) -> None:
    if entry.scheme != "http":
        raise UnsupportedCheck(f"scheme: {entry.scheme!r} is not supported yet; use 'http'")


class Rig:
    """One prober on doubles."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.server = FakeServer()
        self.keys = Keys()
        self.wire = FakeWire()
        self.ledger = Ledger()
        self.sweep = Sweep(Scheduler(), self.wire, clock=self.clock, max_in_flight=1000)
        self.life = Lifeline(self.ledger, clock=self.clock, backoff_max_s=2.0)
        self.prober = Prober(
            instance="p-1",
            bus=FakeBus(self.server),
            sweep=self.sweep,
            lifeline=self.life,
            ledger=self.ledger,
            clock=self.clock,
            standstill_s=inf,  # tests let hours pass in one go
        )
        self.refresh = Refresh(
            range(PARTITIONS), polls_per_round=FULL_ROUND, admit=admit, ledger=self.ledger
        )
        self.refresher = Refresher(self.prober, self.refresh, poll_s=1.0)
        self.flusher = Flusher(self.prober, self.keys, count=2, wait_s=0.2, late_s=LATE_S)
        self.ticker = Ticker(self.prober, after=self.flusher.look)
        self.heartbeat = Heartbeat(
            self.prober, self.ticker, covered=lambda: (0, 1), version="0.1.0"
        )

    def clock(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass, in process and on the bus."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            step = min(0.01, end - self.now)
            self.now += step
            self.server.now_s += step
            self.ticker.tick(self.now, late_s=0.0)

    def remove(self, replica_id: ReplicaId) -> None:
        """Take a target off the bus as a controller does."""
        partition = partition_of(replica_id)
        del self.server.sets[self.keys.index(partition)][replica_id]
        del self.server.strings[self.keys.target(replica_id)]
        self.server.versions[partition] += 1

    def watched(self) -> set[ReplicaId]:
        return {check.replica_id for check in self.sweep.scheduler}

    def check(self, number: int) -> Check:
        return next(c for c in self.sweep.scheduler if c.replica_id == replica(number))

    def status(self, number: int) -> ReplicaHealthStatus | None:
        value = self.server.get(self.keys.status(replica(number)))
        return None if value is None else decode_status(value)

    async def polls(self, count: int) -> None:
        for _ in range(count):
            self.now += 1.0
            self.server.now_s += 1.0
            await self.refresher.step()
