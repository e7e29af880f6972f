"""The probers in virtual time: who asks which replica when, and what is written of it.

Streaks follow the prober's own rule; sharing out is by partition over those that live. The wire
is not simulated: an answer is a value of the replica.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from controller.model import RouteId
from controller.simulate.bus import Board
from controller.simulate.fleet import SimulatedFleet
from controller.simulate.kernel import Kernel
from probe.wire import (
    HEARTBEAT_TTL_S,
    PARTITIONS,
    OutcomeKind,
    ProberHeartbeat,
    Reason,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    partition_of,
    status_ttl_s,
)

_GRAIN_S: Final = 1.0
_BEAT_S: Final = 5.0


@dataclass(slots=True)
class _Check:
    """One target as its prober knows it."""

    generation: int
    due_s: float
    healthy: bool = False
    failures: int = 0
    successes: int = 0
    seq: int = 0


@dataclass(slots=True)
class Probers:
    """All of them."""

    board: Board
    fleet: SimulatedFleet
    kernel: Kernel
    names: tuple[str, ...]
    chance: Random
    on_change: Callable[[], None]
    lost: set[str] = field(default_factory=set)
    """Those that do not run."""
    isolated: set[str] = field(default_factory=set)
    """Those that reach no replica, and say that all fail."""
    _checks: dict[ReplicaId, _Check] = field(default_factory=dict)
    _alive_at: dict[str, float] = field(default_factory=dict)
    _route_of: dict[int, tuple[str, RouteId]] = field(default_factory=dict)

    async def run(self) -> None:
        """Probe what is due, once a second, and send heartbeats."""
        beat_at_s = 0.0
        while True:
            now_s = self.kernel.now_s
            sharing = self._sharing(now_s)
            if not self.board.away:
                if now_s >= beat_at_s:
                    self._beat(sharing)
                    beat_at_s = now_s + _BEAT_S
                self._probe(sharing, now_s)
            await self.kernel.sleep(_GRAIN_S)

    def _sharing(self, now_s: float) -> tuple[str, ...]:
        """Return who shares the partitions: who lived within the time of a heartbeat."""
        for name in self.names:
            if name not in self.lost:
                self._alive_at[name] = now_s
        return tuple(
            name
            for name in self.names
            if now_s - self._alive_at.get(name, float("-inf")) < HEARTBEAT_TTL_S
        )

    def _beat(self, sharing: tuple[str, ...]) -> None:
        now_s = self.board.clock()
        for place, name in enumerate(sharing):
            if name in self.lost:
                continue
            beat = ProberHeartbeat(
                instance=name,
                partitions=tuple(range(place, PARTITIONS, len(sharing))),
                targets=len(self.board.targets),
                probes_per_second=1.0,
                loop_lag_ms=0.0,
                version="simulated",
                started_at=0.0,
                at=now_s,
            )
            self.board.beats[name] = beat, now_s + HEARTBEAT_TTL_S

    def _probe(self, sharing: tuple[str, ...], now_s: float) -> None:
        end_s = self.board.clock()
        self._checks = {key: c for key, c in self._checks.items() if key in self.board.targets}
        routes = self._addresses()
        for replica_id, (target, until_s) in [*self.board.targets.items()]:
            if until_s <= end_s:
                del self.board.targets[replica_id]
                continue
            prober = sharing[partition_of(replica_id) % len(sharing)] if sharing else ""
            if not prober or prober in self.lost:
                continue
            check = self._checks.get(replica_id)
            if check is None or check.generation != target.generation:
                first_s = now_s + self.chance.random() * min(target.interval_s, 5.0)
                check = _Check(generation=target.generation, due_s=first_s)
                self._checks[replica_id] = check
            if check.due_s <= now_s:
                check.due_s += target.interval_s
                self._observe(target, check, prober, self._answer(target, prober, routes, now_s))

    def _addresses(self) -> Mapping[str, RouteId]:
        return {each.host: each.route_id for each in self.fleet.replicas.values()}

    def _answer(
        self, target: ReplicaProbeTarget, prober: str, routes: Mapping[str, RouteId], now_s: float
    ) -> Reason:
        if prober in self.isolated:
            return Reason.CONNECT_TIMEOUT
        route_id = routes.get(target.replica_host)
        if route_id is None:
            return Reason.CONNECT_REFUSED
        return self.fleet.replicas[route_id].answer(now_s)

    def _observe(
        self, target: ReplicaProbeTarget, check: _Check, prober: str, reason: Reason
    ) -> None:
        passed, before = reason is Reason.OK, check.healthy
        if passed:
            check.failures, check.successes = 0, check.successes + 1
            check.healthy = before or check.successes >= target.healthy_threshold
        else:
            check.failures, check.successes = check.failures + 1, 0
            check.healthy = before and check.failures < target.max_retries
        check.seq += 1
        status = ReplicaHealthStatus(
            replica_id=target.replica_id,
            healthy=check.healthy,
            outcome=OutcomeKind.PASSED if passed else OutcomeKind.FAILED,
            reason=reason,
            consecutive_failures=check.failures,
            consecutive_successes=check.successes,
            last_check=self.board.clock(),
            prober=prober,
            generation=target.generation,
            seq=check.seq,
        )
        end_s = self.board.clock() + status_ttl_s(target.interval_s)
        self.board.statuses[target.replica_id] = status, end_s
        if before != check.healthy:
            self.on_change()
