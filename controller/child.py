"""A process of ours that never outlives us: started private, ended by id.

The kernel kills it when this process dies, however it dies, so that Ctrl-C, SIGTERM and SIGKILL
of `fleetpulse up` all leave nothing behind.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_DIE_WITH_PARENT: Final = """\
import ctypes, os, sys
PR_SET_PDEATHSIG, SIGKILL = 1, 9
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the program that started this process has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the program after asking for the death signal. A `preexec_fn` would save the 15 ms of
this interpreter, but runs Python between fork and exec: unsafe, and a warning, beside threads."""
_LOG_TAIL_CHARS: Final = 300


class Child:
    """One process, which may be started again after it ended.

    `start` must be called on the main thread: the kernel sends the death signal when the
    *thread* that started the child ends, and a worker thread ends long before its process.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log_path = log_path
        self._arguments = tuple(arguments)
        self._environment = dict(environment) if environment is not None else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs, or before its first start."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start the process, its output appended to the log; does nothing while it runs.

        Raises:
            RuntimeError: if called on another thread than the main one.
            OSError: if the program cannot be started.
        """
        if self.pid is not None:
            return
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a child must be started on the main thread")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the program is ours, no shell
                [sys.executable, "-IS", "-c", _DIE_WITH_PARENT, str(os.getpid()), *self._arguments],
                cwd=self.log_path.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the parent, which ends us in order
            )

    def send(self, sign: signal.Signals) -> None:
        """Send a signal to the process, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(sign)

    def end(self, sign: signal.Signals = signal.SIGTERM, *, patience_s: float = 5.0) -> None:
        """End the process and wait for it; by force when it takes longer than `patience_s`."""
        self.send(sign)
        if self._process is None:
            return
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log_tail(self) -> str:
        """Return the end of what the process said, for an error message."""
        try:
            text = self.log_path.read_text(errors="replace").strip()
        except OSError as error:
            return str(error)
        return text[-_LOG_TAIL_CHARS:] or "it left no message"
