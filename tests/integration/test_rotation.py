"""What is rotated on disk reaches targets that are already watched, without a restart."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import copy

import pytest
from structlog.testing import capture_logs

from probe.check import StatusJudge
from probe.http.policy import ConnectPolicy
from probe.http.renewal import LOG_PERIOD_S, RENEW_S
from probe.http.request import Prepared
from probe.http.tls import TlsContexts
from probe.reasons import Reason
from probe.references import References
from probe.specs import TlsOptions
from probe.wire import ReplicaProbeTarget
from tests.fakes.asker import asking, until
from tests.fakes.authority import ADDRESS, Authority
from tests.fakes.farm import Plot
from tests.fakes.http2_server import http2_server
from tests.fakes.traveller import Traveller

LATER_S = RENEW_S + 1.0
TLS = TlsOptions(ca_file="ca.pem")
KEY = {"Authorization": "file:key"}


class CountingJudge(StatusJudge):
    """Remembers how often targets were prepared."""

    __slots__ = ("admitted",)

    def __init__(self, directory: Path) -> None:
        super().__init__(
            ConnectPolicy.of(["127.0.0.0/8"]),
            secrets=References(directory, {}),
            tls=TlsContexts(directory),
        )
        self.admitted = 0

    def admit(self, target: ReplicaProbeTarget) -> Prepared:
        """Prepare a target, and count it."""
        self.admitted += 1
        return super().admit(target)


class Gate:
    """Lets in who has the key; keeps connections unless told not to."""

    def __init__(self, *, keeps: bool) -> None:
        self.plot = Plot(ADDRESS, 0)
        self.key = "old"
        self.keeps = keeps
        self.opened = 0
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.opened += 1
        self.writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                good = "Authorization:" not in head or f"Authorization: {self.key}\r\n" in head
                status = "200 OK" if good else "401 No"
                ending = "" if self.keeps else "Connection: close\r\n"
                writer.write(f"HTTP/1.1 {status}\r\n{ending}Content-Length: 0\r\n\r\n".encode())
                if not self.keeps:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        self.writers.discard(writer)
        writer.close()


@asynccontextmanager
async def gate(
    context: ssl.SSLContext | None = None, *, keeps: bool = True, port: int = 0
) -> AsyncIterator[Gate]:
    opened = Gate(keeps=keeps)
    listening = await asyncio.start_server(opened.serve, ADDRESS, port, ssl=context)
    opened.plot = Plot(ADDRESS, listening.sockets[0].getsockname()[1])
    try:
        yield opened
    finally:
        listening.close()
        for writer in tuple(opened.writers):
            writer.transport.abort()
        await until(lambda: not opened.writers)


def rotate(directory: Path, authority: Authority) -> None:
    """Put another authority's files in the place of those in `directory`."""
    for file in authority.directory.iterdir():
        copy(file, directory)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("old\n", encoding="utf-8")
    return tmp_path


async def test_a_rotated_secret_is_sent_from_the_next_connection_on(files: Path) -> None:
    async with asking(judge=CountingJudge(files)) as asker, gate() as replica:
        check = asker.check(replica.plot, headers=KEY, timeout_s=5.0)
        assert (await asker.probe(check)).reason is Reason.OK
        (files / "key").write_text("new\n", encoding="utf-8")
        assert (await asker.probe(check, later_s=LATER_S)).reason is Reason.OK
        assert replica.opened == 1
        replica.key = "new"  # what we were let in with is refused from now on
        assert (await asker.probe(check, later_s=LATER_S)).reason is Reason.AUTH_REJECTED
        assert (await asker.probe(check, later_s=LATER_S)).reason is Reason.OK
        assert replica.opened == 2


async def test_secrets_are_read_once_a_minute_however_often_one_dials(files: Path) -> None:
    judge = CountingJudge(files)
    async with asking(judge=judge) as asker, gate(keeps=False) as replica:
        check = asker.check(replica.plot, headers=KEY, timeout_s=5.0)
        for _ in range(5):
            await asker.probe(check, later_s=RENEW_S - 1)
        assert judge.admitted == 1
        for _ in range(5):
            await asker.probe(check, later_s=2 * RENEW_S)
        assert (judge.admitted, replica.opened) == (2, 10)


@pytest.mark.parametrize("tls", [None, TlsOptions(verify=False)], ids=["plain", "no-files"])
async def test_what_names_no_file_is_prepared_once(
    files: Path, tmp_path_factory: pytest.TempPathFactory, tls: TlsOptions | None
) -> None:
    judge = CountingJudge(files)
    context = Authority(tmp_path_factory.mktemp("tls")).server() if tls else None
    async with asking(judge=judge) as asker, gate(context, keeps=False) as replica:
        scheme = "https" if tls else "http"
        check = asker.check(replica.plot, scheme=scheme, tls=tls, timeout_s=5.0)
        for _ in range(3):
            assert (await asker.probe(check, later_s=1e6)).reason is Reason.OK
    assert judge.admitted == 1


@pytest.mark.parametrize("kind", ["good", "wants_client"])
async def test_rotated_authorities_and_certificates_are_used_from_the_next_dial_on(
    tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    """A session taken up again would belong to the old ones; it is left."""
    mine = tmp_path_factory.mktemp("mine")
    old, new = (Authority(tmp_path_factory.mktemp(name)) for name in ("old", "new"))
    tls = TlsOptions(ca_file="ca.pem", client_certificate_file="client.pem")
    rotate(mine, old)
    async with asking(judge=CountingJudge(mine)) as asker:
        async with gate(old.server(kind), keeps=False) as replica:
            check = asker.check(replica.plot, scheme="https", tls=tls, timeout_s=5.0)
            for _ in range(2):
                assert (await asker.probe(check)).reason is Reason.OK
            rotate(mine, new)
            port = replica.plot.port
        async with gate(new.server(kind), keeps=False, port=port):
            assert (await asker.probe(check)).reason is Reason.TLS_CERTIFICATE
            assert (await asker.probe(check, later_s=LATER_S)).reason is Reason.OK


async def test_what_cannot_be_read_any_more_is_used_on_and_said_once_an_hour(files: Path) -> None:
    """R-53: what the prober lacks is never charged to a replica."""
    async with asking(judge=CountingJudge(files)) as asker, gate(keeps=False) as replica:
        checks = [asker.check(replica.plot, headers=KEY, timeout_s=5.0) for _ in range(3)]
        for check in checks:
            await asker.probe(check)
        (files / "key").unlink()
        with capture_logs() as logs:
            for later_s in (LATER_S, 3 * LATER_S, LATER_S + LOG_PERIOD_S + 1):
                for check in checks:
                    assert (await asker.probe(check, later_s=later_s)).reason is Reason.OK
    assert [(each["event"], each["replica"]) for each in logs] == [
        ("renewal_failed", checks[0].replica_id)
    ] * 2
    assert logs[0]["error"] == "headers: Authorization: file:key: No such file or directory"


async def test_a_rotated_secret_is_sent_over_http2(files: Path) -> None:
    async with http2_server() as (server, plot):
        traveller = Traveller(judge=CountingJudge(files))
        check = traveller.check(plot, "/401", headers=KEY)
        for _ in range(2):
            assert (await traveller.probe(check)).reason is Reason.AUTH_REJECTED
            assert server.headers["authorization"] == "old"
        (files / "key").write_text("new\n", encoding="utf-8")
        await traveller.probe(check, later_s=LATER_S)
        assert server.headers["authorization"] == "new"
        await traveller.aclose()
