"""The API on a real port: streams, TLS, tokens that change, and who only waits."""

import hashlib
import json
import ssl
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest
import trustme
from anyio import to_thread
from litestar.types import Receive, Scope, Send

from controller.api.access import OPERATOR, Tokens
from controller.api.events import FOLLOWERS_MAX
from controller.api.gate import Access, Gate
from controller.api.server import serve
from controller.cli.remote import client_of
from controller.errors import ApiUnreachable, InvalidInput
from controller.service import Service
from controller.settings import load
from probe import ops
from probe.errors import SettingsError
from tests.fakes.api import TOKENS, tokens_file
from tests.fakes.api_server import serving
from tests.fakes.verbs import apply_demo

WITHIN_S = 20.0
LARGE = bytes(16 * 1024 * 1024)
"""More than the kernel takes for a peer that reads nothing."""


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    with serving(database_url) as served:
        yield served


async def events(url: str, count: int, *, after: int | None = None) -> list[tuple[int, str]]:
    """Return the first events of a stream: their ids and categories."""
    headers = {} if after is None else {"last-event-id": str(after)}
    found: list[tuple[int, str]] = []
    with anyio.fail_after(WITHIN_S):
        async with (
            httpx.AsyncClient(timeout=WITHIN_S) as client,
            client.stream("GET", f"{url}/v1/events", headers=headers) as stream,
        ):
            assert stream.headers["content-type"].startswith("text/event-stream")
            number = 0
            async for line in stream.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "id":
                    number = int(value)
                if field == "data":
                    found.append((number, json.loads(value)["category"]))
                if len(found) == count:
                    return found
    return found


class TestEvents:
    async def test_history_arrives_as_it_is_written_and_goes_on_where_it_broke_off(
        self, url: str, service: Service
    ) -> None:
        await apply_demo(service)
        first = await events(url, 3, after=0)
        assert [category for _, category in first] == ["apply", "add_revision", "activate"]
        await service.scale("demo", 7)
        assert [c for _, c in await events(url, 1, after=first[-1][0])] == ["scale"]
        assert await events(url, 2, after=first[0][0]) == first[1:]

    async def test_an_ending_server_ends_its_streams(self, database_url: str) -> None:
        with serving(database_url) as url:
            stream = httpx.stream("GET", f"{url}/v1/events", timeout=WITHIN_S)
            response = stream.__enter__()
            assert response.status_code == 200
        with anyio.fail_after(WITHIN_S):
            await to_thread.run_sync(lambda: list(response.iter_raw()))
        stream.__exit__(None, None, None)

    async def test_no_more_follow_than_may_however_many_come_at_once(self, url: str) -> None:
        """As after a restart of the controller: the others find room on the port."""
        left = anyio.Event()
        counts = {"came": 0, "left": 0}
        wanted = FOLLOWERS_MAX + 4

        async def follow(client: httpx.AsyncClient) -> None:
            async with client.stream("GET", f"{url}/v1/events") as stream:
                counts["came"] += 1
                async for _ in stream.aiter_raw():
                    pass
            counts["left"] += 1
            if counts["left"] == wanted - FOLLOWERS_MAX:
                left.set()

        async with (
            httpx.AsyncClient(timeout=WITHIN_S) as client,
            anyio.create_task_group() as group,
        ):
            for _ in range(wanted):
                group.start_soon(follow, client)
            with anyio.fail_after(WITHIN_S):
                await left.wait()
            assert counts["came"] == wanted
            assert counts["left"] == wanted - FOLLOWERS_MAX
            group.cancel_scope.cancel()


class TestWaiting:
    async def test_who_asks_nothing_is_let_go(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("controller.api.server.HEAD_TIMEOUT_S", 0.2)
        host, _, port = url.removeprefix("http://").partition(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(b"GET /v1/routes HTTP/1.1\r\nHost: localhost\r\n")
            with anyio.fail_after(WITHIN_S), pytest.raises(anyio.EndOfStream):
                await stream.receive()

    async def test_a_body_that_does_not_come_is_not_waited_for(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("controller.api.gate.BODY_TIMEOUT_S", 0.2)
        host, _, port = url.removeprefix("http://").partition(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            head = (
                "PUT /v1/deployments/demo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
            )
            await stream.send(head.encode())
            with anyio.fail_after(WITHIN_S):
                reply = await stream.receive()
        assert reply.startswith(b"HTTP/1.1 408")

    async def test_a_head_without_end_is_refused(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000)
            with anyio.fail_after(WITHIN_S):
                assert (await stream.receive()).startswith(b"HTTP/1.1 400")

    @pytest.mark.parametrize("pieces", [1, 4])
    async def test_who_does_not_take_its_answer_keeps_no_place(
        self, monkeypatch: pytest.MonkeyPatch, pieces: int
    ) -> None:
        """Sixty-four of them would have the port answer nobody, a supervisor neither."""
        monkeypatch.setattr("controller.api.server.TAKEN_WITHIN_S", 0.2)
        monkeypatch.setattr("controller.api.server.CONNECTIONS_MAX", 2)

        async def app(scope: Scope, _: Receive, send: Send) -> None:
            parts = [LARGE] * pieces if scope["path"] == "/large" else [b""]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for number, part in enumerate(parts, start=1):
                more = number < len(parts)
                await send({"type": "http.response.body", "body": part, "more_body": more})

        listener = await ops.bind("127.0.0.1", 0)
        host, _, port = ops.address_of(listener).partition(":")
        gate = Gate(app, Access(tokens=None, loopback=True, anonymous=OPERATOR))
        async with anyio.create_task_group() as group, AsyncExitStack() as stack:
            group.start_soon(partial(serve, gate, listener, tls=None))
            for _ in range(2):
                stuck = await stack.enter_async_context(await anyio.connect_tcp(host, int(port)))
                await stuck.send(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await stuck.receive(1)
            async with httpx.AsyncClient(timeout=WITHIN_S) as client:
                with anyio.fail_after(WITHIN_S):
                    while (  # noqa: ASYNC110 - another connection's place has no event
                        await client.get(f"http://{host}:{port}/")
                    ).status_code != 200:
                        await anyio.sleep(0.05)
            group.cancel_scope.cancel()


class TestBeyondLoopback:
    @pytest.mark.parametrize("metrics", ["0.0.0.0:0", "[::]:0", "10.0.0.7:9156", "controller:9156"])
    @pytest.mark.parametrize("missing", ["api_tokens_file", "api_certificate_file", "both"])
    def test_without_certificate_and_tokens_it_does_not_start(
        self, metrics: str, missing: str
    ) -> None:
        names = {"api_tokens_file", "api_certificate_file"} - {missing}
        given = {name: "/some/file" for name in names if missing != "both"}
        flags = {"database_url": "sqlite:///x.db", "metrics": metrics, **given}
        with pytest.raises(SettingsError, match="can be reached from other machines: set"):
            load(None, {}, flags=flags)
        load(None, {}, flags=flags | {"api": False})
        both = {"api_tokens_file": "/a", "api_certificate_file": "/b"}
        load(None, {}, flags=flags | both)

    async def test_with_both_it_speaks_tls_to_who_has_a_token(
        self, database_url: str, tmp_path: Path
    ) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
        (tmp_path / "token").write_text(TOKENS["vic"] + "\n")
        settings = {
            "metrics": "0.0.0.0:0",
            "api_certificate_file": str(tmp_path / "server.pem"),
            "api_tokens_file": str(tokens_file(tmp_path)),
        }
        with serving(database_url, **settings) as bound:
            url = bound.replace("0.0.0.0", "127.0.0.1")
            known = {"token_file": tmp_path / "token", "ca_file": tmp_path / "ca.pem"}
            async with client_of(url, **known) as client:
                assert await client.list_routes() == ()
            async with client_of(url, token_file=tmp_path / "token") as stranger:
                with pytest.raises(ApiUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
                    await stranger.list_routes()
            context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
            async with httpx.AsyncClient(verify=context, base_url=url) as nobody:
                assert (await nobody.get("/livez")).status_code == 200
                assert (await nobody.get("/metrics")).status_code == 401

    def test_a_token_is_not_sent_in_clear_to_another_machine(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text(TOKENS["vic"])
        with pytest.raises(InvalidInput, match="not sent in clear"):
            client_of("http://10.0.0.7:9156", token_file=tmp_path / "token")

    @pytest.mark.parametrize(
        "api_url",
        [
            "",
            "controller",
            "ftp://x",
            "http://",
            "http://a:b@c",
            "http://x/v1",
            "http://x:0",
            "http://[::1",
            "http://[v1.x]:9156",
            "http://xn--a:9156",
            "http://a\x01b:9156",
            "http://\u2100.example",
        ],
    )
    def test_an_address_that_cannot_be_asked_is_refused(self, api_url: str) -> None:
        with pytest.raises(InvalidInput, match="cannot be used; write for example https://"):
            client_of(api_url)

    def test_a_token_that_no_request_can_carry_is_refused_unseen(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_bytes(TOKENS["vic"].encode() + b"\x00")
        with pytest.raises(InvalidInput, match="one token and nothing else") as told:
            client_of("http://localhost:9156", token_file=tmp_path / "token")
        assert TOKENS["vic"] not in str(told.value)


class TestTokens:
    def test_a_changed_file_is_read_anew_and_a_broken_one_is_not(self, tmp_path: Path) -> None:
        now = [0.0]
        path = tokens_file(tmp_path)
        tokens = Tokens(path, clock=lambda: now[0])
        digest = hashlib.sha256(b"another-token-of-ada").hexdigest()
        path.write_text(f"ada operator sha256:{digest}\n")
        now[0] += 2
        assert tokens.principal_of(TOKENS["ada"]) is None
        found = tokens.principal_of("another-token-of-ada")
        assert found is not None
        assert found.name == "ada"
        path.write_text("nonsense\n")
        now[0] += 2
        assert tokens.principal_of("another-token-of-ada") == found
        path.unlink()
        now[0] += 2
        assert tokens.principal_of("another-token-of-ada") == found

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "holds no token"),
            ("# nobody\n", "holds no token"),
            ("ada operator short", "line 1: the token is shorter than 16"),
            ("ada admin a-token-0123456789", "line 1: write NAME ROLE TOKEN"),
            ("ada operator a-token 0123456789", "line 1: write NAME ROLE TOKEN"),
            ("ada operator sha256:abc", "64 hex digits"),
            ("a viewer t-0123456789-0123\nb operator t-0123456789-0123", "one token twice"),
        ],
    )
    def test_a_file_that_cannot_be_used_is_told_without_the_token(
        self, tmp_path: Path, text: str, says: str
    ) -> None:
        path = tmp_path / "tokens"
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(SettingsError, match=says) as told:
            Tokens(path, clock=lambda: 0.0)
        assert "0123456789" not in str(told.value)

    @pytest.mark.parametrize("mode", [0o604, 0o620, 0o666])
    def test_a_file_that_others_can_read_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = tokens_file(tmp_path)
        path.chmod(mode)
        with pytest.raises(SettingsError, match="chmod 600"):
            Tokens(path, clock=lambda: 0.0)
