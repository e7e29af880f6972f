"""Probers that share one bus in memory, in virtual time: they come, die, stop and resume."""

from collections import Counter
from math import inf

import anyio.lowlevel

from probe.errors import BusError
from probe.flusher import Flusher
from probe.health import Outcome
from probe.ledger import Ledger, Lifeline
from probe.refresh import Refresh
from probe.refresher import Refresher
from probe.schedule.scheduler import Check, Scheduler
from probe.sharing.heartbeat import Heartbeat
from probe.sharing.membership import Membership
from probe.stages import Prober, Ticker
from probe.sweep import Sweep
from probe.wire import (
    PARTITIONS,
    Keys,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    decode_heartbeat,
    decode_status,
)
from tests.fakes.bus import FakeBus, FakeServer
from tests.fakes.wire import PASSED, FakeWire

EVERY = frozenset(range(PARTITIONS))
STEP_S = 0.25
FLUSHES_PER_STEP = 1
BEAT_S = 5.0


class Member:
    """One prober of the herd."""

    def __init__(self, herd: "Herd", instance: str, *, peers: tuple[str, ...] = ()) -> None:
        self.herd = herd
        self.instance = instance
        self.stopped = False
        self.deaf = False
        """Lives and beats, but its probes never start."""
        self.wire = FakeWire()
        self.ledger = Ledger()
        self.sweep = Sweep(Scheduler(), self.wire, clock=herd.clock, max_in_flight=1000)
        self.prober = Prober(
            instance=instance,
            bus=FakeBus(herd.server),
            sweep=self.sweep,
            lifeline=Lifeline(self.ledger, clock=herd.clock, backoff_max_s=2.0),
            ledger=self.ledger,
            clock=herd.clock,
        )
        self.refresh = Refresh((), polls_per_round=120, admit=lambda _: None, ledger=self.ledger)
        self.flusher = Flusher(self.prober, Keys(), count=500, wait_s=0.2, late_s=5.0)
        ticker = Ticker(self.prober, after=self.flusher.look)
        self.ticker = ticker
        self.beat = Heartbeat(
            self.prober, ticker, covered=lambda: self.refresh.covered, version="0.1.0"
        )
        self.membership = Membership(self.prober, self.refresh, peers=peers, hurry=self._hurry)
        self.refresher = Refresher(
            self.prober,
            self.refresh,
            poll_s=STEP_S,
            settle=self.membership.settle,
            covers=self._hurry,
        )
        self.beat_at = -inf

    @property
    def owned(self) -> frozenset[int]:
        return frozenset(self.refresh.partitions)

    @property
    def watched(self) -> set[ReplicaId]:
        return {check.replica_id for check in self.sweep.scheduler}

    def _hurry(self) -> None:
        self.beat_at = -inf

    async def step(self) -> None:
        """Do what the stages do within one step."""
        if self.stopped:
            return
        now = self.herd.now
        try:
            if not self.deaf:
                self.ticker.tick(now, late_s=0.0)
            for check in list(self.wire.probing):
                self.herd.answer(self, check)
            await self.flusher.flush()
            if now - self.beat_at >= BEAT_S:
                await self.beat.step()
                self.beat_at = now
            await self.refresher.step()
        except BusError:
            await anyio.lowlevel.checkpoint()


class Herd:
    """Probers, one bus, one clock, and the truth about each replica."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.server = FakeServer()
        self.members: dict[str, Member] = {}
        self.probes: Counter[ReplicaId] = Counter()
        self.truth: dict[ReplicaId, Outcome] = {}

    def clock(self) -> float:
        return self.now

    def join(self, instance: str, *, peers: tuple[str, ...] = ()) -> Member:
        member = self.members[instance] = Member(self, instance, peers=peers)
        return member

    def kill(self, instance: str) -> None:
        del self.members[instance]

    def plant(self, *targets: ReplicaProbeTarget) -> None:
        for target in targets:
            self.server.put_target(target)

    def answer(self, member: Member, check: Check) -> None:
        self.probes[check.replica_id] += 1
        member.wire.answer(check, self.truth.get(check.replica_id, PASSED))

    async def live(self, seconds: float) -> None:
        """Let everybody live on."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now += STEP_S
            self.server.now_s += STEP_S
            for member in list(self.members.values()):
                await member.step()

    def owners(self) -> Counter[int]:
        """How many of those that run own each partition."""
        return Counter(
            partition
            for member in self.members.values()
            if not member.stopped
            for partition in member.owned
        )

    def status(self, replica_id: ReplicaId) -> ReplicaHealthStatus:
        value = self.server.get(Keys().status(replica_id))
        assert value is not None, f"{replica_id} has no status"
        return decode_status(value)

    def oldest_status_s(self) -> float:
        """The age of the oldest status, by when its probe ended; infinite where one is missing."""
        ages = [inf]
        targets = [key for key in self.server.strings if key.startswith("route_probe:")]
        values = [self.server.get(key.replace("route_probe:", "route_health:")) for key in targets]
        if all(values):
            ages = [self.server.now_s - decode_status(value or b"").last_check for value in values]
        return max(ages)

    def covered(self, instance: str) -> frozenset[int]:
        value = self.server.get(Keys().heartbeat(instance))
        return frozenset() if value is None else frozenset(decode_heartbeat(value).partitions)
