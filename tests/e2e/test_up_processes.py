"""`fleetpulse up` with replicas that are processes of this machine."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec

from controller.db.repository import Repository
from controller.db.session import Database, open_database
from controller.model import Route, Snapshot
from controller.provision.process.place import Promise
from tests.fakes.processes import marked
from tests.fakes.up import STOP_S, assert_nothing_left, started, wait_until_serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "web.toml"
ARGUMENTS = ("--provisioner", "process", "-f", str(EXAMPLE))
WITHIN_S = 40.0
"""It takes 3 s; other tests may have the machine."""


def sessions(directory: Path) -> dict[str, str]:
    """Return the mark of every session, by its route."""
    found = directory.glob("fleetpulse-*/processes/*/session.json")
    return {
        path.parent.name: msgspec.json.decode(path.read_bytes(), type=Promise).token
        for path in found
    }


def server_of(token: str) -> int:
    """Return the HTTP server among the processes of a session."""
    for pid in marked(token):
        if b"http.server" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError(f"no server among {marked(token)}")


def three_serve(snapshot: Snapshot) -> bool:
    active = [route for route in snapshot.routes if route.active]
    return len(active) == 3 and all(route.ready for route in active)


def replaced(gone: str) -> Callable[[Snapshot], bool]:
    def true(snapshot: Snapshot) -> bool:
        return three_serve(snapshot) and gone not in {r.id for r in snapshot.routes if r.active}

    return true


def database_in(directory: Path) -> Database:
    (path,) = directory.glob("fleetpulse-*/fleetpulse.db")
    return open_database(f"sqlite:///{path}")


async def until(directory: Path, true: Callable[[Snapshot], bool]) -> tuple[Route, ...]:
    """Look at the stack's database until `true` holds; return the active routes."""
    database = database_in(directory)
    try:
        with anyio.fail_after(WITHIN_S):
            while True:
                snapshot = await Repository(database).observe()
                if true(snapshot):
                    return tuple(route for route in snapshot.routes if route.active)
                await anyio.sleep(0.1)
    finally:
        await database.close()


def end(process: subprocess.Popen[str], directory: Path, sign: signal.Signals) -> int:
    """End `up` by a signal; nothing may be left; return its code."""
    marks = list(sessions(directory).values())
    assert len(marks) >= 3
    process.send_signal(sign)
    code = process.wait(STOP_S)
    assert_nothing_left(directory)
    deadline = time.monotonic() + STOP_S
    while left := [pid for mark in marks for pid in marked(mark)]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)
    return code


async def test_three_real_servers_survive_the_death_of_one_and_end_with_it() -> None:
    with started(*ARGUMENTS) as (process, directory):
        wait_until_serving(process)
        before = await until(directory, three_serve)
        assert len({route.port for route in before}) == 3
        victim = before[0].id
        os.kill(server_of(sessions(directory)[victim]), signal.SIGKILL)
        after = await until(directory, replaced(victim))
        assert {route.id for route in before[1:]} <= {route.id for route in after}
        assert end(process, directory, signal.SIGINT) == 0


async def test_no_server_is_left_when_it_is_killed() -> None:
    with started(*ARGUMENTS) as (process, directory):
        wait_until_serving(process)
        await until(directory, three_serve)
        assert end(process, directory, signal.SIGKILL) == -signal.SIGKILL
