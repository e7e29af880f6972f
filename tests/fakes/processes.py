"""Real processes for tests of what runs them: a provisioner that leaves none behind."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from controller.model import HealthCheck, Revision, RevisionSpec, Route
from controller.provision.port import Order
from controller.provision.process.identity import TOKEN_NAME
from controller.provision.process.place import Place
from controller.provision.processes import ProcessProvisioner, end_processes
from tests.fakes.fleet import DEPLOYMENT, REVISION, a_route

PORTS = range(21_000, 30_000)
SLEEP = ("sleep", "1000")


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
