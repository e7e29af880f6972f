"""A controller that is told to end while its database says nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from controller.embedded import EmbeddedValkey
from tests.fakes.controller import ControllerProcess
from tests.fakes.postgres import postgres_databases, postgres_url  # noqa: F401 - fixtures
from tests.fakes.prober import until


class Silence:
    """The way to a PostgreSQL server, which may say nothing from some moment on."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._host = parse_qs(self._parts.query)["host"][0]
        self.fallen = False
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def url(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        netloc = f"{self._parts.username}@127.0.0.1:{port}"
        yield self._parts._replace(netloc=netloc, query="sslmode=disable").geturl()
        server.close()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.5432")
        for source, sink in ((reader, there[1]), (there[0], writer)):
            self._tasks.append(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            if self.fallen:
                continue
            sink.write(data)
        sink.close()


async def test_silent_database_keeps_nobody_from_ending(
    postgres_url: str,  # noqa: F811 - the fixture
    bus: EmbeddedValkey,
    tmp_path: Path,
) -> None:
    """It was 17 s: a supervisor kills what takes longer than it promised."""
    silence = Silence(postgres_url)
    async with (
        silence.url() as url,
        ControllerProcess.running(
            tmp_path / "log", database_url=url, redis_url=bus.url, max_period_s=0.2
        ) as running,
    ):

        async def leads() -> bool:
            return "event=leading" in (tmp_path / "log").read_text()

        await until(leads)
        silence.fallen = True
        assert await running.end() == 0
    assert "lease_not_released" in (tmp_path / "log").read_text()
