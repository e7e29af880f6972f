"""The wire at other places than IPv4 literals: IPv6, sockets of this host, names, and TLS."""

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest

from probe.check import StatusJudge
from probe.http.names import Resolved
from probe.http.policy import ConnectPolicy
from probe.http.tls import TlsContexts
from probe.reasons import Reason
from probe.specs import TcpCheck, TlsOptions
from tests.fakes.asker import asking, until
from tests.fakes.authority import ADDRESS, NAME, Authority
from tests.fakes.farm import Plot
from tests.fakes.talker import talking

ANYWHERE: Final = ConnectPolicy.of(["127.0.0.0/8", "::1/128"], allow_dns=True)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


class Phonebook:
    """A resolver that says what the test says: at once, later, or never."""

    def __init__(self) -> None:
        self.answers: dict[str, Resolved | None] = {}
        self.waiting: list[Callable[[Resolved], None]] = []

    def resolve(self, name: str, _port: int, then: Callable[[Resolved], None]) -> Resolved | None:
        answer = self.answers.get(name)
        if answer is None:
            self.waiting.append(then)
        return answer


def at(*addresses: str) -> Resolved:
    return Resolved(tuple(ip_address(address) for address in addresses))


@needs_ipv6
async def test_ipv6_literal_is_probed() -> None:
    async with asking(judge=StatusJudge(ANYWHERE)) as asker, talking("::1") as talker:
        check = asker.check(talker.plot)
        for _ in range(2):
            assert (await asker.probe(check)).reason is Reason.OK
        assert talker.connections == 1


async def test_socket_of_this_host_is_probed(tmp_path: Path) -> None:
    async with (
        asking(judge=StatusJudge(ConnectPolicy.of([f"unix:{tmp_path}"]))) as asker,
        talking(path=tmp_path / "a.sock") as talker,
    ):
        check = asker.check(talker.plot)
        for _ in range(2):
            assert (await asker.probe(check)).reason is Reason.OK
        assert talker.connections == 1
        tcp = asker.check(talker.plot, checks=(TcpCheck(),))
        assert (await asker.probe(tcp)).reason is Reason.OK


async def test_full_queue_of_a_socket_is_a_timeout_not_a_fault_of_ours(tmp_path: Path) -> None:
    path = str(tmp_path / "full.sock")
    async with asking(judge=StatusJudge(ConnectPolicy.of([f"unix:{tmp_path}"]))) as asker:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
            server.bind(path)
            server.listen(0)
            first.connect(path)
            outcome = await asker.probe(asker.check(Plot(f"unix:{path}", 1)))
        assert outcome.reason is Reason.CONNECT_TIMEOUT
        gone = await asker.probe(asker.check(Plot(f"unix:{path}", 1)))
        assert gone.reason is Reason.CONNECT_REFUSED


async def test_name_known_at_once_is_dialled_at_once() -> None:
    book = Phonebook()
    async with asking(judge=StatusJudge(ANYWHERE), resolver=book) as asker:
        plot = asker.farm.plant("ok200")
        book.answers["replica.example"] = at(plot.host)
        check = asker.check(Plot("replica.example", plot.port))
        for _ in range(3):
            assert (await asker.probe(check)).reason is Reason.OK
        assert asker.farm.connections[plot.host] == 1
        assert b"Host: replica.example:" in asker.farm.heads[plot.host]


async def test_name_answered_later_counts_as_time_of_the_probe() -> None:
    book = Phonebook()
    async with asking(judge=StatusJudge(ANYWHERE), resolver=book) as asker:
        plot = asker.farm.plant("ok200")
        check = asker.check(Plot("replica.example", plot.port), timeout_s=5.0)
        asker.start(check)
        await asyncio.sleep(0.02)  # the time to be measured
        book.waiting.pop()(at(plot.host))
        await asker.settle(check)
        outcome = asker.outcomes[check][-1]
        assert outcome.reason is Reason.OK
        assert 0.015 <= outcome.resolve_s <= outcome.total_s


async def test_silent_resolver_ends_as_its_own_timeout_and_a_late_answer_is_ignored() -> None:
    book = Phonebook()
    async with asking(judge=StatusJudge(ANYWHERE), resolver=book) as asker:
        plot = asker.farm.plant("ok200")
        check = asker.check(Plot("replica.example", plot.port))
        outcome = await asker.probe(check)
        assert outcome.reason is Reason.DNS_TIMEOUT
        assert asker.pool.open_connections == 0
        book.waiting.pop()(at(plot.host))
        assert asker.pool.open_connections == 0
        assert asker.farm.connections.total() == 0


async def test_unresolved_name_says_why() -> None:
    book = Phonebook()
    async with asking(judge=StatusJudge(ANYWHERE), resolver=book) as asker:
        book.answers["gone.example"] = Resolved((), Reason.DNS_FAILED, "no such name")
        book.answers["bad.example"] = Resolved((), Reason.POLICY_DENIED, "leads to 10.0.0.1")
        gone = await asker.probe(asker.check(Plot("gone.example", 80)))
        bad = await asker.probe(asker.check(Plot("bad.example", 80)))
        assert (gone.reason, gone.detail) == (Reason.DNS_FAILED, "no such name")
        assert bad.reason is Reason.POLICY_DENIED
        assert asker.farm.connections.total() == 0


@needs_ipv6
async def test_addresses_of_a_name_are_tried_in_order() -> None:
    book = Phonebook()
    async with asking(judge=StatusJudge(ANYWHERE), resolver=book) as asker:
        plot = asker.farm.plant("ok200")
        book.answers["replica.example"] = at("::1", "::1", plot.host)
        check = asker.check(Plot("replica.example", plot.port), timeout_s=5.0)
        outcome = await asker.probe(check)
        assert outcome.reason is Reason.OK, outcome
        book.answers["nobody.example"] = at("::1", "::1")
        nobody = asker.check(Plot("nobody.example", plot.port), timeout_s=5.0)
        assert (await asker.probe(nobody)).reason is Reason.CONNECT_REFUSED


async def test_kept_connection_is_dropped_when_its_name_moves() -> None:
    book = Phonebook()
    async with asking(judge=StatusJudge(ANYWHERE), resolver=book) as asker:
        before, after = asker.farm.plant("ok200"), asker.farm.plant("ok200")
        check = asker.check(Plot("replica.example", before.port))
        book.answers["replica.example"] = at(before.host)
        await asker.probe(check)
        book.answers["replica.example"] = None  # being asked again: what is known stays
        await asker.probe(check)
        book.answers["replica.example"] = at(after.host)
        assert (await asker.probe(check)).reason is Reason.OK
        assert asker.farm.requests[before.host] == 2
        assert asker.farm.requests[after.host] == 1
        await until(lambda: asker.farm.open_connections(before) == 0)


async def test_name_without_a_resolver_is_denied() -> None:
    async with asking(judge=StatusJudge(ANYWHERE)) as asker:
        outcome = await asker.probe(asker.check(Plot("replica.example", 80)))
        assert outcome.reason is Reason.POLICY_DENIED
        assert asker.pool.open_connections == 0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def secure_judge(authority: Authority) -> StatusJudge:
    return StatusJudge(ANYWHERE, tls=TlsContexts(authority.directory))


SECURE: Final[dict[str, object]] = {
    "scheme": "https",
    "tls": TlsOptions(ca_file="ca.pem", server_name=NAME),
    "timeout_s": 5.0,
    "connect_timeout_s": 5.0,
    "deployment": "llm",
}


async def test_handshake_is_timed_and_its_connection_kept(authority: Authority) -> None:
    async with (
        asking(judge=secure_judge(authority)) as asker,
        talking(ADDRESS, secure=authority.server()) as talker,
    ):
        check = asker.check(talker.plot, **SECURE)
        first, second = [await asker.probe(check) for _ in range(2)]
        assert (first.reason, second.reason) == (Reason.OK, Reason.OK), first
        assert first.tls_s > 0
        assert first.connect_s > 0
        assert first.connect_s + first.tls_s + first.first_byte_s <= first.total_s
        assert second.tls_s == second.connect_s == 0
        assert talker.connections == 1


async def test_second_connection_takes_up_the_session_of_the_first(authority: Authority) -> None:
    async with (
        asking(judge=secure_judge(authority)) as asker,
        talking(ADDRESS, secure=authority.server()) as talker,
    ):
        check = asker.check(talker.plot, **SECURE)
        for count in range(1, 4):
            assert (await asker.probe(check)).reason is Reason.OK
            assert talker.resumed == count - 1
            talker.hang_up()
            await until(lambda: asker.pool.open_connections == 0)


async def test_certificate_expiry_is_known_by_deployment(authority: Authority) -> None:
    async with (
        asking(judge=secure_judge(authority)) as asker,
        talking(ADDRESS, secure=authority.server()) as talker,
    ):
        check = asker.check(talker.plot, **SECURE)
        assert asker.pool.certificate_ends() == {}
        await asker.probe(check)
        (ends_at,) = asker.pool.certificate_ends().values()
        assert asker.pool.certificate_ends().keys() == {"llm"}
        assert ends_at > 1_700_000_000
        asker.pool.forget(check)
        assert asker.pool.certificate_ends() == {}


async def test_hanging_handshake_times_out_as_one(authority: Authority) -> None:
    async with asking(judge=secure_judge(authority)) as asker:
        plot = asker.farm.plant("hang")
        fields = SECURE | {"timeout_s": 0.2, "connect_timeout_s": 0.1}
        outcome = await asker.probe(asker.check(plot, **fields))
        assert outcome.reason is Reason.TLS_HANDSHAKE
        assert outcome.detail == "no complete handshake within 0.2 s"


async def test_handshake_broken_off_by_either_side_is_an_answer(authority: Authority) -> None:
    async with (
        asking(judge=secure_judge(authority)) as asker,
        talking(ADDRESS, secure=authority.server("wrong_name")) as stranger,
    ):
        plain = asker.farm.plant("close_without_byte")
        garbage = asker.farm.plant("garbage")
        for plot in (plain, garbage):
            asker.farm.turn(plot, "hang")
        wrong = await asker.probe(asker.check(stranger.plot, **SECURE))
        assert wrong.reason is Reason.TLS_CERTIFICATE
        check = asker.check(plain, **SECURE)
        asker.start(check)
        await until(lambda: asker.farm.open_connections(plain) == 1)
        asker.farm.hang_up(plain)
        await asker.settle(check)
        assert asker.outcomes[check][-1].reason is Reason.TLS_HANDSHAKE
        check = asker.check(garbage, **SECURE)
        asker.start(check)
        await until(lambda: asker.farm.open_connections(garbage) == 1)
        asker.farm.say(garbage, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await asker.settle(check)
        assert asker.outcomes[check][-1].reason is Reason.TLS_HANDSHAKE


async def test_long_reply_through_tls_is_read_to_its_end(authority: Authority) -> None:
    body = b"x" * 60_000
    async with (
        asking(judge=secure_judge(authority)) as asker,
        talking(ADDRESS, secure=authority.server()) as talker,
    ):
        talker.replies["/health"] = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + body
        check = asker.check(talker.plot, **SECURE)
        for _ in range(3):
            assert (await asker.probe(check)).reason is Reason.OK
        assert talker.connections == 1


async def test_tcp_check_with_tls_asks_for_the_handshake_only(authority: Authority) -> None:
    async with (
        asking(judge=secure_judge(authority)) as asker,
        talking(ADDRESS, secure=authority.server()) as talker,
    ):
        outcome = await asker.probe(asker.check(talker.plot, **SECURE, checks=(TcpCheck(),)))
        assert outcome.reason is Reason.OK
        assert outcome.tls_s > 0
        assert talker.asked == []
