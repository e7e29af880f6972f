"""Removes the private directory of a local stack when its owner is gone, however it went.

A process of its own: it reads a pipe whose other end the owner holds, so that the end of the pipe
is the end of the owner. Run as a script; knows the standard library alone.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

TRIES = 50
PAUSE_S = 0.1
"""The owner's children die with it, but may still write a last line."""


class Janitor:
    """Holds the pipe; `close` is the orderly end, death of this process the other one."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own file, no shell
            [sys.executable, "-IS", __file__, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the owner
        )

    def close(self) -> None:
        """Let the directory be removed, and wait until it is."""
        self._process.communicate(timeout=TRIES * PAUSE_S * 2)


def main(directory: Path) -> None:
    """Wait for the end of standard input, then remove `directory`."""
    sys.stdin.buffer.read()
    for _ in range(TRIES):
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(PAUSE_S)
        if not directory.exists():
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
