"""Replicas as real processes: what they are given, how they end, and what never survives them."""

import json
import os
import signal
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest

from controller.errors import ProvisionError
from controller.model import RevisionSpec
from controller.provision.port import SessionState
from controller.provision.process import identity
from controller.provision.process.keeper import Log
from controller.provision.process.place import Place
from controller.provision.process.ports import is_free
from controller.provision.processes import ProcessProvisioner
from tests.fakes.fleet import a_route
from tests.fakes.processes import (
    FAMILY,
    WITHIN_S,
    a_process_order,
    command_pid,
    ended,
    files_below,
    log_of,
    marked,
    processes,
    python,
    session_of,
    started,
    token_of,
    until,
)


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
