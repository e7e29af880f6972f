"""Checks of more than one kind, through the real pool: lists, tcp, identity, one deadline."""

from collections.abc import AsyncIterator
from time import monotonic

import pytest

from probe.wire import HttpCheck, Reason, TcpCheck
from tests.fakes.asker import Asker, asking


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    async with asking() as running:
        yield running


async def test_steps_are_asked_in_order_on_one_connection(asker: Asker) -> None:
    plot = asker.farm.plant("ok200")
    check = asker.check(plot, checks=("vllm", HttpCheck(path="/deep", body_contains="ok"), "http"))
    for _ in range(2):
        assert (await asker.probe(check)).reason is Reason.OK
    assert asker.farm.requests[plot.host] == 6
    assert asker.farm.connections[plot.host] == 1
    assert asker.farm.heads[plot.host].startswith(b"GET /health HTTP/1.1\r\n")


@pytest.mark.parametrize("kind", ["ok200_close", "ok200_http10", "close_idle", "until_close"])
async def test_steps_go_on_over_new_connections_where_none_is_kept(kind: str, asker: Asker) -> None:
    plot = asker.farm.plant(kind)
    check = asker.check(plot, checks=("http", HttpCheck(body_contains="ok"), "http"))
    for _ in range(2):
        assert (await asker.probe(check)).reason is Reason.OK
    assert asker.farm.requests[plot.host] >= 6


async def test_first_step_that_fails_ends_the_probe(asker: Asker) -> None:
    plot = asker.farm.plant("s503")
    expects = HttpCheck(expected_status="503")
    outcome = await asker.probe(asker.check(plot, checks=(expects, "http", expects)))
    assert (outcome.reason, outcome.http_status) == (Reason.STATUS_UNEXPECTED, 503)
    assert asker.farm.requests[plot.host] == 2


async def test_all_steps_share_one_deadline(asker: Asker) -> None:
    plot = asker.farm.plant("hang")
    began_at = monotonic()
    outcome = await asker.probe(asker.check(plot, checks=("http",) * 8))
    assert outcome.reason is Reason.RESPONSE_TIMEOUT
    assert 0.3 <= monotonic() - began_at < 1.0
    assert asker.farm.requests[plot.host] == 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("hang", Reason.OK),
        ("garbage", Reason.OK),
        ("refused", Reason.CONNECT_REFUSED),
        ("unanswered", Reason.CONNECT_TIMEOUT),
    ],
)
async def test_tcp_asks_for_a_connection_and_nothing_else(
    kind: str, reason: Reason, asker: Asker
) -> None:
    plot = asker.farm.plant(kind)
    for checks in ("tcp", (TcpCheck(),)):
        check = asker.check(plot, checks=checks)
        for _ in range(2):
            outcome = await asker.probe(check)
            assert (outcome.reason, outcome.http_status) == (reason, 0)
    assert asker.farm.requests[plot.host] == 0


async def test_another_replica_at_the_address_is_told_apart(asker: Asker) -> None:
    identity = HttpCheck(headers={"X-Replica": "{replica_id}"}, identity=True)
    check = asker.check(asker.farm.plant("ok200"), checks=(identity,))
    outcome = await asker.probe(check)
    assert outcome.reason is Reason.BODY_MISMATCH
    assert outcome.detail == f"header x-replica: expected '{check.replica_id}', found nothing"
