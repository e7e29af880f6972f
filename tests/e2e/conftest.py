"""A whole local stack for a test: real bus, fleet, controller and prober processes.

Tests here run one after another on one worker: two stacks at once on two cores would measure
each other.
"""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.up.stack import Stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("e2e"))


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        running = Stack(Path(directory))
        try:
            await running.start()
            yield running
        finally:
            running.stop()
