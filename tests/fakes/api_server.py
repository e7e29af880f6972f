"""The API as the daemon opens it, on a real port of loopback, in a thread of its own."""

from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any

from anyio.from_thread import start_blocking_portal

from controller.api.front import Front
from controller.bus import ControlBus, connect
from controller.settings import Settings
from tests.fakes.api import STANDING, pages


@contextmanager
def serving(database_url: str, **settings: Any) -> Iterator[str]:  # noqa: ANN401 - any setting
    """Serve until the end of the block; yield where."""
    chosen = Settings(database_url=database_url, **{"metrics": "127.0.0.1:0"} | settings)

    bus = ControlBus(connect("redis://127.0.0.1:1/0"))  # away, which is no reason not to answer

    async def opened() -> Front:
        return await Front.open(chosen, pages(), standing=lambda: STANDING, bus=bus)

    with start_blocking_portal("asyncio", {"use_uvloop": True}) as portal:
        front = portal.call(opened)
        ending = portal.start_task_soon(front.serve)
        try:
            yield front.url
        finally:
            ending.cancel()
            with suppress(CancelledError):
                ending.result(timeout=10)
            portal.call(bus.aclose)
