"""The wire on real sockets: every way a replica can answer, and what becomes of its connection."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from time import monotonic
from typing import Final
from uuid import UUID

import anyio
import pytest

from probe.check import StatusJudge
from probe.health import Outcome
from probe.http.policy import ConnectPolicy
from probe.http.pool import ConnectionEvent, HttpPool
from probe.scheduler import Check
from probe.wire import OutcomeKind, Reason, ReplicaId, ReplicaProbeTarget
from tests.fakes.farm import KINDS, Farm, Plot

LOOPBACK: Final = ConnectPolicy.of(["127.0.0.0/8"])
PATIENCE_S: Final = 10.0


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - a condition outside has no event
            await anyio.sleep(0.002)


class Bench:
    """A pool, a farm, and the part of the sweep: starts, deadlines, outcomes."""

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


@pytest.fixture
async def farm() -> AsyncIterator[Farm]:
    async with Farm() as farm:
        yield farm


@pytest.fixture
async def bench(farm: Farm) -> AsyncIterator[Bench]:
    bench = Bench(farm)
    yield bench
    bench.pool.close()
    await until(lambda: bench.pool.open_connections == 0)


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


def test_every_kind_of_the_farm_has_its_verdict() -> None:
    assert VERDICTS.keys() == KINDS


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_each_reply_gets_its_reason_twice_and_only_clean_connections_are_reused(
    kind: str, bench: Bench
) -> None:
    reason, status, reused = VERDICTS[kind]
    plot = bench.farm.plant(kind)
    check = bench.check(plot)
    for _ in range(2):
        outcome = await bench.probe(check)
        assert (outcome.reason, outcome.http_status) == (reason, status), outcome
    if kind not in {"refused", "unanswered"}:
        # the second request of `stale` meets a closed connection, and is sent again
        assert bench.farm.requests[plot.host] == (3 if kind == "stale" else 2)
        assert bench.farm.connections[plot.host] == (1 if reused else 2)


@pytest.mark.parametrize(
    "kind", sorted(k for k, v in VERDICTS.items() if not v[0].name.endswith("TIMEOUT"))
)
async def test_what_need_not_be_waited_for_is_known_at_once(kind: str, bench: Bench) -> None:
    check = bench.check(bench.farm.plant(kind), timeout_s=30.0, connect_timeout_s=20.0)
    outcome = await bench.probe(check)
    assert outcome.total_s < 1.0


async def test_kept_connection_carries_every_probe(bench: Bench) -> None:
    plot = bench.farm.plant("ok200")
    check = bench.check(plot)
    outcomes = [await bench.probe(check) for _ in range(20)]
    assert bench.farm.requests[plot.host] == 20
    assert bench.farm.connections[plot.host] == 1
    assert outcomes[0].connect_s > 0
    assert all(outcome.connect_s == 0 for outcome in outcomes[1:])
    assert all(0 < outcome.first_byte_s <= outcome.total_s for outcome in outcomes)


async def test_head_request_needs_no_body(bench: Bench) -> None:
    plot = bench.farm.plant("ok200")
    check = bench.check(plot, method="HEAD")
    bench.farm.turn(plot, "hang")
    assert (await bench.probe(check)).reason is Reason.RESPONSE_TIMEOUT
    bench.farm.turn(plot, "head200")
    assert (await bench.probe(check)).reason is Reason.OK
    assert (await bench.probe(check)).reason is Reason.OK
    assert bench.farm.connections[plot.host] == 2
    assert bench.farm.heads[plot.host].startswith(b"HEAD /health HTTP/1.1\r\n")


async def test_expected_status_decides_not_the_class_of_the_code(bench: Bench) -> None:
    expected = bench.check(bench.farm.plant("s503"), expected_status="503")
    redirect = bench.check(bench.farm.plant("s301"), expected_status="200,301")
    plain = bench.check(bench.farm.plant("ok200"), expected_status="204")
    assert (await bench.probe(expected)).reason is Reason.OK
    assert (await bench.probe(redirect)).reason is Reason.OK
    assert (await bench.probe(plain)).detail == "200, not in 204"


@pytest.mark.parametrize("rst", [False, True])
async def test_connection_closed_while_idle_is_simply_replaced(bench: Bench, *, rst: bool) -> None:
    plot = bench.farm.plant("ok200")
    check = bench.check(plot)
    await bench.probe(check)
    assert bench.farm.hang_up(plot, rst=rst) == 1
    await until(lambda: bench.pool.open_connections == 0)
    assert bench.pool.events[ConnectionEvent.IDLED_OUT] == 1
    assert (await bench.probe(check)).reason is Reason.OK
    assert bench.farm.connections[plot.host] == 2
    assert bench.pool.events[ConnectionEvent.RETRIED] == 0


async def test_connection_closed_under_the_request_is_retried_once_unseen(bench: Bench) -> None:
    plot = bench.farm.plant("stale")
    check = bench.check(plot)
    for _ in range(3):
        assert (await bench.probe(check)).reason is Reason.OK
    assert bench.farm.connections[plot.host] == 3
    assert bench.pool.events[ConnectionEvent.RETRIED] == 2
    assert len(bench.outcomes[check]) == 3


async def test_retry_on_a_fresh_connection_is_the_last(bench: Bench) -> None:
    plot = bench.farm.plant("ok200")
    check = bench.check(plot)
    await bench.probe(check)
    bench.farm.turn(plot, "close_without_byte")
    outcome = await bench.probe(check)
    assert (outcome.reason, outcome.detail) == (Reason.RESPONSE_CLOSED, "closed without a byte")
    assert bench.farm.requests[plot.host] == 3


async def test_replica_restarted_on_the_same_address_is_never_called_down(bench: Bench) -> None:
    """S: replica restarted on the same address while pooled, false-bad 0."""
    plot = bench.farm.plant("ok200")
    check = bench.check(plot)
    for turn in range(100):
        assert (await bench.probe(check)).reason is Reason.OK
        bench.start(check)  # the request and the close cross on the way
        bench.farm.hang_up(plot, rst=turn % 2 == 0)
        await bench.settle(check)
        assert bench.outcomes[check][-1].reason is Reason.OK


async def test_bytes_nobody_asked_for_end_a_kept_connection(bench: Bench) -> None:
    plot = bench.farm.plant("ok200")
    check = bench.check(plot)
    await bench.probe(check)
    bench.farm.say(plot, b"HTTP/1.1 503 Late\r\n\r\n")
    await until(lambda: bench.pool.open_connections == 0)
    assert (await bench.probe(check)).reason is Reason.OK


@pytest.mark.parametrize(
    ("kind", "detail"),
    [
        ("unanswered", "no connection within 0.2 s"),
        ("hang", "no byte of a reply within 0.3 s"),
        ("half_head", "reply incomplete after 0.3 s, 25 bytes"),
    ],
)
async def test_timeout_says_how_far_the_probe_came(kind: str, detail: str, bench: Bench) -> None:
    outcome = await bench.probe(bench.check(bench.farm.plant(kind)))
    assert outcome.detail == detail
    assert outcome.total_s == pytest.approx(0.3 if kind != "unanswered" else 0.2)


async def test_total_deadline_holds_however_the_bytes_come(bench: Bench) -> None:
    check = bench.check(bench.farm.plant("slow_bytes"))
    started = monotonic()
    outcome = await bench.probe(check)
    assert outcome.reason is Reason.RESPONSE_TIMEOUT
    assert outcome.detail.startswith("reply incomplete after 0.3 s, ")
    assert 0.3 <= monotonic() - started < 1.0


async def test_answered_dial_has_the_rest_of_the_timeout(bench: Bench) -> None:
    check = bench.check(bench.farm.plant("hang"), timeout_s=5.0, connect_timeout_s=0.05)
    bench.start(check)
    await until(lambda: bench.farm.requests.total() == 1)
    assert bench.pool.expire(check, check.started_at + 0.05) == check.started_at + 5.0
    assert check.in_flight


@pytest.mark.parametrize("kind", ["hang", "unanswered", "ok200"])
@pytest.mark.parametrize("ends", ["cancel", "forget", "close"])
async def test_ended_probe_has_no_outcome_and_leaves_no_connection(
    kind: str, ends: str, bench: Bench
) -> None:
    check = bench.check(bench.farm.plant(kind))
    bench.start(check)
    if kind == "hang":
        await until(lambda: bench.farm.requests.total() == 1)
    match ends:
        case "cancel":
            bench.pool.cancel(check)
        case "forget":
            bench.pool.forget(check)
        case _:
            bench.pool.close()
    await until(lambda: bench.pool.open_connections == 0)
    assert check not in bench.outcomes
    check.in_flight = False


async def test_cancelled_probe_can_begin_again_at_once(bench: Bench) -> None:
    plot = bench.farm.plant("ok200")
    check = bench.check(plot)
    for _ in range(50):
        bench.start(check)
        bench.pool.cancel(check)
        assert (await bench.probe(check)).reason is Reason.OK
    assert len(bench.outcomes[check]) == 50


async def test_cancel_keeps_a_connection_between_probes(bench: Bench) -> None:
    plot = bench.farm.plant("ok200")
    check = bench.check(plot)
    await bench.probe(check)
    bench.pool.cancel(check)
    await bench.probe(check)
    assert bench.farm.connections[plot.host] == 1


async def test_forgotten_target_loses_its_kept_connection(bench: Bench) -> None:
    plot = bench.farm.plant("ok200")
    check = bench.check(plot)
    await bench.probe(check)
    bench.pool.forget(check)
    assert check.connection is None
    await until(lambda: bench.farm.open_connections(plot) == 0)


async def test_address_outside_the_policy_is_not_dialled(bench: Bench) -> None:
    check = bench.check(Plot("169.254.169.254", 80))
    outcome = await bench.probe(check)
    assert outcome.reason is Reason.POLICY_DENIED
    assert outcome.kind is OutcomeKind.PROBE_ERROR
    assert "never dialled" in outcome.detail
    assert bench.pool.events[ConnectionEvent.OPENED] == 0


async def test_target_that_should_not_have_been_loaded_ends_as_denied(bench: Bench) -> None:
    outcome = await bench.probe(bench.check(Plot("replica.internal", 80)))
    assert outcome.reason is Reason.POLICY_DENIED
    assert "does not resolve names" in outcome.detail


async def test_no_more_connections_than_allowed_and_none_blamed_on_a_replica(farm: Farm) -> None:
    bench = Bench(farm, max_open=3, max_kept=1)
    checks = [bench.check(farm.plant("hang")) for _ in range(5)]
    for check in checks:
        bench.start(check)
    crowded = [check for check in checks if not check.in_flight]
    assert [bench.outcomes[check][0].reason for check in crowded] == [Reason.LOCAL_FDS] * 2
    assert bench.pool.open_connections == 3
    bench.pool.close()
    await until(lambda: bench.pool.open_connections == 0)


async def test_targets_without_a_kept_connection_still_find_room(farm: Farm) -> None:
    bench = Bench(farm, max_open=6, max_kept=2)
    checks = [bench.check(farm.plant("ok200")) for _ in range(30)]
    for _ in range(3):
        for check in checks:
            assert (await bench.probe(check)).reason is Reason.OK
    await until(lambda: bench.pool.open_connections == 2)
    bench.pool.close()
    await until(lambda: bench.pool.open_connections == 0)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno(), hard))
    held: list[socket.socket] = []
    try:
        while True:  # holes below the limit
            try:
                held.append(socket.socket())
            except OSError:
                break
        yield
    finally:
        for each in held:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_exhausted_descriptors_blame_the_prober_and_pass_by(bench: Bench) -> None:
    """S1: our own machine's failure is no evidence."""
    check = bench.check(bench.farm.plant("ok200"))
    with no_descriptor_left():
        outcome = await bench.probe(check)
    assert outcome.reason is Reason.LOCAL_FDS
    assert outcome.kind is OutcomeKind.PROBE_ERROR
    assert bench.pool.open_connections == 0
    assert (await bench.probe(check)).reason is Reason.OK


async def test_five_hundred_hostile_targets_do_not_delay_healthy_ones(bench: Bench) -> None:
    hostile = sorted(KINDS - {"ok200", "unanswered"})
    bad = [
        bench.check(bench.farm.plant(kind), timeout_s=2.0, connect_timeout_s=2.0)
        for kind in islice(cycle(hostile), 500)
    ]
    good = [
        bench.check(bench.farm.plant("ok200"), timeout_s=2.0, connect_timeout_s=2.0)
        for _ in range(50)
    ]
    for check in bad + good:
        bench.start(check)
    await bench.settle(*good)
    waiting = sum(check.in_flight for check in bad)
    for _ in range(3):
        for check in good:
            bench.start(check)
        await bench.settle(*good)
    outcomes = [outcome for check in good for outcome in bench.outcomes[check]]
    assert {outcome.reason for outcome in outcomes} == {Reason.OK}
    assert waiting > 0, "the hostile ones were still at it"
    assert max(outcome.total_s for outcome in outcomes) < 1.0
    await bench.settle(*bad)
    for kind, check in zip(cycle(hostile), bad, strict=False):
        assert bench.outcomes[check][-1].reason is VERDICTS[kind][0], kind
