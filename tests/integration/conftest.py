"""What integration tests share: a migrated database and a bus of the test's own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.embedded import EmbeddedValkey
from tests.fakes.database import (  # noqa: F401 - fixtures of the tests beside
    database,
    database_template,
    database_url,
    service,
)
from tests.fakes.processes import provisioner, root  # noqa: F401 - the same


@pytest.fixture
def bus() -> Iterator[EmbeddedValkey]:
    """A server that may be killed."""
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        server = EmbeddedValkey(Path(directory, "bus"))
        server.start()
        yield server
        server.stop()
