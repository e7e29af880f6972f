"""A name server that changes its mind gets nothing dialled that is refused."""

import asyncio
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from probe.http.names import Resolved
from probe.http.resolver import Resolver
from probe.reasons import Reason
from tests.fakes.asker import until
from tests.fakes.astray import astray, target
from tests.fakes.honeypot import ALLOWED, REPLICA
from tests.fakes.nameserver import NXDOMAIN, SERVFAIL

FULL: Final = os.environ.get("FLEETPULSE_FULL") == "1"
REBINDINGS: Final = 10_000 if FULL else 2_000

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
