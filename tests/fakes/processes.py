"""Real processes for tests of what runs them: a provisioner that leaves none behind."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from controller.model import HealthCheck, Revision, RevisionSpec, Route
from controller.provision.port import Order, Session, SessionState
from controller.provision.process.identity import TOKEN_NAME
from controller.provision.process.place import Place
from controller.provision.processes import ProcessProvisioner, end_processes
from tests.fakes.fleet import DEPLOYMENT, REVISION, a_route

PORTS = range(21_000, 30_000)
SLEEP = ("sleep", "1000")
WITHIN_S = 15.0
POLL_S = 0.01

FAMILY = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deep", flush=True)
    time.sleep(1000)
print("ready", flush=True)
time.sleep(1000)
"""
"""A parent, a child in a session of its own, and its child; the two deaf to SIGTERM."""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    time.sleep(1000)
"""


def python(script: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a script with no start-up to speak of."""
    return (sys.executable, "-ISuc", script, *arguments)


def a_process_order(
    *command: str,
    route: Route | None = None,
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
) -> Order:
    """Return the order for a replica that runs `command`."""
    spec = RevisionSpec(
        command=command or SLEEP,
        environment=dict(environment or {}),
        port=port,
        health_check=HealthCheck(path="/"),
    )
    revision = Revision(id=REVISION, deployment_id=DEPLOYMENT, number=1, spec=spec, definition=None)
    return Order(route=route or a_route(), revision=revision)


@contextmanager
def processes(
    root: Path, *, ports: range = PORTS, grace_s: float = 5.0
) -> Iterator[ProcessProvisioner]:
    """Run processes below `root`; none is left at the end."""
    provisioner = ProcessProvisioner(root, host="127.0.0.1", ports=ports, grace_s=grace_s)
    try:
        yield provisioner
    finally:
        end_processes(root, grace_s=0.3)


def token_of(root: Path, route: Route) -> str:
    """Return the mark that every process of a session has in its environment."""
    promise = Place(root, route.id).promise
    assert promise is not None
    return promise.token


def marked(token: str = "") -> set[int]:
    """Return the living processes that have a mark: this one, or any."""
    found = set()
    mark = f"{TOKEN_NAME}={token}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:  # it ended while we looked, or is another user's
                continue
            if any(one.startswith(mark) for one in environment):
                found.add(int(entry.name))
    return found


async def until(true: Callable[[], bool]) -> None:
    """Wait until `true` holds."""
    with anyio.fail_after(WITHIN_S):
        while not true():  # noqa: ASYNC110 - other processes set no event here
            await anyio.sleep(POLL_S)


async def in_state(provisioner: ProcessProvisioner, route: Route, state: SessionState) -> Session:
    """Wait until a session is in `state`, and return it."""
    with anyio.fail_after(WITHIN_S):
        while True:
            found = await session_of(provisioner, route)
            if found.state is state:
                return found
            await anyio.sleep(POLL_S)


async def stopped(provisioner: ProcessProvisioner, route: Route) -> None:
    """Ask for the end of a session until it has come."""
    with anyio.fail_after(WITHIN_S):
        while True:
            if (await provisioner.stop([route]))[route.id] is None:
                return
            await anyio.sleep(POLL_S)


async def started(provisioner: ProcessProvisioner, order: Order) -> Route:
    answer = (await provisioner.start([order]))[order.route.id]
    assert isinstance(answer, str), answer
    return order.route


async def session_of(provisioner: ProcessProvisioner, route: Route) -> Session:
    return (await provisioner.inspect([route]))[route.id]


async def ended(provisioner: ProcessProvisioner, route: Route) -> str:
    """Wait for the end of a session; return why it ended."""
    return (await in_state(provisioner, route, SessionState.EXITED)).exit_reason


def log_of(root: Path, route: Route) -> str:
    return (root / route.id / "log").read_text()


async def said(root: Path, route: Route, text: str) -> None:
    await until(lambda: text in log_of(root, route))


def files_below(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def command_pid(root: Path, route: Route) -> int:
    """Return the process of the command itself: the keeper's child."""
    keeper = Place(root, route.id).keeper
    assert keeper is not None
    children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
    return int(children[0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the sessions of a test's provisioner are."""
    return tmp_path / "processes"


@pytest.fixture
def provisioner(root: Path) -> Iterator[ProcessProvisioner]:
    """One that ends what it started."""
    with processes(root, grace_s=1.0) as running:
        yield running
