"""Probes a farm through the real pool, playing the sweep's part: starts, deadlines, outcomes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final
from uuid import UUID

import anyio

from probe.check import StatusJudge
from probe.health import Outcome
from probe.http.keep import KeepRule
from probe.http.policy import ConnectPolicy
from probe.http.pool import HttpPool
from probe.http.roles import Judge, Resolver
from probe.schedule.scheduler import Check
from probe.wire import ReplicaId, ReplicaProbeTarget
from tests.fakes.farm import Farm, Plot
from tests.fakes.replies import TABLE

LOOPBACK: Final = ConnectPolicy.of(["127.0.0.0/8"])
PATIENCE_S: Final = 10.0
FOR_EVER: Final = KeepRule(connection_age_s=1e12, fresh_every=1_000_000_000)
"""Nothing but the replica ends a kept connection."""


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - a condition outside has no event
            await anyio.sleep(0.002)


class Asker:
    """A farm, a pool, and the sweep's part: starts, deadlines, outcomes."""

    def __init__(
        self,
        farm: Farm,
        *,
        max_open: int = 5000,
        max_kept: int = 5000,
        keep: KeepRule = FOR_EVER,
        judge: Judge | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self.farm = farm
        self.pool = HttpPool(
            StatusJudge(LOOPBACK) if judge is None else judge,
            loop=asyncio.get_running_loop(),
            max_open=max_open,
            max_kept=max_kept,
            keep=keep,
            resolver=resolver,
        )
        self.pool.done = self._done
        self.outcomes: dict[Check, list[Outcome]] = {}
        self.waiting: set[Check] = set()
        """Whose probe has not ended."""

    def _done(self, check: Check, outcome: Outcome) -> None:
        assert check in self.waiting, "an outcome that nobody waits for"
        self.waiting.discard(check)
        self.outcomes.setdefault(check, []).append(outcome)

    def check(self, plot: Plot, **fields: object) -> Check:
        number = UUID(int=(hash(plot) ^ id(fields)) % 2**128)
        given = {"timeout_s": 0.3, "connect_timeout_s": 0.2, "health_path": "/health"} | fields
        target = ReplicaProbeTarget(
            replica_id=ReplicaId(str(number)),
            replica_host=plot.host,
            inference_port=plot.port,
            **given,  # type: ignore[arg-type]  # a test's own words
        )
        return Check(target)

    def start(self, check: Check, *, later_s: float = 0.0) -> None:
        """Begin a probe, as if so much time had passed."""
        now = monotonic() + later_s
        self.waiting.add(check)
        check.started_at = now
        check.deadline = now + check.first_deadline_s
        self.pool.start(check, now)

    async def settle(self, *checks: Check) -> None:
        """Play the sweep's second wheel until every check has ended."""
        with anyio.fail_after(PATIENCE_S):
            while self.waiting.intersection(checks):
                now = monotonic()
                for check in checks:
                    if check in self.waiting and check.deadline <= now:
                        check.deadline = self.pool.expire(check, now) or check.deadline
                await anyio.sleep(0.002)

    async def probe(self, check: Check, *, later_s: float = 0.0) -> Outcome:
        self.start(check, later_s=later_s)
        await self.settle(check)
        return self.outcomes[check][-1]


@asynccontextmanager
async def asking(
    *,
    max_open: int = 5000,
    max_kept: int = 5000,
    keep: KeepRule = FOR_EVER,
    judge: Judge | None = None,
    resolver: Resolver | None = None,
) -> AsyncIterator[Asker]:
    """Run a farm and a pool; at the end no connection may be left."""
    async with Farm() as farm:
        asker = Asker(
            farm,
            max_open=max_open,
            max_kept=max_kept,
            keep=keep,
            judge=judge,
            resolver=resolver,
        )
        yield asker
        asker.pool.close()
        await until(lambda: asker.pool.open_connections == 0)


VERDICTS: Final = {name: (kind.reason, kind.status, kind.kept) for name, kind in TABLE.items()}
"""By kind: reason, status, whether the connection carries the next probe too."""
