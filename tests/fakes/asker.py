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
from probe.http.policy import ConnectPolicy
from probe.http.pool import HttpPool
from probe.scheduler import Check
from probe.wire import Reason, ReplicaId, ReplicaProbeTarget
from tests.fakes.farm import Farm, Plot

LOOPBACK: Final = ConnectPolicy.of(["127.0.0.0/8"])
PATIENCE_S: Final = 10.0


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - a condition outside has no event
            await anyio.sleep(0.002)


class Asker:
    """A farm, a pool, and the sweep's part: starts, deadlines, outcomes."""

    def __init__(self, farm: Farm, *, max_open: int = 5000, max_kept: int = 5000) -> None:
        self.farm = farm
        self.pool = HttpPool(
            StatusJudge(LOOPBACK),
            loop=asyncio.get_running_loop(),
            max_open=max_open,
            max_kept=max_kept,
        )
        self.pool.done = self._done
        self.outcomes: dict[Check, list[Outcome]] = {}

    def _done(self, check: Check, outcome: Outcome) -> None:
        assert check.in_flight, "an outcome that nobody waits for"
        check.in_flight = False
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

    def start(self, check: Check) -> None:
        now = monotonic()
        check.in_flight = True
        check.started_at = now
        check.deadline = now + check.first_deadline_s
        self.pool.start(check, now)

    async def settle(self, *checks: Check) -> None:
        """Play the sweep's second wheel until every check has ended."""
        with anyio.fail_after(PATIENCE_S):
            while any(check.in_flight for check in checks):
                now = monotonic()
                for check in checks:
                    if check.in_flight and check.deadline <= now:
                        check.deadline = self.pool.expire(check, now) or check.deadline
                await anyio.sleep(0.002)

    async def probe(self, check: Check) -> Outcome:
        self.start(check)
        await self.settle(check)
        return self.outcomes[check][-1]


@asynccontextmanager
async def asking(*, max_open: int = 5000, max_kept: int = 5000) -> AsyncIterator[Asker]:
    """Run a farm and a pool; at the end no connection may be left."""
    async with Farm() as farm:
        asker = Asker(farm, max_open=max_open, max_kept=max_kept)
        yield asker
        asker.pool.close()
        await until(lambda: asker.pool.open_connections == 0)


VERDICTS: Final = {
    # kind: (reason, status, the connection carries the next probe too)
    "ok200": (Reason.OK, 200, True),
    "head200": (Reason.RESPONSE_TIMEOUT, 0, False),  # a GET waits for the body
    "ok200_http10": (Reason.OK, 200, False),
    "ok200_close": (Reason.OK, 200, False),
    "ok200_continue": (Reason.OK, 200, True),
    "bare_lf": (Reason.OK, 200, True),
    "chunked": (Reason.OK, 200, True),
    "s101": (Reason.STATUS_UNEXPECTED, 101, False),
    "s204": (Reason.OK, 204, True),
    "s301": (Reason.REDIRECT_REFUSED, 301, True),
    "s401": (Reason.AUTH_REJECTED, 401, True),
    "s403": (Reason.AUTH_REJECTED, 403, True),
    "s404": (Reason.STATUS_UNEXPECTED, 404, True),
    "s500": (Reason.STATUS_UNEXPECTED, 500, True),
    "s503": (Reason.STATUS_UNEXPECTED, 503, True),
    "s999": (Reason.STATUS_UNEXPECTED, 999, True),
    "two_replies": (Reason.STATUS_UNEXPECTED, 500, False),
    "garbage": (Reason.RESPONSE_MALFORMED, 0, False),
    "http09": (Reason.RESPONSE_MALFORMED, 0, False),
    "nul_header": (Reason.RESPONSE_MALFORMED, 0, False),
    "dup_length": (Reason.RESPONSE_MALFORMED, 0, False),
    "len_and_chunked": (Reason.OK, 200, False),
    "bad_chunk": (Reason.OK, 200, False),
    "cut_head": (Reason.RESPONSE_CLOSED, 0, False),
    "cut_body": (Reason.OK, 200, False),
    "info5": (Reason.OK, 200, True),
    "info6": (Reason.RESPONSE_TOO_LARGE, 0, False),
    "big_head": (Reason.RESPONSE_TOO_LARGE, 0, False),
    "many_headers": (Reason.RESPONSE_TOO_LARGE, 0, False),
    "long_body": (Reason.OK, 200, False),
    "endless_body": (Reason.OK, 200, False),
    "close_without_byte": (Reason.RESPONSE_CLOSED, 0, False),
    "close_idle": (Reason.OK, 200, False),
    "stale": (Reason.OK, 200, False),
    "reset": (Reason.CONNECT_RESET, 0, False),
    "refused": (Reason.CONNECT_REFUSED, 0, False),
    "unanswered": (Reason.CONNECT_TIMEOUT, 0, False),
    "hang": (Reason.RESPONSE_TIMEOUT, 0, False),
    "half_head": (Reason.RESPONSE_TIMEOUT, 0, False),
    "slow_bytes": (Reason.RESPONSE_TIMEOUT, 0, False),
}
