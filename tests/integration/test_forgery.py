"""A prober is not to be led astray: honeypots on real sockets, and every way known to reach them.

Replicas live in 127.128.0.0/9, which is allowed. Every other loopback address, `::1` and a socket
are honeypots on the same port. Not one connection may reach them.
"""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Final

import anyio
import pytest

from probe.check import StatusJudge
from probe.errors import WireError
from probe.health import Outcome
from probe.here import is_here
from probe.http.detour import Detour
from probe.http.names import Resolved
from probe.http.policy import ConnectPolicy, Service
from probe.http.pool import HttpPool
from probe.http.resolver import Resolver
from probe.once import target_of_url
from probe.reasons import OutcomeKind, Reason
from probe.scheduler import Check
from probe.sweep import Wire
from probe.wire import ReplicaProbeTarget, decode_target, encode
from tests.fakes.asker import until
from tests.fakes.honeypot import ALLOWED, REPLICA, Honeypot, honeypot
from tests.fakes.nameserver import NXDOMAIN, SERVFAIL, NameServer, name_server

FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
REBINDINGS: Final = 10_000 if FULL else 2_000
UUID: Final = "6f1c2d3e-0000-4000-8000-00000000002a"

ADDRESSES: Final = (
    # Loopback, and what only getaddrinfo takes for it.
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.00.00.1",
    "127.127.127.127",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "0x7f.1",
    "127.0.0.1.",
    "127.0.0.1..",
    "１２７.0.0.1",  # noqa: RUF001 - full-width digits are the point
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "0",
    "0.0.0.0",
    "0000.0000.0000.0000",
    "::1",
    "[::1]",
    "0:0:0:0:0:0:0:1",
    "::",
    "::0001",
    "::1%lo",
    "::1%1",
    "fe80::1%lo",
    # IPv4 inside IPv6.
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:0:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "fd00::5efe:127.0.0.1",
    "fd00::200:5efe:7f00:1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    # Metadata, multicast, broadcast, reserved.
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "ff02::1",
    # Elsewhere.
    "8.8.8.8",
    "10.0.0.1",
    "192.168.0.1",
    "fd00::1",
    # Not hosts at all.
    "",
    " ",
    "127.0.0.1 ",
    "127.128.0.1@127.0.0.1",
    "127.128.0.1#@127.0.0.1",
    "127.128.0.1\\@127.0.0.1",
    "127.128.0.1\r\nHost: 127.0.0.1",
    "127.128.0.1\x00.127.0.0.1",
    "127.128.0.1/../127.0.0.1",
    "127.128.0.1:80",
    "user:word@127.0.0.1",
    # Sockets of this host.
    "unix:/run/docker.sock",
    "unix:{honey}",
    "unix:{allowed}/../honey.sock",
    "unix:{allowed}//honey.sock",
    "unix:{allowed}/link.sock",
    "unix:@abstract",
)
NAMES: Final[dict[str, list[str] | str]] = {
    "localhost": ["127.0.0.1"],
    "localhost.localdomain": ["127.0.0.1"],
    "a.localhost": ["127.0.0.1", "::1"],
    "loopback.example": ["127.0.0.1"],
    "loopback6.example": ["::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "sixtofour.example": ["2002:7f00:1::"],
    "isatap.example": ["fd00::5efe:7f00:1"],
    "unspecified.example": ["0.0.0.0", "::"],
    "metadata.google.internal": ["169.254.169.254"],
    "linklocal.example": ["fe80::1"],
    "broadcast.example": ["255.255.255.255"],
    "mixed.example": [REPLICA, "127.0.0.1"],
    "mixed6.example": [REPLICA, "::1"],
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "absent.example": NXDOMAIN,
    "broken.example": SERVFAIL,
}
URLS: Final = (
    "http://127.0.0.1:{port}/",
    "http://user:word@127.0.0.1:{port}/",
    "http://127.128.0.1@127.0.0.1:{port}/",
    "http://127.128.0.1:{port}@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@127.128.0.1/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://localhost:{port}/",
    "http://127.1:{port}/",
    "http://2130706433:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http:///127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_GET",
    "http://127.0.0.1:{port}\\@127.128.0.1/",
)


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


def test_corpus_is_as_large_as_promised() -> None:
    forms = {*ADDRESSES, *NAMES, *URLS}
    assert len(forms) == len(ADDRESSES) + len(NAMES) + len(URLS) >= 60


async def test_replica_is_reached_so_that_the_rest_means_something(tmp_path: Path) -> None:
    async with astray(tmp_path) as (ways, pot, names):
        names.zone["good.example"] = [REPLICA]
        for host in (REPLICA, "good.example"):
            outcome = await ways.ask(target(host, pot.port))
            assert outcome.reason is Reason.OK, outcome.detail
        assert pot.visits == 2


async def test_honeypots_count_so_that_the_rest_means_something(tmp_path: Path) -> None:
    policy = ConnectPolicy.of(["127.0.0.0/8", "::1/128"])
    async with astray(tmp_path, policy) as (ways, pot, _):
        for host in ("127.0.0.1", "127.9.9.9", "::1"):
            assert (await ways.ask(target(host, pot.port))).reason is Reason.OK
        assert pot.hits == ["127.0.0.1", "127.9.9.9", "::1"]


@pytest.mark.parametrize("http2", [False, True])
async def test_no_spelling_of_a_host_leads_to_a_honeypot(tmp_path: Path, http2: bool) -> None:  # noqa: FBT001 - a column of the table
    async with astray(tmp_path) as (ways, pot, _):
        for form in ADDRESSES:
            host = form.format(honey=tmp_path / "honey.sock", allowed=tmp_path / "allowed")
            try:
                asked = target(host, pot.port, http2=http2)
                ways.judge.admit(asked)
            except WireError:
                continue
            outcome = await ways.ask(asked)
            assert outcome.reason is Reason.POLICY_DENIED, f"{form}: {outcome}"
            assert outcome.kind is OutcomeKind.PROBE_ERROR
        assert pot.hits == []


@pytest.mark.parametrize("http2", [False, True])
async def test_no_name_leads_to_a_honeypot(tmp_path: Path, http2: bool) -> None:  # noqa: FBT001 - a column of the table
    async with astray(tmp_path) as (ways, pot, names):
        names.zone.update(NAMES)
        for name, answer in NAMES.items():
            outcome = await ways.ask(target(name, pot.port, http2=http2))
            expected = {NXDOMAIN: Reason.DNS_FAILED, SERVFAIL: Reason.DNS_TIMEOUT}
            reason = expected[answer] if isinstance(answer, str) else Reason.POLICY_DENIED
            assert outcome.reason is reason, f"{name}: {outcome}"
        assert pot.hits == []
        assert pot.visits == 0


async def test_no_url_leads_to_a_honeypot(tmp_path: Path) -> None:
    async with astray(tmp_path) as (ways, pot, names):
        names.zone.update(NAMES)
        for form in URLS:
            try:
                asked = target_of_url(form.format(port=pot.port))
                ways.judge.admit(asked)
            except WireError:
                continue
            outcome = await ways.ask(asked)
            assert outcome.reason in {Reason.POLICY_DENIED, Reason.DNS_FAILED}, f"{form}: {outcome}"
        assert pot.hits == []


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308, 101, 200])
@pytest.mark.parametrize("way", ["Location", "Content-Location", "Refresh", "Alt-Svc", "Link"])
async def test_no_reply_leads_to_a_honeypot(tmp_path: Path, status: int, way: str) -> None:
    async with astray(tmp_path) as (ways, pot, _):
        there = f"127.0.0.1:{pot.port}"
        value = {
            "Refresh": f"0; url=http://{there}/",
            "Alt-Svc": f'http/1.1="{there}"; persist=1',
            "Link": f"<http://{there}/>; rel=preload",
        }.get(way, f"http://{there}/")
        reply = f"HTTP/1.1 {status} Elsewhere\r\n{way}: {value}\r\nContent-Length: 0\r\n\r\n"
        pot.reply = reply.encode()
        outcome = await ways.ask(target(REPLICA, pot.port))
        assert outcome.http_status == status
        assert outcome.kind is (OutcomeKind.PASSED if status == 200 else OutcomeKind.FAILED)
        assert pot.visits == 1
        assert pot.hits == []


@pytest.mark.parametrize(
    "fields",
    [
        {"host_header": "127.0.0.1"},
        {"health_path": "//127.0.0.1/"},
        {"health_path": "/@127.0.0.1"},
        {"health_path": "/%0d%0aHost:%20127.0.0.1"},
        {"health_path": "/?url=http://127.0.0.1/"},
    ],
)
@pytest.mark.parametrize("http2", [False, True])
async def test_no_request_leads_to_a_honeypot(
    tmp_path: Path,
    fields: dict[str, str],
    http2: bool,  # noqa: FBT001 - a column of the table
) -> None:
    async with astray(tmp_path) as (ways, pot, _):
        timeout_s = 0.3 if http2 else 2.0  # the honeypot speaks HTTP/1.1
        fields = {"health_path": "/"} | fields
        await ways.ask(target(REPLICA, pot.port, http2=http2, timeout_s=timeout_s, **fields))
        assert pot.visits == 1
        assert pot.hits == []


@pytest.mark.parametrize(
    "path", ["/\r\nHost: 127.0.0.1", "/ HTTP/1.1\r\n\r\nGET /admin", "/\n", "http://127.0.0.1/"]
)
def test_path_that_would_be_a_second_request_does_not_decode(path: str) -> None:
    with pytest.raises(WireError):
        target(REPLICA, 80, health_path=path)


async def test_our_own_services_are_not_dialled_even_where_all_is_allowed(tmp_path: Path) -> None:
    async with honeypot() as pot:
        own = [Service("the bus", ALLOWED[1], pot.port)]
        policy = ConnectPolicy.of(["0.0.0.0/0", "::/0"], own=own, allow_dns=True, is_here=is_here)
        async with astray(tmp_path, policy) as (ways, _, names):
            names.zone["bus.example"] = ["127.0.0.1"]
            for host in (REPLICA, "127.0.0.1", "::1", "::ffff:127.0.0.1", "bus.example"):
                outcome = await ways.ask(target(host, pot.port))
                assert outcome.reason is Reason.POLICY_DENIED, f"{host}: {outcome}"
        assert (pot.visits, pot.hits) == (0, [])


REBINDS: Final[tuple[list[str] | str, ...]] = (
    [REPLICA],
    ["127.0.0.1"],
    [REPLICA, "127.0.0.1"],
    ["127.0.0.1", REPLICA],
    ["::1"],
    [REPLICA, "::1"],
    ["::ffff:127.0.0.1"],
    [REPLICA, "::ffff:7f00:1"],
    ["64:ff9b::7f00:1"],
    ["2002:7f00:1::"],
    ["0.0.0.0"],
    ["169.254.169.254"],
    [],
    NXDOMAIN,
    SERVFAIL,
)


def flipping(chance: random.Random) -> Callable[[str], list[str] | str]:
    """Return answers that are another one each time, and never one that c-ares remembers.

    It remembers that a name has no address of a family, whatever the TTL.
    """
    four = [answer for answer in REBINDS if any("." in each and ":" not in each for each in answer)]
    six = [answer for answer in REBINDS if any(":" in each for each in answer)]

    def answer(asked: str) -> list[str] | str:
        if not asked.startswith("flips.example"):
            return chance.choice(REBINDS)
        return chance.choice(four if asked.endswith(" A") else [*six, *[SERVFAIL] * 20])

    return answer


async def test_no_change_of_mind_of_a_name_server_leads_to_a_honeypot(tmp_path: Path) -> None:
    """Every answer is another one, at random, with a TTL of 0; each is dialled as it was judged.

    10,000 answers with `FLEETPULSE_FULL=1`, 2,000 without.
    """
    chance = random.Random(3)  # noqa: S311 - a fixed seed, so that a failure comes again
    async with astray(tmp_path) as (ways, pot, names):
        names.otherwise = flipping(chance)
        resolver = ways.detour._resolver
        assert resolver is not None
        dialled = 0
        for number in range(REBINDINGS):
            name = "flips.example" if number % 2 else f"flips{number}.example"
            for address in (await _resolve(resolver, name, pot.port)).addresses:
                assert address in ALLOWED
                with socket.socket() as way:
                    way.settimeout(0)
                    way.connect_ex((str(address), pot.port))
                dialled += 1
        assert names.asked.total() >= REBINDINGS
        assert dialled > REBINDINGS // 100
        await until(lambda: pot.visits == dialled)
        assert pot.hits == []


async def test_no_change_of_mind_misleads_a_probe(tmp_path: Path) -> None:
    chance = random.Random(5)  # noqa: S311 - a fixed seed, so that a failure comes again
    async with astray(tmp_path) as (ways, pot, names):
        names.otherwise = flipping(chance)
        reasons = set()
        for number in range(REBINDINGS // 10):
            host = "flips.example" if number % 2 else f"flips{number}.example"
            reasons.add((await ways.ask(target(host, pot.port))).reason)
        assert reasons >= {Reason.OK, Reason.POLICY_DENIED, Reason.DNS_FAILED}
        assert pot.visits > 0
        assert pot.hits == []


async def _resolve(resolver: Resolver, name: str, port: int) -> Resolved:
    answered: asyncio.Future[Resolved] = asyncio.get_running_loop().create_future()
    known = resolver.resolve(name, port, answered.set_result)
    return known if known is not None else await answered
