"""How the fleet process starts, what it refuses, and that nothing of it outlives its parent."""

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import anyio
import httpx
import pytest

from controller.errors import ProvisionError
from controller.provision.fleet.client import FleetClient
from controller.provision.fleet.messages import Wanted
from controller.provision.fleet.process import running_fleet
from controller.provision.fleet.replica import Behaviour

ROOT = Path(__file__).parents[2]
PARENT = """
import anyio, json, sys
from pathlib import Path
from controller.provision.fleet.client import FleetClient
from controller.provision.fleet.messages import Wanted
from controller.provision.fleet.process import running_fleet
from controller.provision.fleet.replica import Behaviour

async def main():
    async with running_fleet(Path(sys.argv[1])) as process:
        client = FleetClient(Path(sys.argv[1]))
        await client.start([Wanted(id="r", path="/", behaviour=Behaviour(load_s=0))])
        at = (await client.inspect(["r"]))["r"]
        print(json.dumps([process.pid, at.host, at.port]), flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.fixture
def path() -> Iterator[Path]:
    """Name a socket in a private directory; pytest's own are too deep for one."""
    with tempfile.TemporaryDirectory(prefix="fp") as directory:
        yield Path(directory) / "fleet"


def command(path: Path) -> list[str]:
    return [sys.executable, "-m", "controller.provision.fleet", "--socket", str(path)]


def gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_fleet_dies_with_its_parent(path: Path, how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    ) as parent:
        assert parent.stdout is not None
        pid, host, port = json.loads(parent.stdout.readline())
        with socket.create_connection((host, port), timeout=5):
            pass
        parent.send_signal(how)
        parent.wait(10)
    until_gone(pid)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), timeout=5)


async def test_the_fleet_ends_with_its_block(path: Path) -> None:
    async with running_fleet(path) as process:
        assert await anyio.Path(path).exists()
    assert process.returncode == 0
    assert not await anyio.Path(path).exists()


async def test_replicas_beyond_the_open_files_are_refused_with_the_remedy(path: Path) -> None:
    limited = ["bash", "-c", 'ulimit -n 64; exec "$0" "$@"', *command(path)]
    with subprocess.Popen(limited, stdout=subprocess.PIPE, cwd=ROOT) as process:  # noqa: ASYNC220 - a fork
        try:
            assert process.stdout is not None
            process.stdout.readline()
            client = FleetClient(path)
            refusals = await client.start(
                Wanted(id=str(uuid4()), path="/", behaviour=Behaviour()) for _ in range(100)
            )
            await client.close()
        finally:
            process.terminate()
    refused = [why for why in refusals.values() if why]
    assert 0 < len(refused) < 100
    assert "raise the limit of open files" in refused[0]


@pytest.mark.parametrize(
    ("where", "body", "status"),
    [("/nowhere", b"{}", 404), ("/start", b"{", 400), ("/start", b'[{"id":1}]', 400)],
)
async def test_a_request_that_makes_no_sense_is_refused(
    path: Path, where: str, body: bytes, status: int
) -> None:
    async with (
        running_fleet(path),
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client,
    ):
        response = await client.post(f"http://fleet{where}", content=body)
    assert response.status_code == status
    assert response.text


async def test_a_path_too_long_for_a_socket_is_refused_with_the_remedy(path: Path) -> None:
    with pytest.raises(ProvisionError, match="shorter directory"):
        async with running_fleet(path / ("x" * 120)):
            pass


async def test_a_fleet_that_cannot_listen_says_so(path: Path) -> None:
    with pytest.raises(ProvisionError, match="did not start"):
        async with running_fleet(path / "missing" / "fleet"):
            pass
