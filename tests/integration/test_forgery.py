"""A prober is not to be led astray: honeypots on real sockets, and every way known to reach them.

Replicas live in 127.128.0.0/9, which is allowed. Every other loopback address, `::1` and a socket
are honeypots on the same port. Not one connection may reach them.
"""

from pathlib import Path

import pytest

from probe.commands.once import target_of_url
from probe.errors import WireError
from probe.here import is_here
from probe.http.policy import ConnectPolicy, Service
from probe.reasons import OutcomeKind, Reason
from tests.fakes.astray import astray, target
from tests.fakes.corpus import ADDRESSES, NAMES, URLS
from tests.fakes.honeypot import ALLOWED, REPLICA, honeypot
from tests.fakes.nameserver import NXDOMAIN, SERVFAIL


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
