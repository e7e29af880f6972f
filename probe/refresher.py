"""How targets come from the bus to the sweep, a few at a time.

A stage of the daemon. A hundred thousand targets are decoded, admitted and taken on in seconds,
while the first of them are probed already: nothing here holds the loop for more than some
milliseconds. Which partitions to read, and what to believe of them, `probe.refresh` decides.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from probe.bus.prober import Poll
from probe.bus.targets import Targets
from probe.errors import BusError
from probe.ledger import bump
from probe.refresh import Refresh
from probe.stages import Prober, Settle, repeat
from probe.wire import ReplicaHealthStatus, ReplicaId, ReplicaProbeTarget

OLD_TIME_S: Final = 1.0
"""Who was stopped for so long while the bus told the time would go wrong by as much."""
PARTITIONS_AT_ONCE: Final = 8
"""Read in one go: few enough that most is taken on while more is read."""
TARGETS_AT_ONCE: Final = 200
"""Admitted, or taken on, between two looks at the clock: 2 ms of them."""
SLICE_S: Final = 0.008
"""Then the loop may do something else. More often would cost a load its pace: where a prober is
late, each round of its loop is long, whatever little of the load is done in it."""


class _Found(NamedTuple):
    """What was read of some partitions."""

    targets: Targets
    unknown: Sequence[ReplicaId]
    seeds: Mapping[ReplicaId, ReplicaHealthStatus]


class Refresher:
    """Brings the bus's targets to the sweep: what moved at once, everything in rotation."""

    def __init__(
        self,
        prober: Prober,
        refresh: Refresh,
        *,
        poll_s: float,
        settle: Settle | None = None,
        covers: Callable[[], None] = lambda: None,
        probe_at_once: bool = False,
    ) -> None:
        """Refresh every `poll_s`; `settle` decides before each what to own, `covers` hears of it.

        With `probe_at_once` even a target that another prober has just visited is probed within
        a second; its streak is taken over all the same.
        """
        self.loaded = anyio.Event()
        """Set once everything was read."""
        self._probe_at_once = probe_at_once
        self._prober = prober
        self._refresh = refresh
        self._poll_s = poll_s
        self._settle = settle
        self._covers = covers
        self._covered: tuple[int, ...] = ()
        self._doubted = 0
        self._told_time = False
        self._held_since = 0.0

    async def run(self) -> None:
        """Refresh for ever."""
        await repeat(self.step, period_s=self._poll_s, life=self._prober.lifeline)

    async def step(self) -> None:
        """Look at the bus once; raises `BusError` with nothing changed by what was not read."""
        clock = self._prober.clock
        self._doubt_after_a_standstill()
        poll = await self._poll()
        if self._settle is not None:
            await self._settle(poll)
        wanted = self._refresh.wanted(poll, clock())
        if wanted:
            await self._read(wanted, poll)
        self._prober.ridden_out = self._doubted
        self.loaded.set()
        self._say_what_is_covered()

    async def _read(self, wanted: Sequence[int], poll: Poll) -> None:
        """Read partitions, and let the sweep watch what they hold while the next are read."""
        parts = [
            wanted[first : first + PARTITIONS_AT_ONCE]
            for first in range(0, len(wanted), PARTITIONS_AT_ONCE)
        ]
        found = await self._fetch(parts[0], poll)
        for part in parts[1:]:
            async with anyio.create_task_group() as group:
                ahead: list[_Found | BusError] = []
                group.start_soon(self._fetch_into, ahead, part, poll)
                await self._take(found, poll)
            (next_found,) = ahead
            if isinstance(next_found, BusError):
                raise next_found
            found = next_found
        await self._take(found, poll)

    async def _fetch_into(
        self, ahead: list[_Found | BusError], wanted: Sequence[int], poll: Poll
    ) -> None:
        try:
            ahead.append(await self._fetch(wanted, poll))
        except BusError as error:  # not out of the task group: that would wrap it
            ahead.append(error)

    async def _fetch(self, wanted: Sequence[int], poll: Poll) -> _Found:
        """Read targets, and what the bus knows of those that are new here."""
        with self._prober.lifeline.operation("read_targets"):
            found = await self._prober.bus.read_targets(wanted, poll.time_s)
        unknown = [
            replica_id
            for partition, targets in found.by_partition.items()
            for replica_id in self._refresh.news(partition, targets)
        ]
        return _Found(found, unknown, await self._read_seeds(unknown))

    async def _take(self, found: _Found, poll: Poll) -> None:
        """Let the sweep watch what was read."""
        refresh, targets, seeds = self._refresh, found.targets, found.seeds
        refresh.reject(targets.rejected, self._prober.clock())
        contents: Mapping[int, Sequence[ReplicaProbeTarget]] = {
            partition: await self._admitted(partition, some)
            for partition, some in targets.by_partition.items()
        }
        if self._prober.vitals.full:
            contents = self._without(contents, set(found.unknown) - set(seeds))
        for partition, content in contents.items():
            await self._take_on(partition, content, seeds)
            refresh.took(partition, content, poll)

    async def _admitted(
        self, partition: int, targets: Sequence[ReplicaProbeTarget]
    ) -> Sequence[ReplicaProbeTarget]:
        """Return what to watch of a partition, judged a few targets at a time."""
        refresh, clock = self._refresh, self._prober.clock
        admitted: list[ReplicaProbeTarget] = []
        for first in range(0, len(targets), TARGETS_AT_ONCE):
            some = targets[first : first + TARGETS_AT_ONCE]
            admitted += refresh.admitted(partition, some, clock())
            await self._breathe()
        return refresh.content(partition, admitted, clock())

    async def _take_on(
        self,
        partition: int,
        content: Sequence[ReplicaProbeTarget],
        seeds: Mapping[ReplicaId, ReplicaHealthStatus],
    ) -> None:
        """Let the sweep watch this content, what is new of it a few targets at a time."""
        sweep, life, clock = self._prober.sweep, self._prober.lifeline, self._prober.clock
        if self._refresh.doubted(partition):
            sweep.replace(partition, (), now=clock())
        for so_far in _growing(content, self._refresh.believed(partition)):
            now = clock()
            sweep.replace(partition, so_far, now=now, bus_now=life.bus_time(now), seeds=seeds)
            await self._breathe()

    async def _breathe(self) -> None:
        """Let others run, if this has held the loop for long enough."""
        clock = self._prober.clock
        if clock() - self._held_since >= SLICE_S:
            await anyio.lowlevel.checkpoint()
            self._held_since = clock()

    def _doubt_after_a_standstill(self) -> None:
        self._prober.runs(self._prober.clock())
        if self._prober.standstills > self._doubted:
            self._refresh.doubt()
            self._doubted = self._prober.standstills

    async def _poll(self) -> Poll:
        """Look what moved, and set the bus's clock."""
        life, clock = self._prober.lifeline, self._prober.clock
        asked_at = clock()
        with life.operation("poll"):
            poll = await self._prober.bus.poll()
        if clock() - asked_at < OLD_TIME_S or not self._told_time:
            life.heard(poll.time_s, clock())
            self._told_time = True
        return poll

    async def _read_seeds(
        self, unknown: Sequence[ReplicaId]
    ) -> dict[ReplicaId, ReplicaHealthStatus]:
        """Read what is known of targets that are new here."""
        if not unknown:
            return {}
        with self._prober.lifeline.operation("read_statuses"):
            seeds = await self._prober.bus.read_statuses(unknown)
        if self._probe_at_once:
            return {key: replace(seed, last_check=0.0) for key, seed in seeds.items()}
        return seeds

    def _without(
        self, contents: Mapping[int, Sequence[ReplicaProbeTarget]], new: AbstractSet[ReplicaId]
    ) -> Mapping[int, Sequence[ReplicaProbeTarget]]:
        """Leave out targets that nobody has a verdict on: there is no time to probe them.

        They are asked for again with the next full refresh; whoever has a verdict is taken on,
        for it may have been left behind by a prober that is gone.
        """
        if new:
            bump(self._prober.ledger.rejected, "full", len(new))
        return {
            partition: [target for target in content if target.replica_id not in new]
            for partition, content in contents.items()
        }

    def _say_what_is_covered(self) -> None:
        refresh, vitals = self._refresh, self._prober.vitals
        vitals.partitions_owned = len(refresh.partitions)
        vitals.targets_adopted = sum(len(refresh.adopted(p)) for p in refresh.adoptions)
        if self._covered != refresh.covered:
            self._covered = refresh.covered
            self._covers()


def _growing(
    content: Sequence[ReplicaProbeTarget], known: Mapping[ReplicaId, ReplicaProbeTarget]
) -> Iterator[Sequence[ReplicaProbeTarget]]:
    """Yield what to watch in steps of `TARGETS_AT_ONCE` new or changed targets; last, all of it."""
    news = [target for target in content if known.get(target.replica_id) is not target]
    if len(news) > TARGETS_AT_ONCE:
        so_far = {
            target.replica_id: known[target.replica_id]
            for target in content
            if target.replica_id in known
        }
        for first in range(0, len(news) - TARGETS_AT_ONCE, TARGETS_AT_ONCE):
            some = news[first : first + TARGETS_AT_ONCE]
            so_far |= {target.replica_id: target for target in some}
            yield list(so_far.values())
    yield content
