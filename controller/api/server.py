"""The server below the API: uvicorn as a task of ours, on sockets that are bound already.

Knows nothing of what is served. Ends within a second when it is cancelled; never touches signals,
which are the daemon's.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio
import uvicorn
from anyio.abc import SocketAttribute
from uvicorn.protocols.http.h11_impl import H11Protocol

from controller.api.gate import Gate
from probe.errors import SettingsError
from probe.ops import Listener

HEAD_TIMEOUT_S: Final = 5.0
HEAD_MAX_BYTES: Final = 16_384
TAKEN_WITHIN_S: Final = 60.0
"""Of an answer: 10,000 routes are 7 MB, which a line of 1 Mbit/s takes so long."""
CONNECTIONS_MAX: Final = 64
END_WITHIN_S: Final = 1


class _Bounded(H11Protocol):
    """A connection that has to ask within a few seconds; it is closed after its answer.

    Who does not take what is sent is let go: it would hold its place for as long as it likes.
    """

    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def on_response_complete(self) -> None:
        """Begin to wait until all of it is taken; the transport closes only then."""
        super().on_response_complete()
        self.loop.call_later(TAKEN_WITHIN_S, self.transport.abort)

    def pause_writing(self) -> None:
        """Begin to wait until there is room for more."""
        super().pause_writing()
        self._stalled = self.loop.call_later(TAKEN_WITHIN_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the other side takes what is sent."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def _give_up(self) -> None:
        asked: object = self.cycle
        if asked is None:
            self.transport.close()


class _Server(uvicorn.Server):
    """One that leaves signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """Return what TLS is spoken with.

    Raises:
        SettingsError: if certificate or key cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"controller.api_certificate_file = {str(certificate)!r} cannot be used with its key "
            f"({error}): both in PEM, the key without a passphrase"
        ) from error
    return context


async def serve(
    gate: Gate,
    listener: Listener,
    *,
    tls: ssl.SSLContext | None,
    on_end: Callable[[], None] = lambda: None,
) -> None:
    """Serve until cancelled; `on_end` is told first, so that streams can end."""
    config = uvicorn.Config(
        gate,
        http=_Bounded,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        h11_max_incomplete_event_size=HEAD_MAX_BYTES,
        timeout_graceful_shutdown=END_WITHIN_S,
        ssl_context_factory=None if tls is None else lambda *_: tls,
    )
    server = _Server(config)
    sockets = [each.extra(SocketAttribute.raw_socket) for each in listener.listeners]  # noqa: S610 - not Django

    async def until_told() -> None:
        with anyio.CancelScope(shield=True):
            await server.serve(sockets)

    async with anyio.create_task_group() as group:
        group.start_soon(until_told)
        try:
            await anyio.sleep_forever()
        finally:
            on_end()
            server.should_exit = True
