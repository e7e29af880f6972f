"""Both wires, a policy that allows a part of loopback, and honeypots on the rest of it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Final

import anyio

from probe.check import StatusJudge
from probe.health import Outcome
from probe.here import is_here
from probe.http.detour import Detour
from probe.http.policy import ConnectPolicy
from probe.http.pool import HttpPool
from probe.http.resolver import Resolver
from probe.schedule.scheduler import Check
from probe.sweep import Wire
from probe.wire import ReplicaProbeTarget, decode_target, encode
from tests.fakes.asker import until
from tests.fakes.honeypot import ALLOWED, Honeypot, honeypot
from tests.fakes.nameserver import NameServer, name_server

UUID: Final = "6f1c2d3e-0000-4000-8000-00000000002a"


class Ways:
    """Both wires, one judge, one resolver; asks a target in every way there is."""

    def __init__(self, judge: StatusJudge, resolver: Resolver) -> None:
        loop = asyncio.get_running_loop()
        self.judge = judge
        self.detour = Detour(judge, loop=loop, max_open=100, resolver=resolver)
        self.pool = HttpPool(
            judge, loop=loop, max_open=100, max_kept=0, resolver=resolver, detour=self.detour
        )
        self._told: dict[Check, Outcome] = {}
        self.pool.done = self._told.__setitem__

    async def ask(self, target: ReplicaProbeTarget) -> Outcome:
        wire: Wire = self.pool
        check = Check(target)
        check.started_at = monotonic()
        look_at = check.started_at + check.first_deadline_s
        wire.start(check, check.started_at)
        with anyio.fail_after(10):
            while check not in self._told:
                if monotonic() >= look_at:
                    look_at = wire.expire(check, monotonic()) or look_at
                await anyio.sleep(0.001)
        wire.forget(check)
        return self._told.pop(check)


@asynccontextmanager
async def astray(
    tmp_path: Path, policy: ConnectPolicy | None = None
) -> AsyncIterator[tuple[Ways, Honeypot, NameServer]]:
    honey, allowed = tmp_path / "honey.sock", tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "link.sock").symlink_to(honey)
    if policy is None:
        policy = ConnectPolicy.of(
            [str(ALLOWED), f"unix:{allowed}"],
            allow_dns=True,
            real_path=os.path.realpath,
            is_here=is_here,
        )
    async with honeypot(str(honey)) as pot, name_server() as names:
        loop = asyncio.get_running_loop()
        resolver = Resolver(policy, loop=loop, nameservers=[names.address], ttl_min_s=0)
        names.ttl_s = 0
        ways = Ways(StatusJudge(policy), resolver)
        yield ways, pot, names
        ways.pool.close()
        await until(lambda: ways.pool.open_connections == 0)
        await resolver.aclose()


def target(host: str, port: int, **fields: object) -> ReplicaProbeTarget:
    """Bring a target the way it comes: as JSON from the bus."""
    given = {"timeout_s": 2.0, "connect_timeout_s": 2.0, "health_path": "/"} | fields
    return decode_target(
        encode({"replica_id": UUID, "replica_host": host, "inference_port": port, **given})
    )
