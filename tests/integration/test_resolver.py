"""Names through c-ares, against a name server that answers, lies, fails or says nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import anyio
import anyio.lowlevel
import pytest

from probe.http import resolver as module
from probe.http.names import Resolved
from probe.http.policy import ConnectPolicy
from probe.http.resolver import Resolver
from probe.reasons import Reason
from tests.fakes.nameserver import (
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
    SILENT,
    NameServer,
    name_server,
)

POLICY = ConnectPolicy.of(["127.128.0.0/9", "fd00::/8"], allow_dns=True)


async def ask(resolver: Resolver, name: str, port: int = 80) -> Resolved:
    answered = asyncio.get_running_loop().create_future()
    known = resolver.resolve(name, port, answered.set_result)
    if known is not None:
        return known
    with anyio.fail_after(5):
        resolved: Resolved = await answered
    return resolved


@asynccontextmanager
async def resolving(server: NameServer, *, ttl_min_s: float = 5.0) -> AsyncIterator[Resolver]:
    resolver = Resolver(
        POLICY,
        loop=asyncio.get_running_loop(),
        nameservers=[server.address],
        ttl_min_s=ttl_min_s,
    )
    try:
        yield resolver
    finally:
        await resolver.aclose()


def texts(resolved: Resolved) -> list[str]:
    return [str(address) for address in resolved.addresses]


async def test_name_resolves_to_both_families_ipv4_first() -> None:
    async with name_server() as server, resolving(server) as resolver:
        server.zone["a.example"] = ["fd00::1", "127.128.0.1", "127.128.0.2"]
        resolved = await ask(resolver, "a.example")
        assert texts(resolved) == ["127.128.0.1", "127.128.0.2", "fd00::1"]
        assert resolved.fault is None


async def test_answer_is_remembered() -> None:
    async with name_server() as server, resolving(server) as resolver:
        server.zone["a.example"] = ["127.128.0.1"]
        for _ in range(3):
            assert texts(await ask(resolver, "a.example")) == ["127.128.0.1"]
        assert server.asked["a.example"] == 1


async def test_name_is_asked_once_however_many_wait_for_it() -> None:
    async with name_server() as server, resolving(server) as resolver:
        server.zone["a.example"] = ["127.128.0.1"]
        answers = await asyncio.gather(*(ask(resolver, "a.example") for _ in range(100)))
        assert all(texts(answer) == ["127.128.0.1"] for answer in answers)
        assert server.asked["a.example"] == 1


@pytest.mark.parametrize(
    ("answer", "fault", "says"),
    [
        (NXDOMAIN, Reason.DNS_FAILED, "a.example: no such name"),
        ([], Reason.DNS_FAILED, "a.example: the name has no address"),
        (SERVFAIL, Reason.DNS_TIMEOUT, "a.example: DNS server returned general failure"),
        (REFUSED, Reason.DNS_TIMEOUT, "a.example: DNS server refused query"),
        (SILENT, Reason.DNS_TIMEOUT, "a.example: no answer of the name servers"),
        (["127.0.0.1"], Reason.POLICY_DENIED, "a.example: 127.0.0.1 is in no allowed network"),
        (["127.128.0.1", "127.0.0.1"], Reason.POLICY_DENIED, "127.0.0.1 is in no allowed"),
        (["127.128.0.1", "fe80::1"], Reason.POLICY_DENIED, "fe80::1 is link-local"),
        (["169.254.169.254"], Reason.POLICY_DENIED, "link-local, where clouds serve"),
        ([f"127.128.0.{i}" for i in range(65)], Reason.POLICY_DENIED, "has 65 addresses"),
    ],
)
async def test_name_that_cannot_be_dialled_says_why(answer: str, fault: Reason, says: str) -> None:
    async with name_server() as server, resolving(server) as resolver:
        server.zone["a.example"] = answer
        began = monotonic()
        resolved = await ask(resolver, "a.example")
        took_s = monotonic() - began
        assert resolved.addresses == ()
        assert resolved.fault is fault
        assert says in resolved.detail
        assert took_s < 2  # the cap is 1 s; a busy machine is late, not ten times late


async def test_a_name_is_not_gone_while_one_family_is_unanswered() -> None:
    """Some servers know only one family, and say "no such name" when asked for the other."""
    async with name_server() as server, resolving(server) as resolver:
        server.otherwise = lambda asked: SILENT if asked.endswith(" A") else NXDOMAIN
        assert (await ask(resolver, "a.example")).fault is Reason.DNS_TIMEOUT
        server.otherwise = lambda asked: ["127.128.0.1"] if asked.endswith(" A") else NXDOMAIN
        assert texts(await ask(resolver, "b.example")) == ["127.128.0.1"]


async def test_servers_that_nobody_runs_are_a_fault_of_ours() -> None:
    async with name_server() as server, resolving(server) as resolver:
        server._transport.close()
        await anyio.lowlevel.checkpoint()
        resolved = await ask(resolver, "a.example")
        assert resolved.fault is Reason.DNS_TIMEOUT


async def test_one_silent_family_does_not_hide_the_other() -> None:
    async with name_server() as server, resolving(server) as resolver:
        server.otherwise = lambda asked: ["127.128.0.1"] if asked.endswith(" A") else SILENT
        began = monotonic()
        assert texts(await ask(resolver, "a.example")) == ["127.128.0.1"]
        assert monotonic() - began < module.GIVE_UP_S


async def test_dead_names_do_not_delay_a_good_one() -> None:
    async with name_server() as server, resolving(server) as resolver:
        server.otherwise = lambda _asked: SILENT
        server.zone["good.example"] = ["127.128.0.1"]
        dead = [asyncio.ensure_future(ask(resolver, f"dead{i}.example")) for i in range(200)]
        await anyio.lowlevel.checkpoint()
        began = monotonic()
        resolved = await ask(resolver, "good.example")
        took_s = monotonic() - began
        assert texts(resolved) == ["127.128.0.1"]
        assert took_s < module.GIVE_UP_S
        for answer in await asyncio.gather(*dead):
            assert answer.fault is Reason.DNS_TIMEOUT


async def test_dead_names_are_asked_after_all_others() -> None:
    async with name_server() as server, resolving(server, ttl_min_s=0) as resolver:
        server.otherwise = lambda _asked: SILENT
        server.zone["good.example"] = ["127.128.0.1"]
        names = [f"dead{i}.example" for i in range(200)]
        await asyncio.gather(*(ask(resolver, name) for name in names))
        dead = [asyncio.ensure_future(ask(resolver, name)) for name in names]
        await anyio.lowlevel.checkpoint()
        assert server.asked["good.example"] == 0
        assert texts(await ask(resolver, "good.example")) == ["127.128.0.1"]
        assert not any(each.done() for each in dead)
        await asyncio.gather(*dead)


async def test_old_answer_stands_in_while_the_servers_say_nothing() -> None:
    async with name_server() as server, resolving(server, ttl_min_s=0.05) as resolver:
        server.ttl_s = 0
        server.zone["a.example"] = ["127.128.0.1"]
        assert texts(await ask(resolver, "a.example")) == ["127.128.0.1"]
        for failure in (SILENT, SERVFAIL):
            server.zone["a.example"] = failure
            await anyio.sleep(0.06)
            began = monotonic()
            resolved = await ask(resolver, "a.example")
            assert texts(resolved) == ["127.128.0.1"]
            assert resolved.fault is None
            assert monotonic() - began < module.GIVE_UP_S


@pytest.mark.parametrize(
    ("answer", "fault"), [(NXDOMAIN, Reason.DNS_FAILED), (["127.0.0.1"], Reason.POLICY_DENIED)]
)
async def test_old_answer_ends_with_a_new_one(answer: str, fault: Reason) -> None:
    async with name_server() as server, resolving(server, ttl_min_s=0) as resolver:
        server.ttl_s = 0
        server.zone["a.example"] = ["127.128.0.1"]
        assert texts(await ask(resolver, "a.example")) == ["127.128.0.1"]
        server.zone["a.example"] = answer
        assert (await ask(resolver, "a.example")).fault is fault
        server.zone["a.example"] = SILENT
        assert (await ask(resolver, "a.example")).addresses == ()


async def test_ports_are_judged_one_by_one() -> None:
    async with name_server() as server:
        policy = ConnectPolicy.of(["127.128.0.0/9"], ports=["8000-8999"], allow_dns=True)
        loop = asyncio.get_running_loop()
        resolver = Resolver(policy, loop=loop, nameservers=[server.address])
        server.zone["a.example"] = ["127.128.0.1"]
        assert texts(await ask(resolver, "a.example", 8000)) == ["127.128.0.1"]
        assert (await ask(resolver, "a.example", 22)).fault is Reason.POLICY_DENIED
        await resolver.aclose()


async def test_questions_are_bounded() -> None:
    async with name_server() as server, resolving(server) as resolver:
        server.otherwise = lambda _asked: SILENT
        told: list[Resolved] = []
        for i in range(module.QUESTIONS_MAX):
            assert resolver.resolve(f"dead{i}.example", 80, told.append) is None
        known = resolver.resolve("more.example", 80, told.append)
        assert known is not None
        assert known.fault is Reason.DNS_TIMEOUT
        with anyio.fail_after(10):
            while len(told) < module.QUESTIONS_MAX:
                assert resolver._young <= module.ASKED_MAX
                assert resolver._old <= module.OLD_MAX
                await anyio.sleep(0.02)
        assert {each.fault for each in told} == {Reason.DNS_TIMEOUT}
        assert len(server.asked) <= 2 * module.ASKED_MAX + module.OLD_MAX


async def test_nobody_is_told_after_the_end() -> None:
    async with name_server() as server, resolving(server) as resolver:
        server.otherwise = lambda _asked: SILENT
        told: list[Resolved] = []
        assert resolver.resolve("a.example", 80, told.append) is None
        await resolver.aclose()
        await anyio.sleep(0.05)
        assert told == []
