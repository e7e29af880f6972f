"""Forward proxies: the same outcomes as on the main wire, and a proxy's own trouble apart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from probe.http.proxies import ForwardProxy
from probe.reasons import Reason
from probe.references import Secret
from probe.specs import TlsOptions
from tests.fakes.authority import NAME, Authority
from tests.fakes.farm import Farm, Plot
from tests.fakes.http2_server import ForwardingProxy, forwarding_proxy, http2_server
from tests.fakes.traveller import TLS, Traveller, serving


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def forwarding(
    *only: str, authority: Authority | None = None
) -> AsyncIterator[tuple[Traveller, ForwardingProxy, Farm]]:
    async with forwarding_proxy() as (proxy, plot), Farm() as farm:
        url = Secret(f"http://user:s3cret@{plot.host}:{plot.port}")
        traveller = Traveller(proxy=ForwardProxy(url, only), authority=authority)
        yield traveller, proxy, farm
        await traveller.aclose()


async def test_proxy_is_asked_by_whole_url_and_with_its_password() -> None:
    async with forwarding() as (traveller, proxy, farm):
        plot = farm.plant("ok200")
        outcome = await traveller.probe(traveller.check(plot, "/h?x=1", http2=False))
        assert outcome.reason is Reason.OK, outcome.detail
        assert proxy.asked == [f"GET http://{plot.host}:{plot.port}/h?x=1 HTTP/1.1"]
        assert b"Proxy-Authorization: Basic dXNlcjpzM2NyZXQ=" in proxy.heads[0]
        assert farm.requests[plot.host] == 1


@pytest.mark.parametrize("http2", [True, False])
async def test_tls_goes_through_a_tunnel(authority: Authority, http2: bool) -> None:  # noqa: FBT001 - a column of the table
    async with (
        forwarding(authority=authority) as (traveller, proxy, farm),
        http2_server(authority.server()) as (_, plot),
    ):
        check = traveller.check(plot, scheme="https", tls=TLS, http2=http2)
        outcome = await traveller.probe(check)
        assert (outcome.reason is Reason.OK) == http2, outcome.detail
        assert proxy.asked == [f"CONNECT {plot.host}:{plot.port} HTTP/1.1"]
        assert farm.connections.total() == 0


async def test_name_is_left_to_the_proxy_and_checked_in_the_certificate(
    authority: Authority,
) -> None:
    async with (
        forwarding(authority=authority) as (traveller, proxy, _),
        http2_server(authority.server()) as (server, plot),
    ):
        proxy.names[NAME] = proxy.names["alias.example"] = plot.host
        for host, options in (
            (NAME, TLS),
            ("alias.example", TlsOptions(ca_file="ca.pem", server_name=NAME)),
        ):
            check = traveller.check(Plot(host, plot.port), scheme="https", tls=options)
            outcome = await traveller.probe(check)
            assert outcome.reason is Reason.OK, outcome.detail
        alias = traveller.check(Plot("alias.example", plot.port), scheme="https", tls=TLS)
        assert (await traveller.probe(alias)).reason is Reason.TLS_CERTIFICATE
        assert server.requests == {"/200": 2}


@pytest.mark.parametrize(
    ("mood", "scheme", "reason"),
    [
        ("502 Bad Gateway", "https", Reason.CONNECT_UNREACHABLE),
        ("503 Service Unavailable", "https", Reason.CONNECT_UNREACHABLE),
        ("504 Gateway Timeout", "https", Reason.CONNECT_TIMEOUT),
        ("407 Proxy Authentication Required", "https", Reason.LOCAL_NETWORK),
        ("403 Forbidden", "https", Reason.LOCAL_NETWORK),
        ("hang", "https", Reason.CONNECT_TIMEOUT),
        ("502 Bad Gateway", "http", Reason.STATUS_UNEXPECTED),
        ("hang", "http", Reason.RESPONSE_TIMEOUT),
    ],
)
async def test_word_of_the_proxy_is_weighed(
    authority: Authority, mood: str, scheme: str, reason: Reason
) -> None:
    async with forwarding(authority=authority) as (traveller, proxy, farm):
        proxy.mood = mood
        tls = TLS if scheme == "https" else None
        check = traveller.check(
            farm.plant("ok200"),
            scheme=scheme,
            tls=tls,
            http2=False,
            timeout_s=0.3,
            connect_timeout_s=0.2,
        )
        outcome = await traveller.probe(check)
        assert outcome.reason is reason, outcome.detail
        assert "s3cret" not in outcome.detail


async def test_proxy_that_is_away_moves_no_counter() -> None:
    async with Farm() as farm:
        gone = farm.plant("refused")
        proxy = ForwardProxy(Secret(f"http://{gone.host}:{gone.port}"))
        traveller = Traveller(proxy=proxy)
        outcome = await traveller.probe(traveller.check(farm.plant("ok200"), http2=False))
        assert outcome.reason is Reason.LOCAL_NETWORK
        assert "the proxy cannot be reached" in outcome.detail
        await traveller.aclose()


async def test_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving() as (traveller, _, plot):
        assert (await traveller.probe(traveller.check(plot))).reason is Reason.OK


async def test_target_of_the_proxy_is_judged_too() -> None:
    async with forwarding() as (traveller, proxy, _):
        for host in ("127.0.0.1", "169.254.169.254"):
            check = traveller.check(Plot(host, 80), http2=False)
            assert (await traveller.probe(check)).reason is Reason.POLICY_DENIED
        assert proxy.asked == []
