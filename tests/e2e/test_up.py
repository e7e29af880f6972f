"""`fleetpulse up` as a person starts it, and ends it."""

import json
import os
import signal
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


def test_a_run_for_a_time_ends_by_itself_with_its_summary_as_the_last_line() -> None:
    with started("--replicas", "40", "--for", "25", "--json") as (process, directory):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        summary = json.loads(out.splitlines()[-1])
        assert_nothing_left(directory)
    assert summary["targets"] == summary["healthy"] == 40
    assert summary["probes"] >= 40 * 15
    # The rolling update that follows takes 10 s here, and longer on a busy machine.
    assert summary["rollouts"] >= 3, "three first deployments"
    assert summary["invariant_violations"] == summary["evictions"] == 0
    assert summary["status_age_max_seconds"] <= 5


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_however_it_ends(sign: signal.Signals) -> None:
    with started("--replicas", "5") as (process, directory):
        wait_until_serving(process)
        assert len(family(directory)) >= 5, "bus, fleet, controller, prober and janitor"
        process.send_signal(sign)
        process.wait(STOP_S)
        assert_nothing_left(directory)
        assert process.returncode == (0 if sign is not signal.SIGKILL else -signal.SIGKILL)


def test_a_number_that_cannot_be_is_refused_in_one_sentence() -> None:
    with started("--replicas", "0") as (process, _):
        _, err = process.communicate(timeout=20)
        assert process.returncode == 2
        assert "0 is not in the range" in err
        assert "Traceback" not in err
