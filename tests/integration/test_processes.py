"""Replicas as real processes: what they are given, how they end, and what never survives them."""

import fcntl
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest

from controller.errors import ProvisionError
from controller.model import RevisionSpec, Route
from controller.provision.port import Order, Session, SessionState
from controller.provision.process import identity
from controller.provision.process.ender import Ender
from controller.provision.process.keeper import Log
from controller.provision.process.place import LOGS_MAX, Place
from controller.provision.process.ports import is_free
from controller.provision.processes import ProcessProvisioner
from tests.fakes.fleet import a_route
from tests.fakes.processes import a_process_order, marked, processes, python, token_of

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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "processes"


@pytest.fixture
def provisioner(root: Path) -> Iterator[ProcessProvisioner]:
    with processes(root, grace_s=1.0) as running:
        yield running


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


class TestStart:
    async def test_a_replica_serves_at_the_address_it_was_given(
        self, provisioner: ProcessProvisioner
    ) -> None:
        command = ("python3", "-m", "http.server", "{port}", "--bind", "{host}")
        route = await started(provisioner, a_process_order(*command))
        found = await session_of(provisioner, route)
        async with httpx.AsyncClient(trust_env=False) as client:
            with anyio.fail_after(WITHIN_S):
                while True:
                    try:
                        answer = await client.get(f"http://{found.host}:{found.port}/")
                        break
                    except httpx.ConnectError:
                        await anyio.sleep(0.02)
        assert answer.status_code == 200

    async def test_a_command_gets_its_revisions_environment_and_none_of_ours(
        self, provisioner: ProcessProvisioner, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for ours in ("FLEETPULSE_DATABASE_URL", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(ours, "secret")
        monkeypatch.setenv("LANG", "C.UTF-8")
        show = python("import os, json; print(json.dumps(dict(os.environ)), os.getcwd())")
        order = a_process_order(*show, environment={"MODEL": "m", "PORT": "1", "LANG": "de"})
        route = await started(provisioner, order)
        await ended(provisioner, route)
        text, _, directory = log_of(root, route).strip().rpartition(" ")
        environment = json.loads(text)
        environment.pop("LC_CTYPE", None)  # Python's own doing
        promise = Place(root, route.id).promise
        assert promise is not None
        assert environment == {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "LANG": "de",
            "MODEL": "m",
            "HOST": "127.0.0.1",
            "PORT": str(promise.port),
            identity.TOKEN_NAME: promise.token,
        }
        assert directory == str(root / route.id / "work")

    async def test_only_host_and_port_are_filled_in(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        words = ('{"a": {port}}', "{host}:{port}", "{other}", "{}", "$PORT")
        show = python("import sys; print(sys.argv[1:])", *words)
        route = await started(provisioner, a_process_order(*show))
        await ended(provisioner, route)
        promise = Place(root, route.id).promise
        assert promise is not None
        port = promise.port
        assert log_of(root, route).strip() == str(
            [f'{{"a": {port}}}', f"127.0.0.1:{port}", "{other}", "{}", "$PORT"]
        )

    async def test_secrets_of_the_environment_are_not_written_to_disk(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        order = a_process_order(environment={"API_KEY": "canary-5f1e"})
        route = await started(provisioner, order)
        files = files_below(root)
        assert len(files) >= 4
        assert not any(b"canary-5f1e" in path.read_bytes() for path in files)
        assert stat.S_IMODE((root / route.id).stat().st_mode) == 0o700

    async def test_no_descriptor_of_ours_is_inherited(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)):
            show = python("import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))")
            route = await started(provisioner, a_process_order(*show))
            await ended(provisioner, route)
        assert log_of(root, route).strip() == "[0, 1, 2, 3]"  # 3 lists the directory


class TestRefusals:
    @pytest.mark.parametrize(
        ("command", "said"),
        [
            ("no-such-program", "cannot start: command 'no-such-program' not found on PATH"),
            ("/etc/hostname", "cannot start: '/etc/hostname' is not executable"),
            ("/etc", "cannot start: '/etc' is not executable"),
        ],
    )
    async def test_a_command_that_cannot_run_is_refused_with_the_reason(
        self, provisioner: ProcessProvisioner, root: Path, command: str, said: str
    ) -> None:
        order = a_process_order(command)
        answer = (await provisioner.start([order]))[order.route.id]
        assert isinstance(answer, ProvisionError)
        assert str(answer).startswith(said)
        assert not (root / order.route.id).exists(), "what was refused leaves nothing"

    async def test_a_revision_without_a_command_is_refused(
        self, provisioner: ProcessProvisioner
    ) -> None:
        order = a_process_order()
        imageless = replace(order.revision, number=7, spec=RevisionSpec(image="only/an:image"))
        empty = replace(order, revision=imageless)
        answer = (await provisioner.start([empty]))[order.route.id]
        assert "revision 7 has no command" in str(answer)

    async def test_when_no_port_is_free_the_range_is_named(self, root: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with processes(root, ports=range(port, port + 1)) as provisioner:
                order = a_process_order()
                answer = (await provisioner.start([order]))[order.route.id]
        assert f"no port of {port}-{port} is free on 127.0.0.1: widen process_ports" in str(answer)

    async def test_a_port_that_a_revision_names_is_used_once(
        self, provisioner: ProcessProvisioner
    ) -> None:
        port = next(p for p in range(20_000, 20_900) if is_free("127.0.0.1", p))
        first, second = a_process_order(port=port), a_process_order(port=port)
        answers = await provisioner.start([first, second])
        assert (await session_of(provisioner, first.route)).port == port
        assert f"port {port} of revision 1 is taken on 127.0.0.1" in str(answers[second.route.id])

    async def test_a_port_named_beside_a_placeholder_is_only_a_default(
        self, provisioner: ProcessProvisioner
    ) -> None:
        command = python("import time; time.sleep(1000)", "{port}")
        orders = [a_process_order(*command, port=20_950) for _ in range(2)]
        await provisioner.start(orders)
        sessions = await provisioner.inspect([order.route for order in orders])
        assert len({session.port for session in sessions.values()} - {20_950, None}) == 2

    async def test_a_directory_that_cannot_be_used_is_nobodys_end(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        root = tmp_path / "file" / "below"
        broken = ProcessProvisioner(
            root, host="127.0.0.1", ports=range(21_000, 21_002), grace_s=1.0
        )
        with pytest.raises(ProvisionError, match=r"process_directory .*below' cannot be used"):
            await broken.start([a_process_order()])

    async def test_a_host_that_is_not_of_this_machine_is_named(self, tmp_path: Path) -> None:
        abroad = ProcessProvisioner(
            tmp_path, host="192.0.2.1", ports=range(21_000, 21_002), grace_s=1.0
        )
        order = a_process_order()
        answer = (await abroad.start([order]))[order.route.id]
        assert "process_host '192.0.2.1' cannot be bound" in str(answer)


class TestExitReasons:
    async def test_a_code_comes_with_the_last_lines(self, provisioner: ProcessProvisioner) -> None:
        script = "import sys; print('a\\nb\\n\\x1b[31mc'); print('no memory', file=sys.stderr)"
        order = a_process_order(*python(script + "; sys.exit(3)"))
        reason = await ended(provisioner, await started(provisioner, order))
        assert reason == "exited with code 3; its last lines: b |  [31mc | no memory"

    @pytest.mark.parametrize(
        ("sign", "reason"),
        [
            (signal.SIGSEGV, "killed by SIGSEGV"),
            (signal.SIGKILL, "killed by SIGKILL, not by fleetpulse"),
            (signal.SIGRTMIN + 3, f"killed by signal {signal.SIGRTMIN + 3}"),
        ],
    )
    async def test_a_signal_is_named(
        self, provisioner: ProcessProvisioner, root: Path, sign: int, reason: str
    ) -> None:
        route = await started(provisioner, a_process_order())
        os.kill(command_pid(root, route), sign)
        assert await ended(provisioner, route) == reason

    async def test_a_dead_keeper_takes_all_it_kept_with_it(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        route = await started(provisioner, a_process_order(*python(FAMILY)))
        await until(lambda: log_of(root, route).count("deep") == 2)
        token, keeper = token_of(root, route), Place(root, route.id).keeper
        assert keeper is not None
        assert len(marked(token)) == 4
        os.kill(keeper.pid, signal.SIGKILL)
        assert await ended(provisioner, route) == "its keeper was killed, and the process with it"
        await until(lambda: not marked(token))

    async def test_a_log_is_bounded_and_its_end_is_kept(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        script = "print('x' * 99 + '\\n', end='') or [print('x' * 99) for _ in range(60_000)]"
        route = await started(provisioner, a_process_order(*python(f"{script}; print('last')")))
        assert (await ended(provisioner, route)).endswith("| last")
        sizes = [(root / route.id / name).stat().st_size for name in ("log", "log.1")]
        assert max(sizes) <= 1024 * 1024


class TestStop:
    async def test_nothing_that_a_replica_started_survives_it(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        route = await started(provisioner, a_process_order(*python(FAMILY)))
        await until(lambda: log_of(root, route).count("deep") == 2)
        token = token_of(root, route)
        assert len(marked(token)) == 4
        os.kill(command_pid(root, route), signal.SIGKILL)
        await ended(provisioner, route)
        await until(lambda: not marked(token))  # the keeper itself goes last

    async def test_who_does_not_end_when_asked_is_killed_with_all_it_started(
        self, root: Path
    ) -> None:
        with processes(root, grace_s=0.3) as provisioner:
            family = await started(provisioner, a_process_order(*python(FAMILY)))
            deaf = await started(provisioner, a_process_order(*python(DEAF)))
            await until(lambda: log_of(root, family).count("deep") == 2)
            await said(root, deaf, "ready")
            tokens = [token_of(root, route) for route in (family, deaf)]
            answers = await provisioner.stop([family, deaf])
            assert answers == {family.id: None, deaf.id: None}
            assert not any(map(marked, tokens))

    async def test_who_ends_in_good_order_may_take_its_time(self, root: Path) -> None:
        script = """
import signal, sys, time
def end(*_):
    time.sleep(0.3)
    print("done in good order", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(1000)
"""
        with processes(root) as provisioner:
            route = await started(provisioner, a_process_order(*python(script)))
            await said(root, route, "ready")
            assert await provisioner.stop([route]) == {route.id: None}
        assert "done in good order" in (root / "logs" / f"{route.id}.log").read_text()

    async def test_a_slow_end_is_told_and_asked_about_again(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("controller.provision.process.ender.STOP_WAIT_S", 0.05)
        with processes(root, grace_s=0.5) as provisioner:
            route = await started(provisioner, a_process_order(*python(DEAF)))
            await said(root, route, "ready")
            answer = (await provisioner.stop([route]))[route.id]
            assert str(answer) == "its process was asked to end, and is killed after 0.5 s"
            await stopped(provisioner, route)

    async def test_a_keeper_that_stands_still_does_not_keep_its_session(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("controller.provision.process.ender.KEEPER_GRACE_S", 0.2)
        with processes(root, grace_s=0.1) as provisioner:
            route = await started(provisioner, a_process_order())
            token, keeper = token_of(root, route), Place(root, route.id).keeper
            assert keeper is not None
            os.kill(keeper.pid, signal.SIGSTOP)
            await stopped(provisioner, route)
            assert not marked(token)

    async def test_logs_of_the_last_sessions_are_kept_and_no_more(self, tmp_path: Path) -> None:
        logs = tmp_path / "logs"
        logs.mkdir()
        for number in range(LOGS_MAX + 5):
            (logs / f"{number}.log").touch()
            os.utime(logs / f"{number}.log", (number, number))
        with processes(tmp_path) as provisioner:
            route = await started(provisioner, a_process_order())
            await provisioner.stop([route])
        names = {path.name for path in logs.iterdir()}
        assert len(names) == LOGS_MAX
        assert f"{route.id}.log" in names
        assert "5.log" not in names

    async def test_who_removes_the_directory_ends_the_session(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        route = await started(provisioner, a_process_order())
        token = token_of(root, route)
        (root / route.id).rename(root / ".gone")
        await until(lambda: not marked(token))
        assert (await session_of(provisioner, route)).state is SessionState.MISSING


class TestRestart:
    async def test_a_new_controller_finds_the_sessions_and_ends_them(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        order = a_process_order()
        route = await started(provisioner, order)
        before = await session_of(provisioner, route)
        with processes(root) as successor:
            assert await session_of(successor, route) == before
            assert (await successor.start([order]))[route.id] == before.id
            assert await session_of(successor, route) == before
            token = token_of(root, route)
            assert await successor.stop([route]) == {route.id: None}
            assert not marked(token)
        assert (await session_of(provisioner, route)).state is SessionState.MISSING

    async def test_a_session_that_ended_meanwhile_is_not_started_again(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        order = a_process_order(*python("import sys; sys.exit(4)"))
        route = await started(provisioner, order)
        await ended(provisioner, route)
        with processes(root) as successor:
            await successor.start([order])
            assert await ended(successor, route) == "exited with code 4"

    async def test_a_controller_that_died_before_its_keeper_came_asks_again(
        self, provisioner: ProcessProvisioner, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order = a_process_order()
        with monkeypatch.context() as patch:
            patch.setattr("controller.provision.process.sessions.START_WAIT_S", 0.0)
            patch.setattr("os.posix_spawn", lambda *_, **__: os.getpid())  # nobody comes
            await provisioner.start([order])
            assert (await session_of(provisioner, order.route)).state is SessionState.PENDING
        with processes(root) as successor:
            await successor.start([order])
            assert (await session_of(successor, order.route)).state is SessionState.RUNNING
            assert len(marked(token_of(root, order.route))) == 2

    async def test_a_keeper_that_never_comes_is_an_end(
        self, provisioner: ProcessProvisioner, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("controller.provision.process.sessions.START_WAIT_S", 0.0)
        monkeypatch.setattr("controller.provision.process.sessions.COMING_S", 0.0)
        monkeypatch.setattr("os.posix_spawn", lambda *_, **__: os.getpid())
        order = a_process_order()
        await provisioner.start([order])
        assert await ended(provisioner, order.route)

    async def test_two_keepers_of_one_session_are_one(
        self, provisioner: ProcessProvisioner, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two controllers that both believe that nobody came start one process."""
        order = a_process_order()
        with monkeypatch.context() as patch:
            patch.setattr("controller.provision.process.sessions.START_WAIT_S", 0.0)
            await provisioner.start([order])
            with processes(root) as successor:
                await successor.start([order])
                await in_state(successor, order.route, SessionState.RUNNING)
                token = token_of(root, order.route)
                await until(lambda: len(marked(token)) == 2)

    async def test_a_reused_process_id_is_never_signalled(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        """The process that has the id now is another: started later, without the token."""
        route = await started(provisioner, a_process_order())
        bystander = await started(provisioner, a_process_order())
        other = Place(root, bystander.id).keeper
        place, keeper = Place(root, route.id), Place(root, route.id).keeper
        assert other is not None
        assert keeper is not None
        os.kill(keeper.pid, signal.SIGKILL)
        await ended(provisioner, route)
        written = json.loads((place.path / "keeper.json").read_text()) | {"pid": other.pid}
        (place.path / "keeper.json").write_text(json.dumps(written))
        with (place.path / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # as if a keeper lived
            assert (await session_of(provisioner, route)).state is SessionState.RUNNING
            assert not Ender(grace_s=0.0).is_over(place)
        assert (await session_of(provisioner, bystander)).state is SessionState.RUNNING

    @pytest.mark.parametrize(
        "lie", [{"boot_id": "another"}, {"started_ticks": 1}, {"token": "another"}]
    )
    async def test_each_mark_of_identity_is_needed(
        self, provisioner: ProcessProvisioner, root: Path, lie: dict[str, object]
    ) -> None:
        route = await started(provisioner, a_process_order())
        keeper, token = Place(root, route.id).keeper, token_of(root, route)
        assert keeper is not None
        assert identity.is_alive(keeper, token)
        given = {
            "pid": keeper.pid,
            "started_ticks": keeper.started_ticks,
            "boot_id": keeper.boot_id,
        }
        lied = {**given, **{key: value for key, value in lie.items() if key != "token"}}
        believed = identity.Identity(**lied)  # type: ignore[arg-type]
        assert not identity.send(believed, str(lie.get("token", token)), signal.SIGKILL)
        assert (await session_of(provisioner, route)).state is SessionState.RUNNING

    async def test_a_machine_that_was_started_again_is_told(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        route = await started(provisioner, a_process_order())
        place = Place(root, route.id)
        assert place.keeper is not None
        os.kill(place.keeper.pid, signal.SIGKILL)
        await until(lambda: not place.is_kept())
        written = json.loads((place.path / "keeper.json").read_text()) | {"boot_id": "before"}
        (place.path / "keeper.json").write_text(json.dumps(written))
        assert await ended(provisioner, route) == "this machine was started again since"

    async def test_no_zombie_is_left(self, provisioner: ProcessProvisioner, root: Path) -> None:
        routes = [await started(provisioner, a_process_order()) for _ in range(3)]
        keepers = [Place(root, route.id).keeper for route in routes]
        await provisioner.stop(routes)
        with anyio.fail_after(WITHIN_S):
            while any(keeper and identity.started_ticks(keeper.pid) for keeper in keepers):
                await provisioner.inspect(routes)


def test_a_log_whose_directory_is_gone_costs_the_log_alone(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    log = Log(tmp_path / "here" / "log", 100)
    log.write(b"x" * 40)
    (tmp_path / "here").rename(tmp_path / "gone")
    for _ in range(3):
        log.write(b"y" * 40)
    assert log.tail() == ""


async def test_asking_about_a_route_of_nobody_reads_nothing(tmp_path: Path) -> None:
    provisioner = ProcessProvisioner(
        tmp_path / "none", host="127.0.0.1", ports=range(1, 2), grace_s=1.0
    )
    started_at = time.monotonic()
    route = a_route()
    assert (await session_of(provisioner, route)).state is SessionState.MISSING
    assert await provisioner.stop([route]) == {route.id: None}
    assert time.monotonic() - started_at < WITHIN_S
    assert not (tmp_path / "none").exists()
