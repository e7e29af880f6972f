"""What this prober watches: its share among those that live, and what another one neglects.

Asked by the refresher at each look at the bus. Others may see the members a second later than we
do; so a partition is given up only when its new owner says that it watches it. Two probers for a
moment are harmless, none is not. While the bus is away everybody keeps what they have.
"""

from collections.abc import Callable, Collection, Mapping
from math import inf
from typing import Final

import structlog

from probe.bus.prober import Poll
from probe.ownership import Shares, share_out
from probe.refresh import Refresh
from probe.sharing.adoption import Adoption
from probe.stages import Prober
from probe.wire import HEARTBEAT_TTL_S, ProberHeartbeat

LOOKS_PER_BEAT: Final = 5
"""One look a second: so long after its last heartbeat ended a dead prober is replaced."""

_log = structlog.get_logger("probe.sharing.membership")


class Membership:
    """Decides at each look what `refresh` is to own and to adopt."""

    def __init__(
        self,
        prober: Prober,
        refresh: Refresh,
        *,
        look_s: float = 1.0,
        ttl_s: float = HEARTBEAT_TTL_S,
        peers: Collection[str] = (),
        hurry: Callable[[], None] = lambda: None,
    ) -> None:
        """Look every `look_s`; `hurry` is called where the others should hear of us at once.

        `peers` are believed to live until they have had `ttl_s` to say so themselves.
        """
        self.members: frozenset[str] = frozenset({prober.instance, *peers})
        self._awaited = self.members - {prober.instance}
        self._shares: Shares | None = None
        self._prober = prober
        self._refresh = refresh
        self._adoption = Adoption(prober, refresh)
        self._look_s = look_s
        self._ttl_s = ttl_s
        self._hurry = hurry
        self._patient_until = prober.clock() + ttl_s
        self._looked_at = -inf
        self._was_found = False

    async def settle(self, poll: Poll) -> None:
        """Look who lives, if it is time; raises `BusError` with nothing changed."""
        prober, now = self._prober, self._prober.clock()
        if prober.sick is not None:
            self._adoption.give_up()
            self._own(frozenset())
            return
        if now - self._looked_at < self._look_s and not prober.muted:
            return
        with prober.lifeline.operation("read_probers"):
            beats = await prober.bus.read_probers(poll.time_s)
        self._looked_at = now
        shares = self._recount(beats, now)
        self._own(shares.of(prober.instance) | self._unclaimed(shares, beats))
        await self._adoption.visit(shares, poll)

    def _recount(self, beats: Mapping[str, ProberHeartbeat], now: float) -> Shares:
        """Count the members, those that live and are well and we, and share out among them.

        Who does not find itself was forgotten by the bus, or was itself away: then the others,
        too, get the time of a heartbeat to be found again. Who was found is not waited for: if
        it is gone by the next look, it died.
        """
        me = self._prober.instance
        if self._was_found and me not in beats:
            self._patient_until = now + self._ttl_s
            self._awaited = self.members - {me}
            self._hurry()
        self._awaited -= beats.keys()
        self._was_found = me in beats
        apart = {name for name, beat in beats.items() if beat.sick or beat.shard}
        members = (beats.keys() - apart) | {me}
        if now < self._patient_until:
            members |= self._awaited
        if self._shares is None or members != self.members:
            self.members = frozenset(members)
            self._shares = share_out(members)
            _log.info("members", count=len(members))
        return self._shares

    def _unclaimed(self, shares: Shares, beats: Mapping[str, ProberHeartbeat]) -> frozenset[int]:
        """Return what we hold for owners that have not said yet that they watch it."""
        me = self._prober.instance
        return frozenset(
            partition
            for partition in self._refresh.partitions
            if (owner := shares.owners[partition]) != me
            and (owner not in beats or partition not in beats[owner].partitions)
        )

    def _own(self, partitions: frozenset[int]) -> None:
        before = frozenset(self._refresh.partitions)
        if partitions == before:
            return
        now = self._prober.clock()
        for partition in self._refresh.own(partitions):
            self._prober.sweep.replace(partition, (), now=now)
        _log.info(
            "partitions_moved",
            owned=len(partitions),
            gained=len(partitions - before),
            given_up=len(before - partitions),
        )
        if before - partitions:  # what was gained is said when it was read
            self._hurry()
