"""A whole local stack for a test: real bus, fleet, controller and prober processes."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.up.stack import Stack


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        running = Stack(Path(directory))
        try:
            await running.start()
            yield running
        finally:
            running.stop()
