"""The operator's port, spoken to in bytes."""

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
import structlog.testing
from anyio.abc import SocketStream
from prometheus_client import CollectorRegistry, Counter

from probe.errors import SettingsError
from probe.ops import CONNECTIONS_MAX, HEAD_MAX_BYTES, Pages, address_of, bind, serve


def pages(*, live: str | None = None, ready: str | None = None) -> Pages:
    registry = CollectorRegistry()
    Counter("fleetpulse_things", "Things.", registry=registry).inc(3)
    return Pages(registry, live=lambda: live, ready=lambda: ready)


@asynccontextmanager
async def served(shown: Pages) -> AsyncIterator[int]:
    async with anyio.create_task_group() as group:
        listener = await bind("127.0.0.1", 0)
        group.start_soon(serve, listener, shown)
        yield int(address_of(listener).removeprefix("127.0.0.1:"))
        group.cancel_scope.cancel()


async def ask(port: int, request: bytes) -> str:
    received = b""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        with anyio.fail_after(5):
            await stream.send(request)
            async for chunk in stream:
                received += chunk
    return received.decode()


async def test_port_zero_picks_one_and_shows_the_metrics_as_text() -> None:
    async with served(pages()) as port:
        reply = await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.startswith("HTTP/1.1 200 OK\r\n")
    assert "Content-Type: text/plain; version=0.0.4" in reply
    assert "fleetpulse_things_total 3.0" in reply


async def test_accept_chooses_openmetrics() -> None:
    accept = b"ACCEPT: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n"
    async with served(pages()) as port:
        reply = await ask(port, b"GET /metrics HTTP/1.1\r\n" + accept + b"\r\n")
    assert "Content-Type: application/openmetrics-text" in reply
    assert reply.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("request_head", "said"),
    [
        (b"GET /livez HTTP/1.1", "200 OK"),
        (b"GET /readyz?verbose HTTP/1.0", "503 Service Unavailable"),
        (b"POST /metrics HTTP/1.1", "405 Method Not Allowed"),
        (b"GET / HTTP/1.1", "404 Not Found"),
        (b"GET /metrics HTTP/2.0", "400 Bad Request"),
        (b"\xff\xfe", "400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=x.y", "200 OK"),
    ],
)
async def test_each_request_has_its_reply(request_head: bytes, said: str) -> None:
    async with served(pages(ready="no targets were read yet")) as port:
        reply = await ask(port, request_head + b"\r\n\r\n")
    assert said in reply.partition("\r\n")[0]


async def test_not_ready_says_why() -> None:
    async with served(pages(ready="no targets were read yet")) as port:
        reply = await ask(port, b"GET /readyz HTTP/1.1\r\n\r\n")
    assert reply.endswith("no targets were read yet\n")


async def test_head_is_answered_without_its_body() -> None:
    async with served(pages()) as port:
        reply = await ask(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    head, _, body = reply.partition("\r\n\r\n")
    assert "Content-Length: " in head
    assert body == ""


async def test_a_head_without_end_is_refused_at_the_bound() -> None:
    async with served(pages()) as port:
        reply = await ask(port, b"GET /metrics HTTP/1.1\r\nX: " + b"a" * HEAD_MAX_BYTES)
    assert reply.startswith("HTTP/1.1 431 ")


async def test_one_connection_too_many_is_closed_and_the_port_stays_usable() -> None:
    async with served(pages()) as port:
        held = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(CONNECTIONS_MAX)]
        async with await anyio.connect_tcp("127.0.0.1", port) as refused:
            with anyio.fail_after(5), pytest.raises(anyio.EndOfStream):
                await refused.receive()
        for stream in held:
            await stream.aclose()
        with anyio.fail_after(5):
            replies = [await ask_or_nothing(port)]
            while not replies[-1].startswith("HTTP/1.1 200"):
                replies.append(await ask_or_nothing(port))


async def ask_or_nothing(port: int) -> str:
    """Ask, while the server may still be counting connections that are just closing."""
    try:
        return await ask(port, b"GET /livez HTTP/1.1\r\n\r\n")
    except (anyio.BrokenResourceError, OSError):
        return ""


async def test_a_taken_port_is_refused_in_one_sentence() -> None:
    async with served(pages()) as port:
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port} cannot be bound .*in use"):
            await bind("127.0.0.1", port)


async def test_a_page_that_cannot_be_made_is_an_error_of_its_own() -> None:
    def broken() -> str | None:
        raise ZeroDivisionError

    shown = Pages(CollectorRegistry(), live=broken, ready=lambda: None)
    async with served(shown) as port:
        with structlog.testing.capture_logs() as logs:
            reply = await ask(port, b"GET /livez HTTP/1.1\r\n\r\n")
        assert "200 OK" in await ask(port, b"GET /readyz HTTP/1.1\r\n\r\n")
    assert reply.startswith("HTTP/1.1 500 ")
    assert [entry["event"] for entry in logs] == ["page_failed"]


async def test_running_out_of_descriptors_does_not_end_the_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("probe.ops.ACCEPT_PAUSE_S", 0.001)
    listener = await bind("127.0.0.1", 0)
    port = int(address_of(listener).removeprefix("127.0.0.1:"))
    accept = listener.serve
    refusals = iter([OSError(errno.EMFILE, "too many"), OSError(errno.ENFILE, "too many")])

    async def refusing(handler: Callable[[SocketStream], Awaitable[None]]) -> None:
        for refusal in refusals:
            raise ExceptionGroup("", [refusal])
        await accept(handler)

    monkeypatch.setattr(listener, "serve", refusing)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, listener, pages())
        assert "200 OK" in await ask(port, b"GET /livez HTTP/1.1\r\n\r\n")
        group.cancel_scope.cancel()
