"""A proxy between unix sockets that cuts each connection after so many bytes to the server."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self


class ByteCutter:
    """Forwards `path` to `server`; `allow` says how much of the next connections comes through."""

    def __init__(self, server: Path, path: Path) -> None:
        self._server = server
        self._path = path
        self._budget = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    def allow(self, budget_bytes: int) -> None:
        self._budget = budget_bytes

    async def __aenter__(self) -> Self:
        listener = await asyncio.start_unix_server(self._serve, self._path)
        await self._stack.enter_async_context(listener)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        left = self._budget
        from_server, to_server = await asyncio.open_unix_connection(self._server)
        back = asyncio.create_task(_copy(from_server, writer))
        try:
            while left > 0 and (data := await reader.read(min(left, 4096))):
                to_server.write(data)
                await to_server.drain()
                left -= len(data)
        finally:
            back.cancel()
            to_server.close()
            writer.transport.abort()
            self._tasks.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)
        await writer.drain()
