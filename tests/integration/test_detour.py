"""HTTP/2: the same outcomes as on the main wire, by other means."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from probe.http.detour import FRESH_EVERY
from probe.http.policy import ConnectPolicy
from probe.http.resolver import Resolver
from probe.reasons import OutcomeKind, Reason
from probe.specs import HttpCheck, JsonExpectation
from tests.fakes.asker import until
from tests.fakes.authority import NAME, Authority
from tests.fakes.farm import Farm, Plot
from tests.fakes.http2_server import http2_server
from tests.fakes.nameserver import NameServer, name_server
from tests.fakes.traveller import POLICY, TLS, Traveller, serving


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


async def test_http2_over_tls_passes_with_phases(authority: Authority) -> None:
    async with serving(authority) as (traveller, server, plot):
        outcome = await traveller.probe(traveller.check(plot, scheme="https", tls=TLS))
        assert (outcome.reason, outcome.http_status) == (Reason.OK, 200)
        assert outcome.total_s >= outcome.connect_s + outcome.tls_s + outcome.first_byte_s > 0
        assert outcome.tls_s > 0
        assert server.headers[":authority"] == f"{plot.host}:{plot.port}"
        assert server.headers["accept-encoding"] == "identity"
        assert "connection" not in server.headers


async def test_http2_without_tls_is_spoken_by_prior_knowledge() -> None:
    async with serving() as (traveller, server, plot):
        assert (await traveller.probe(traveller.check(plot))).reason is Reason.OK
        assert server.requests["/200"] == 1


async def test_http2_over_a_socket_of_this_host(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    policy = ConnectPolicy.of([f"unix:{tmp_path}"])
    async with http2_server(path=path) as (_, plot):
        traveller = Traveller(policy=policy)
        assert (await traveller.probe(traveller.check(plot))).reason is Reason.OK
        await traveller.aclose()


@pytest.mark.parametrize(
    ("path", "reason", "status"),
    [
        ("/200", Reason.OK, 200),
        ("/204", Reason.OK, 204),
        ("/301", Reason.REDIRECT_REFUSED, 301),
        ("/403", Reason.AUTH_REJECTED, 403),
        ("/500", Reason.STATUS_UNEXPECTED, 500),
        ("/cut", Reason.OK, 200),
        ("/long", Reason.OK, 200),
        ("/many", Reason.RESPONSE_TOO_LARGE, 0),
        ("/garbage", Reason.RESPONSE_TIMEOUT, 0),  # reads as the head of a frame of 4.7 MB
        ("/reset", Reason.RESPONSE_MALFORMED, 0),
        ("/close", Reason.RESPONSE_CLOSED, 0),
        ("/hang", Reason.RESPONSE_TIMEOUT, 0),
    ],
)
async def test_reply_means_what_it_means_over_http1(path: str, reason: Reason, status: int) -> None:
    async with serving() as (traveller, _, plot):
        timeout_s = 0.3 if path in {"/hang", "/long", "/garbage"} else 2.0
        outcome = await traveller.probe(traveller.check(plot, path, timeout_s=timeout_s))
        assert (outcome.reason, outcome.http_status) == (reason, status)


@pytest.mark.parametrize(
    ("path", "check", "reason"),
    [
        ("/200", HttpCheck(body_contains="ready"), Reason.OK),
        ("/200", HttpCheck(json=(JsonExpectation(path="ready", equals=True),)), Reason.OK),
        ("/200", HttpCheck(headers={"X-Model": "llama"}), Reason.OK),
        ("/200", HttpCheck(headers={"X-Model": "qwen"}), Reason.BODY_MISMATCH),
        ("/200", HttpCheck(body_contains="absent"), Reason.BODY_MISMATCH),
        ("/cut", HttpCheck(body_contains="1"), Reason.RESPONSE_CLOSED),
    ],
)
async def test_content_is_judged_as_over_http1(path: str, check: HttpCheck, reason: Reason) -> None:
    async with serving() as (traveller, _, plot):
        outcome = await traveller.probe(traveller.check(plot, path, checks=(check,)))
        assert outcome.reason is reason, outcome.detail


async def test_steps_share_a_connection_and_end_at_the_first_failure() -> None:
    async with serving() as (traveller, server, plot):
        steps = tuple(HttpCheck(path=path) for path in ("/200", "/503", "/204"))
        outcome = await traveller.probe(traveller.check(plot, checks=steps))
        assert outcome.http_status == 503
        assert server.requests == {"/200": 1, "/503": 1}
        assert server.connections == 1


async def test_connection_is_kept_and_made_afresh_now_and_then() -> None:
    async with serving() as (traveller, server, plot):
        check = traveller.check(plot)
        for _ in range(FRESH_EVERY + 1):
            assert (await traveller.probe(check)).reason is Reason.OK
        assert server.connections == 2


async def test_kept_connection_that_closed_costs_nothing() -> None:
    async with serving() as (traveller, server, plot):
        check = traveller.check(plot)
        for _ in range(5):
            assert (await traveller.probe(check)).reason is Reason.OK
            server.hang_up()
            await until(lambda: not server.open)
        assert server.connections == 5


async def test_server_of_http1_does_not_pass_for_one_of_http2() -> None:
    async with Farm() as farm:
        traveller = Traveller()
        outcome = await traveller.probe(traveller.check(farm.plant("ok200"), timeout_s=0.3))
        assert outcome.kind is OutcomeKind.FAILED
        await traveller.aclose()


@pytest.mark.parametrize(
    ("kind", "reason"), [("refused", Reason.CONNECT_REFUSED), ("hang", Reason.RESPONSE_TIMEOUT)]
)
async def test_replica_that_is_not_there(kind: str, reason: Reason) -> None:
    async with Farm() as farm:
        traveller = Traveller()
        check = traveller.check(farm.plant(kind), timeout_s=0.3)
        assert (await traveller.probe(check)).reason is reason
        await traveller.aclose()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("expired", Reason.TLS_EXPIRED),
        ("not_yet", Reason.TLS_EXPIRED),
        ("wrong_name", Reason.TLS_CERTIFICATE),
        ("self_signed", Reason.TLS_CERTIFICATE),
        ("unknown_authority", Reason.TLS_CERTIFICATE),
        ("too_old", Reason.TLS_HANDSHAKE),
    ],
)
async def test_bad_certificate_has_its_own_reason(
    authority: Authority, kind: str, reason: Reason
) -> None:
    async with http2_server(authority.server(kind)) as (server, plot):
        traveller = Traveller(authority=authority)
        outcome = await traveller.probe(traveller.check(plot, scheme="https", tls=TLS))
        assert outcome.reason is reason, outcome.detail
        assert not server.requests
        await traveller.aclose()


async def test_name_is_resolved_once_and_its_address_dialled(authority: Authority) -> None:
    async with name_server() as names, resolving(names) as resolver:
        names.zone[NAME] = ["127.128.0.1"]
        async with serving(authority, resolver=resolver) as (traveller, server, plot):
            there = Plot(NAME, plot.port)
            outcome = await traveller.probe(traveller.check(there, scheme="https", tls=TLS))
            assert outcome.reason is Reason.OK, outcome.detail
            assert server.headers[":authority"] == f"{NAME}:{plot.port}"
            assert outcome.resolve_s > 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (["127.0.0.1"], Reason.POLICY_DENIED),
        (["127.128.0.1", "169.254.169.254"], Reason.POLICY_DENIED),
        ("nxdomain", Reason.DNS_FAILED),
        ("servfail", Reason.DNS_TIMEOUT),
        ("silent", Reason.DNS_TIMEOUT),
    ],
)
async def test_name_that_leads_elsewhere_is_not_dialled(answer: str, reason: Reason) -> None:
    async with name_server() as names, resolving(names) as resolver:
        names.zone["a.example"] = answer
        async with serving(resolver=resolver) as (traveller, server, plot):
            outcome = await traveller.probe(traveller.check(Plot("a.example", plot.port)))
            assert outcome.reason is reason
            assert server.connections == 0


@asynccontextmanager
async def resolving(server: NameServer) -> AsyncIterator[Resolver]:
    loop = asyncio.get_running_loop()
    resolver = Resolver(POLICY, loop=loop, nameservers=[server.address])
    try:
        yield resolver
    finally:
        await resolver.aclose()


async def test_address_outside_the_policy_is_not_dialled() -> None:
    async with http2_server(host="127.0.0.1") as (server, plot):
        traveller = Traveller()
        outcome = await traveller.probe(traveller.check(plot))
        assert outcome.reason is Reason.POLICY_DENIED
        assert server.connections == 0


async def test_cancelled_probe_tells_nothing_and_leaves_nothing() -> None:
    async with serving() as (traveller, server, plot):
        check = traveller.check(plot, "/hang")
        traveller.start(check)
        await until(lambda: server.requests["/hang"] == 1)
        traveller.detour.cancel(check)
        await until(lambda: not server.open)
        traveller.detour.forget(check)
        assert check.connection is None
        assert check not in traveller.outcomes


async def test_forgotten_target_keeps_no_connection() -> None:
    async with serving() as (traveller, server, plot):
        check = traveller.check(plot)
        await traveller.probe(check)
        assert traveller.detour.open_connections == 1
        traveller.detour.forget(check)
        await until(lambda: traveller.detour.open_connections == 0 and not server.open)


async def test_connections_are_bounded() -> None:
    async with serving(max_open=1) as (traveller, _, plot):
        traveller.start(traveller.check(plot, "/hang"))
        outcome = await traveller.probe(traveller.check(plot))
        assert outcome.reason is Reason.LOCAL_FDS
