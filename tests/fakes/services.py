"""Real services for tests: started on private sockets, gone with the test run.

Each test process has its own servers, so that parallel runs never meet and a test may empty one.
"""

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from controller.embedded import EmbeddedValkey, find_binary

_WITHOUT_MSETEX: Final = ("--rename-command", "MSETEX", "")
_WITHOUT_EVAL: Final = ("--rename-command", "EVAL", "")

SERVERS: Final = ("valkey", "valkey-lua", "valkey-pipeline", "redis7")
"""The servers that the bus must work on: by what each offers for writing in bulk."""


def program(name: str, *, package: str) -> Path:
    """Return a program of Debian's; without it the test is skipped, or fails where CI promised it.

    `package` is what installs it.
    """
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not on PATH: apt-get install {package}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(found)


def redis7_binary() -> Path:
    """Return Debian's Redis 7."""
    return program("redis-server", package="redis-server")


class Services:
    """Servers by name, each started when first asked for."""

    def __init__(self) -> None:
        self._running: dict[str, EmbeddedValkey] = {}
        self._stack = ExitStack()

    def bus(self, name: str) -> EmbeddedValkey:
        """Return the running server `name`, one of `SERVERS`; bring it back if it was killed."""
        if name not in self._running:
            binary = redis7_binary() if name == "redis7" else find_binary()
            options: tuple[str, ...] = ()
            if name in {"valkey-lua", "valkey-pipeline"}:
                options += _WITHOUT_MSETEX
            if name == "valkey-pipeline":
                options += _WITHOUT_EVAL
            directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fp-"))
            server = EmbeddedValkey(Path(directory, "bus"), binary=binary, options=options)
            self._stack.callback(server.stop)
            self._running[name] = server
        self._running[name].start()
        return self._running[name]

    def close(self) -> None:
        """Stop every server and remove its directory."""
        self._stack.close()
