"""`fleetpulse up` as a process of its own, and what it must not leave behind."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FLEETPULSE = Path(sys.executable).with_name("fleetpulse")
STOP_S = 20.0


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run `fleetpulse up` with a temporary directory of its own; yield it and that directory."""
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        process = subprocess.Popen(
            [FLEETPULSE, "up", *arguments],
            env=os.environ | {"TMPDIR": directory},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, Path(directory)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def family(directory: Path) -> set[int]:
    """Return the processes that name `directory` in their command line: all of that stack."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:  # it ended while we looked
                continue
            if os.fsencode(directory) in command:
                found.add(int(entry.name))
    return found


def wait_until_serving(process: subprocess.Popen[str]) -> None:
    """Read stderr until the line that tells where everything is."""
    assert process.stderr is not None
    for line in process.stderr:
        if "fleetpulse status" in line:
            return
    pytest.fail(f"`fleetpulse up` ended with {process.wait()} before it served")


def assert_nothing_left(directory: Path) -> None:
    deadline = time.monotonic() + STOP_S
    while (alive := family(directory)) or (files := list(directory.iterdir())):
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: processes {alive}, files {files if not alive else '?'}")
        time.sleep(0.05)
