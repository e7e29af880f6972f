"""What chaos tests share: a bus of the test's own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.embedded import EmbeddedValkey


@pytest.fixture
def bus() -> Iterator[EmbeddedValkey]:
    """A server that may be killed."""
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        server = EmbeddedValkey(Path(directory, "bus"))
        server.start()
        yield server
        server.stop()
