"""The fleet as a child process: how it is called, and a block that runs one."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio

from controller.child import Child
from controller.errors import ProvisionError

_START_TIMEOUT_S: Final = 20.0
"""Starting takes 0.2 s; a machine with every core busy may take ten times that."""
_POLL_S: Final = 0.01
_SOCKET_MAX_BYTES: Final = 107
"""What the kernel's sockaddr_un has room for."""


def fleet_child(socket: Path, *, log_path: Path) -> Child:
    """Return a fleet that will listen on `socket`, not started yet.

    Raises:
        ProvisionError: if the path is too long for a socket.
    """
    if len(os.fsencode(socket)) > _SOCKET_MAX_BYTES:
        raise ProvisionError(
            f"{socket} is longer than the {_SOCKET_MAX_BYTES} bytes a socket's path may have: "
            "choose a shorter directory"
        )
    command = [sys.executable, "-m", "controller.provision.fleet", "--socket", str(socket)]
    return Child(command, log_path=log_path)


@asynccontextmanager
async def running_fleet(socket: Path) -> AsyncIterator[Child]:
    """Run a fleet that listens on `socket` until the block ends, or this process does.

    Raises:
        ProvisionError: if the path is too long for a socket, or the fleet does not start.
    """
    log_path = socket.with_name(f"{socket.name}.log")
    child = fleet_child(socket, log_path=log_path)
    try:
        child.start()
    except OSError as error:
        raise ProvisionError(f"the simulated fleet did not start: {error}") from error
    try:
        if not await _listens(child, socket):
            raise ProvisionError(f"the simulated fleet did not start: {child.log_tail()}")
        yield child
    finally:
        child.end()
        await anyio.Path(log_path).unlink(missing_ok=True)


async def _listens(child: Child, socket: Path) -> bool:
    """Wait for the socket to appear; another process makes it, so there is only asking."""
    with anyio.move_on_after(_START_TIMEOUT_S):
        while child.pid is not None:
            if await anyio.Path(socket).exists():
                return True
            await anyio.sleep(_POLL_S)
    return False
