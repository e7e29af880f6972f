"""Starts the fleet process as a child that does not outlive this one."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Final

import anyio
from anyio.abc import Process

from controller.errors import ProvisionError

_START_TIMEOUT_S: Final = 20.0
"""Starting takes 0.2 s; a machine with every core busy may take ten times that."""
_STOP_TIMEOUT_S: Final = 5.0
_SOCKET_MAX_BYTES: Final = 107
"""What the kernel's sockaddr_un has room for."""


@asynccontextmanager
async def running_fleet(socket: Path) -> AsyncIterator[Process]:
    """Run a fleet that listens on `socket` until the block ends, or this process does.

    Must be entered on the main thread: the kernel ties the child to the thread that forked it.

    Raises:
        ProvisionError: if the path is too long for a socket, or the fleet does not start.
    """
    if len(os.fsencode(socket)) > _SOCKET_MAX_BYTES:
        raise ProvisionError(
            f"{socket} is longer than the {_SOCKET_MAX_BYTES} bytes a socket's path may have: "
            "choose a shorter directory"
        )
    command = [sys.executable, "-m", "controller.provision.fleet"]
    command += ["--socket", str(socket), "--parent", str(os.getpid())]
    # Its own session: a Ctrl-C at the terminal is for the parent, which then stops the fleet.
    async with await anyio.open_process(
        command, stdin=DEVNULL, stdout=PIPE, stderr=None, start_new_session=True
    ) as process:
        try:
            await _until_listening(process)
            yield process
        finally:
            with anyio.CancelScope(shield=True):
                await _stop(process)


async def _until_listening(process: Process) -> None:
    assert process.stdout is not None  # noqa: S101 - asked for above
    try:
        with anyio.fail_after(_START_TIMEOUT_S):
            await process.stdout.receive()
    except (TimeoutError, anyio.EndOfStream) as error:
        raise ProvisionError("the simulated fleet did not start; see its error output") from error


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    with anyio.move_on_after(_STOP_TIMEOUT_S):
        await process.wait()
        return
    process.kill()
    await process.wait()
