"""The wire on real sockets: every way a replica can answer, and what becomes of its connection."""

from collections.abc import AsyncIterator
from time import monotonic

import pytest

from probe.http.pool import ConnectionEvent
from probe.wire import Reason
from tests.fakes.asker import VERDICTS, Asker, asking, until
from tests.fakes.farm import KINDS


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    async with asking() as running:
        yield running


def test_every_kind_of_the_farm_has_its_verdict() -> None:
    assert VERDICTS.keys() == KINDS


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_each_reply_gets_its_reason_twice_and_only_clean_connections_are_reused(
    kind: str, asker: Asker
) -> None:
    reason, status, reused = VERDICTS[kind]
    plot = asker.farm.plant(kind)
    check = asker.check(plot)
    for _ in range(2):
        outcome = await asker.probe(check)
        assert (outcome.reason, outcome.http_status) == (reason, status), outcome
    if kind not in {"refused", "unanswered"}:
        # the second request of `stale` meets a closed connection, and is sent again
        assert asker.farm.requests[plot.host] == (3 if kind == "stale" else 2)
        assert asker.farm.connections[plot.host] == (1 if reused else 2)


@pytest.mark.parametrize(
    "kind", sorted(k for k, v in VERDICTS.items() if not v[0].name.endswith("TIMEOUT"))
)
async def test_what_need_not_be_waited_for_is_known_at_once(kind: str, asker: Asker) -> None:
    check = asker.check(asker.farm.plant(kind), timeout_s=30.0, connect_timeout_s=20.0)
    outcome = await asker.probe(check)
    assert outcome.total_s < 1.0


async def test_kept_connection_carries_every_probe(asker: Asker) -> None:
    plot = asker.farm.plant("ok200")
    check = asker.check(plot)
    outcomes = [await asker.probe(check) for _ in range(20)]
    assert asker.farm.requests[plot.host] == 20
    assert asker.farm.connections[plot.host] == 1
    assert outcomes[0].connect_s > 0
    assert all(outcome.connect_s == 0 for outcome in outcomes[1:])
    assert all(0 < outcome.first_byte_s <= outcome.total_s for outcome in outcomes)


async def test_head_request_needs_no_body(asker: Asker) -> None:
    plot = asker.farm.plant("ok200")
    check = asker.check(plot, method="HEAD")
    asker.farm.turn(plot, "hang")
    assert (await asker.probe(check)).reason is Reason.RESPONSE_TIMEOUT
    asker.farm.turn(plot, "head200")
    assert (await asker.probe(check)).reason is Reason.OK
    assert (await asker.probe(check)).reason is Reason.OK
    assert asker.farm.connections[plot.host] == 2
    assert asker.farm.heads[plot.host].startswith(b"HEAD /health HTTP/1.1\r\n")


async def test_expected_status_decides_not_the_class_of_the_code(asker: Asker) -> None:
    expected = asker.check(asker.farm.plant("s503"), expected_status="503")
    redirect = asker.check(asker.farm.plant("s301"), expected_status="200,301")
    plain = asker.check(asker.farm.plant("ok200"), expected_status="204")
    assert (await asker.probe(expected)).reason is Reason.OK
    assert (await asker.probe(redirect)).reason is Reason.OK
    assert (await asker.probe(plain)).detail == "200, not in 204"


@pytest.mark.parametrize("rst", [False, True])
async def test_connection_closed_while_idle_is_simply_replaced(asker: Asker, *, rst: bool) -> None:
    plot = asker.farm.plant("ok200")
    check = asker.check(plot)
    await asker.probe(check)
    assert asker.farm.hang_up(plot, rst=rst) == 1
    await until(lambda: asker.pool.open_connections == 0)
    assert asker.pool.events[ConnectionEvent.IDLED_OUT] == 1
    assert (await asker.probe(check)).reason is Reason.OK
    assert asker.farm.connections[plot.host] == 2
    assert asker.pool.events[ConnectionEvent.RETRIED] == 0


async def test_connection_closed_under_the_request_is_retried_unseen_and_kept_no_more(
    asker: Asker,
) -> None:
    plot = asker.farm.plant("stale")
    check = asker.check(plot)
    for _ in range(5):
        assert (await asker.probe(check)).reason is Reason.OK
    assert asker.farm.connections[plot.host] == 5
    assert asker.farm.requests[plot.host] == 6
    assert asker.pool.events[ConnectionEvent.RETRIED] == 1
    assert len(asker.outcomes[check]) == 5


async def test_retry_on_a_fresh_connection_is_the_last(asker: Asker) -> None:
    plot = asker.farm.plant("ok200")
    check = asker.check(plot)
    await asker.probe(check)
    asker.farm.turn(plot, "close_without_byte")
    outcome = await asker.probe(check)
    assert (outcome.reason, outcome.detail) == (Reason.RESPONSE_CLOSED, "closed without a byte")
    assert asker.farm.requests[plot.host] == 3


async def test_replica_restarted_on_the_same_address_is_never_called_down(asker: Asker) -> None:
    """S: replica restarted on the same address while pooled, false-bad 0."""
    plot = asker.farm.plant("ok200")
    check = asker.check(plot)
    for turn in range(100):
        assert (await asker.probe(check)).reason is Reason.OK
        asker.start(check)  # the request and the close cross on the way
        asker.farm.hang_up(plot, rst=turn % 2 == 0)
        await asker.settle(check)
        assert asker.outcomes[check][-1].reason is Reason.OK


async def test_bytes_nobody_asked_for_end_a_kept_connection(asker: Asker) -> None:
    plot = asker.farm.plant("ok200")
    check = asker.check(plot)
    await asker.probe(check)
    asker.farm.say(plot, b"HTTP/1.1 503 Late\r\n\r\n")
    await until(lambda: asker.pool.open_connections == 0)
    assert (await asker.probe(check)).reason is Reason.OK


@pytest.mark.parametrize(
    ("kind", "detail"),
    [
        ("unanswered", "no connection within 0.2 s"),
        ("hang", "no byte of a reply within 0.3 s"),
        ("half_head", "reply incomplete after 0.3 s, 25 bytes"),
    ],
)
async def test_timeout_says_how_far_the_probe_came(kind: str, detail: str, asker: Asker) -> None:
    outcome = await asker.probe(asker.check(asker.farm.plant(kind)))
    assert outcome.detail == detail
    assert outcome.total_s == pytest.approx(0.3 if kind != "unanswered" else 0.2)


async def test_total_deadline_holds_however_the_bytes_come(asker: Asker) -> None:
    check = asker.check(asker.farm.plant("slow_bytes"))
    started = monotonic()
    outcome = await asker.probe(check)
    assert outcome.reason is Reason.RESPONSE_TIMEOUT
    assert outcome.detail.startswith("reply incomplete after 0.3 s, ")
    assert 0.3 <= monotonic() - started < 1.0


async def test_answered_dial_has_the_rest_of_the_timeout(asker: Asker) -> None:
    check = asker.check(asker.farm.plant("hang"), timeout_s=5.0, connect_timeout_s=0.05)
    asker.start(check)
    await until(lambda: asker.farm.requests.total() == 1)
    assert asker.pool.expire(check, check.started_at + 0.05) == check.started_at + 5.0
    assert check in asker.waiting
