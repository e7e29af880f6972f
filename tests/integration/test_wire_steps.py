"""Probes of several steps, and of none: on one connection, within one deadline."""

import asyncio

import pytest

from probe.specs import HttpCheck, TcpCheck
from probe.wire import Reason
from tests.fakes.asker import asking, until
from tests.fakes.farm import Plot
from tests.fakes.talker import talking

BAD = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
THREE = (
    HttpCheck(path="/health"),
    HttpCheck(path="/v1/models", body_contains="ok"),
    HttpCheck(path="/ready"),
)


async def test_steps_are_asked_in_order_on_one_connection() -> None:
    async with asking() as asker, talking() as talker:
        check = asker.check(talker.plot, checks=THREE)
        for _ in range(3):
            outcome = await asker.probe(check)
            assert outcome.reason is Reason.OK, outcome
        assert talker.asked == ["/health", "/v1/models", "/ready"] * 3
        assert talker.connections == 1
        assert 0 < outcome.first_byte_s <= outcome.total_s


async def test_step_that_fails_is_the_last_one_asked() -> None:
    async with asking() as asker, talking() as talker:
        talker.replies["/v1/models"] = BAD
        outcome = await asker.probe(asker.check(talker.plot, checks=THREE))
        assert (outcome.reason, outcome.http_status) == (Reason.STATUS_UNEXPECTED, 503)
        assert talker.asked == ["/health", "/v1/models"]


async def test_replica_that_keeps_no_connection_is_asked_each_step_on_a_new_one() -> None:
    async with asking() as asker, talking() as talker:
        for path in ("/health", "/ready"):
            talker.replies[path] = CLOSING
        check = asker.check(talker.plot, checks=THREE)
        for _ in range(2):
            assert (await asker.probe(check)).reason is Reason.OK
        assert talker.asked == ["/health", "/v1/models", "/ready"] * 2
        assert talker.connections == 4


async def test_connection_closed_unannounced_between_two_steps_is_replaced_unseen() -> None:
    async with asking() as asker:
        plot = asker.farm.plant("stale")
        check = asker.check(plot, checks=(HttpCheck(path="/a"), HttpCheck(path="/b")))
        for _ in range(2):
            assert (await asker.probe(check)).reason is Reason.OK
        assert asker.farm.connections[plot.host] >= 3


async def test_steps_share_one_deadline() -> None:
    async with asking() as asker, talking() as talker:
        talker.replies["/v1/models"] = b"HTTP/1.1 200 OK\r\n"
        outcome = await asker.probe(asker.check(talker.plot, checks=THREE))
        assert outcome.reason is Reason.RESPONSE_TIMEOUT
        assert outcome.total_s == pytest.approx(0.3)


async def test_tcp_check_passes_when_connected_and_leaves_nothing_open() -> None:
    async with asking() as asker:
        plot = asker.farm.plant("hang")
        check = asker.check(plot, checks=(TcpCheck(),))
        for _ in range(3):
            outcome = await asker.probe(check)
            assert outcome.reason is Reason.OK, outcome
            assert outcome.connect_s > 0
            assert asker.pool.open_connections == 0
        await until(lambda: asker.farm.open_connections(plot) == 0)
        assert asker.farm.requests.total() == 0


async def test_tcp_check_tells_refused_from_unanswered() -> None:
    async with asking() as asker:
        refused = asker.check(asker.farm.plant("refused"), checks=(TcpCheck(),))
        unanswered = asker.check(asker.farm.plant("unanswered"), checks=(TcpCheck(),))
        assert (await asker.probe(refused)).reason is Reason.CONNECT_REFUSED
        assert (await asker.probe(unanswered)).reason is Reason.CONNECT_TIMEOUT


async def test_server_that_speaks_first_passes_a_tcp_check() -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 at your service\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with asking() as asker:
        plot = Plot("127.0.0.1", server.sockets[0].getsockname()[1])
        check = asker.check(plot, checks=(TcpCheck(),))
        assert (await asker.probe(check)).reason is Reason.OK
        server.close()
