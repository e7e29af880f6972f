"""Real handshakes on the main wire: each way to fail has its own reason, and good ones pass."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from time import monotonic, time

import pytest
from msgspec.structs import replace

from probe.check import StatusJudge
from probe.health import Outcome
from probe.http.policy import ConnectPolicy
from probe.http.pool import HttpPool
from probe.http.resolver import Resolver
from probe.http.tls import TlsContexts
from probe.reasons import OutcomeKind, Reason
from probe.schedule.scheduler import Check
from probe.specs import TcpCheck, TlsOptions
from probe.wire import ReplicaProbeTarget, decode_target, encode
from tests.fakes.asker import until
from tests.fakes.authority import ADDRESS, NAME, Authority
from tests.fakes.nameserver import name_server

POLICY = ConnectPolicy.of(["127.128.0.0/9"], allow_dns=True)
UUID = "6f1c2d3e-0000-4000-8000-00000000002a"
TLS = TlsOptions(ca_file="ca.pem")
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


class TlsServer:
    """Answers 200 to everything that comes through the handshake; remembers what was asked for."""

    def __init__(self) -> None:
        self.port = 0
        self.requests = 0
        self.handshakes = 0
        self.names: list[str | None] = []
        self.protocols: list[str | None] = []
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.writers.add(writer)
        self.handshakes += 1
        tls = writer.get_extra_info("ssl_object")
        self.protocols.append(tls.selected_alpn_protocol() if tls else None)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                writer.write(REPLY)
        except (OSError, asyncio.IncompleteReadError):
            pass
        self.writers.discard(writer)
        writer.close()


@asynccontextmanager
async def tls_server(context: ssl.SSLContext | None) -> AsyncIterator[TlsServer]:
    server = TlsServer()
    if context is not None:
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.sni_callback = lambda _tls, name, _context: server.names.append(name)
    # Failed handshakes are the point here, not news for the log.
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    listening = await asyncio.start_server(server.serve, ADDRESS, 0, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for writer in tuple(server.writers):
            writer.transport.abort()
        await until(lambda: not server.writers)


class Client:
    """A pool, and the sweep's part."""

    def __init__(self, tls: TlsContexts, resolver: Resolver | None = None) -> None:
        loop = asyncio.get_running_loop()
        judge = StatusJudge(POLICY, tls=tls)
        self.pool = HttpPool(judge, loop=loop, max_open=50, max_kept=50, resolver=resolver)
        self.told: dict[Check, Outcome] = {}
        self.pool.done = self.told.__setitem__

    async def probe(self, target: ReplicaProbeTarget | Check) -> Outcome:
        check = target if isinstance(target, Check) else Check(target)
        check.started_at = now = monotonic()
        self.pool.start(check, now)
        look_at = now + check.first_deadline_s
        while check not in self.told:
            if monotonic() >= look_at:
                look_at = self.pool.expire(check, monotonic()) or look_at
            await asyncio.sleep(0.002)
        return self.told.pop(check)


@asynccontextmanager
async def asking(
    authority: Authority, kind: str | None = "good", resolver: Resolver | None = None
) -> AsyncIterator[tuple[Client, TlsServer]]:
    context = None if kind is None else authority.server(kind)
    async with tls_server(context) as server:
        client = Client(TlsContexts(authority.directory), resolver)
        yield client, server
        client.pool.close()
        await until(lambda: client.pool.open_connections == 0)


def target(
    server: TlsServer | int, *, host: str = ADDRESS, tls: TlsOptions = TLS
) -> ReplicaProbeTarget:
    fields = {
        "replica_id": UUID,
        "replica_host": host,
        "inference_port": server if isinstance(server, int) else server.port,
        "health_path": "/health",
        "scheme": "https",
        "timeout_s": 2.0,
        "connect_timeout_s": 2.0,
        "deployment": "chat",
    }
    return decode_target(encode({**fields, "tls": tls}))


MATRIX = {
    "expired": (Reason.TLS_EXPIRED, "certificate has expired"),
    "not_yet": (Reason.TLS_EXPIRED, "certificate is not yet valid"),
    "wrong_name": (Reason.TLS_CERTIFICATE, "not valid for '127.128.0.1'"),
    "self_signed": (Reason.TLS_CERTIFICATE, "self-signed certificate"),
    "unknown_authority": (Reason.TLS_CERTIFICATE, "unable to get local issuer certificate"),
}
REFUSALS = {
    "too_old": "tlsv1 alert protocol version",
    "wants_client": "handshake failure",
    "wants_client_13": "certificate required",
}
"""What servers say that refuse us; asyncio's would close without a word."""


@pytest.mark.parametrize("kind", MATRIX)
async def test_each_way_to_fail_has_its_own_reason(authority: Authority, kind: str) -> None:
    reason, says = MATRIX[kind]
    async with asking(authority, kind) as (client, server):
        outcome = await client.probe(target(server))
        assert outcome.reason is reason, outcome.detail
        assert outcome.kind is OutcomeKind.FAILED
        assert says in outcome.detail
        assert server.requests == 0


@contextmanager
def talking_server(context: ssl.SSLContext) -> Iterator[int]:
    """Serve in a thread, with a TLS of the system's sockets, which sends its alerts."""
    listening = socket.create_server((ADDRESS, 0))
    listening.settimeout(0.05)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with suppress(OSError):
                accepted, _ = listening.accept()
                accepted.settimeout(2)
                with context.wrap_socket(accepted, server_side=True) as tls:
                    tls.recv(4096)
                    tls.sendall(REPLY)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        over.set()
        thread.join()
        listening.close()


@pytest.mark.parametrize("kind", REFUSALS)
async def test_server_that_refuses_us_says_why(authority: Authority, kind: str) -> None:
    with talking_server(authority.server(kind)) as port:
        client = Client(TlsContexts(authority.directory))
        outcome = await client.probe(target(port))
        assert outcome.reason is Reason.TLS_HANDSHAKE, outcome
        assert REFUSALS[kind] in outcome.detail
        client.pool.close()


@pytest.mark.parametrize("kind", ["expired", "wrong_name", "self_signed", "unknown_authority"])
async def test_where_nothing_is_verified_every_certificate_passes(
    authority: Authority, kind: str
) -> None:
    async with asking(authority, kind) as (client, server):
        outcome = await client.probe(target(server, tls=TlsOptions(verify=False)))
        assert outcome.reason is Reason.OK, outcome.detail


async def test_authorities_of_the_system_do_not_vouch_for_a_private_one(
    authority: Authority,
) -> None:
    async with asking(authority) as (client, server):
        outcome = await client.probe(target(server, tls=TlsOptions()))
        assert outcome.reason is Reason.TLS_CERTIFICATE


async def test_good_certificate_passes_with_its_phase_and_its_end(authority: Authority) -> None:
    async with asking(authority) as (client, server):
        outcome = await client.probe(target(server))
        assert (outcome.reason, outcome.http_status) == (Reason.OK, 200)
        assert outcome.tls_s > 0
        assert server.protocols == ["http/1.1"]
        assert server.names == [None]  # an address is no name to ask for
        assert 0 < client.pool.certificate_ends()["chat"] - time() < 2 * 86400


async def test_name_is_asked_for_and_checked(authority: Authority) -> None:
    async with asking(authority) as (client, server):
        tls = TlsOptions(ca_file="ca.pem", server_name=NAME)
        assert (await client.probe(target(server, tls=tls))).reason is Reason.OK
        assert server.names == [NAME]
        tls = TlsOptions(ca_file="ca.pem", server_name="other.example")
        assert (await client.probe(target(server, tls=tls))).reason is Reason.TLS_CERTIFICATE


async def test_name_that_resolves_is_what_the_certificate_must_be_for(
    authority: Authority,
) -> None:
    async with name_server() as names:
        names.zone[NAME] = names.zone["other.example"] = [ADDRESS]
        loop = asyncio.get_running_loop()
        resolver = Resolver(POLICY, loop=loop, nameservers=[names.address])
        async with asking(authority, resolver=resolver) as (client, server):
            good = await client.probe(target(server, host=NAME))
            assert good.reason is Reason.OK, good.detail
            assert server.names == [NAME]
            bad = await client.probe(target(server, host="other.example"))
            assert bad.reason is Reason.TLS_CERTIFICATE
        await resolver.aclose()


@pytest.mark.parametrize("kind", ["wants_client", "wants_client_13"])
@pytest.mark.parametrize(
    "files",
    [("client.pem", None), ("client.crt", "client.key")],
    ids=["one-file", "two-files"],
)
async def test_client_certificate_is_shown(
    authority: Authority, kind: str, files: tuple[str, str | None]
) -> None:
    async with asking(authority, kind) as (client, server):
        tls = TlsOptions(
            ca_file="ca.pem", client_certificate_file=files[0], client_key_file=files[1]
        )
        outcome = await client.probe(target(server, tls=tls))
        assert outcome.reason is Reason.OK, outcome.detail


async def test_server_without_tls_fails_the_handshake(authority: Authority) -> None:
    async with asking(authority, None) as (client, server):
        server.writers.clear()
        fields = replace(target(server), timeout_s=0.3)
        outcome = await client.probe(fields)
        assert outcome.reason is Reason.TLS_HANDSHAKE, outcome.detail


async def test_tcp_check_with_tls_ends_with_the_handshake(authority: Authority) -> None:
    for kind, reason in (("good", Reason.OK), ("expired", Reason.TLS_EXPIRED)):
        async with asking(authority, kind) as (client, server):
            asked = replace(target(server), checks=(TcpCheck(),))
            assert (await client.probe(asked)).reason is reason
            assert server.requests == 0


async def test_kept_connection_shakes_hands_once(authority: Authority) -> None:
    async with asking(authority) as (client, server):
        check = Check(target(server))
        for _ in range(3):
            assert (await client.probe(check)).reason is Reason.OK
        assert (server.handshakes, server.requests) == (1, 3)


async def test_rotated_authority_is_trusted_from_the_next_admission_on(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    Authority(old)
    authority = Authority(new)
    contexts = TlsContexts(old)
    async with tls_server(authority.server()) as server:
        client = Client(contexts)
        assert (await client.probe(target(server))).reason is Reason.TLS_CERTIFICATE
        (new / "ca.pem").replace(old / "ca.pem")
        assert (await client.probe(target(server))).reason is Reason.OK
        client.pool.close()
