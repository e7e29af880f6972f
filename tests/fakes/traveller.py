"""Probes through the detour, playing the sweep's part: starts, deadlines, outcomes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final
from uuid import uuid4

import anyio

from probe.check import StatusJudge
from probe.health import Outcome
from probe.http.detour import Detour
from probe.http.policy import ConnectPolicy
from probe.http.proxies import ForwardProxy
from probe.http.resolver import Resolver
from probe.http.tls import TlsContexts
from probe.schedule.scheduler import Check
from probe.specs import TlsOptions
from probe.wire import ReplicaId, ReplicaProbeTarget
from tests.fakes.asker import until
from tests.fakes.authority import Authority
from tests.fakes.farm import Plot
from tests.fakes.http2_server import Http2Server, http2_server

POLICY: Final = ConnectPolicy.of(["127.64.0.0/10", "127.128.0.0/9"], allow_dns=True)
TLS: Final = TlsOptions(ca_file="ca.pem")


class Traveller:
    """The sweep's part: starts, deadlines, outcomes."""

    def __init__(
        self,
        *,
        authority: Authority | None = None,
        proxy: ForwardProxy | None = None,
        resolver: Resolver | None = None,
        policy: ConnectPolicy = POLICY,
        max_open: int = 100,
        judge: StatusJudge | None = None,
    ) -> None:
        tls = TlsContexts(authority.directory if authority else None)
        self.judge = judge or StatusJudge(policy, tls=tls, proxy=proxy)
        self.detour = Detour(
            self.judge,
            loop=asyncio.get_running_loop(),
            max_open=max_open,
            resolver=resolver,
            proxy=proxy,
        )
        self.detour.done = self._done
        self.outcomes: dict[Check, list[Outcome]] = {}
        self.waiting: set[Check] = set()

    def _done(self, check: Check, outcome: Outcome) -> None:
        assert check in self.waiting, "an outcome that nobody waits for"
        self.waiting.discard(check)
        self.outcomes.setdefault(check, []).append(outcome)

    def check(self, plot: Plot, path: str = "/200", **fields: object) -> Check:
        given = {"timeout_s": 2.0, "connect_timeout_s": 1.0, "http2": True} | fields
        target = ReplicaProbeTarget(
            replica_id=ReplicaId(str(uuid4())),
            replica_host=plot.host,
            inference_port=plot.port,
            health_path=path,
            **given,  # type: ignore[arg-type]  # a test's own words
        )
        return Check(target)

    def start(self, check: Check, *, later_s: float = 0.0) -> None:
        """Begin a probe, as if so much time had passed."""
        self.waiting.add(check)
        check.started_at = monotonic() + later_s
        self.detour.start(check, check.started_at)

    async def probe(self, check: Check, *, later_s: float = 0.0) -> Outcome:
        self.start(check, later_s=later_s)
        look_at = check.started_at + min(check.timeout_s, check.connect_timeout_s)
        with anyio.fail_after(10):
            while check in self.waiting:
                if monotonic() >= look_at:
                    look_at = self.detour.expire(check, monotonic()) or look_at
                await anyio.sleep(0.005)
        return self.outcomes[check][-1]

    async def aclose(self) -> None:
        self.detour.close()
        await until(lambda: self.detour.open_connections == 0)


@asynccontextmanager
async def serving(
    authority: Authority | None = None, **parts: object
) -> AsyncIterator[tuple[Traveller, Http2Server, Plot]]:
    context = authority.server() if authority else None
    async with http2_server(context) as (server, plot):
        traveller = Traveller(authority=authority, **parts)  # type: ignore[arg-type]  # passed on
        yield traveller, server, plot
        await traveller.aclose()
