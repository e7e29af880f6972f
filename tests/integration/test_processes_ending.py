"""Replicas as real processes: their end, whoever wants it, and a controller that comes back."""

import fcntl
import json
import os
import signal
from pathlib import Path

import anyio
import pytest

from controller.provision.port import SessionState
from controller.provision.process import identity
from controller.provision.process.ender import Ender
from controller.provision.process.place import LOGS_MAX, Place
from controller.provision.processes import ProcessProvisioner
from tests.fakes.processes import (
    DEAF,
    FAMILY,
    WITHIN_S,
    a_process_order,
    command_pid,
    ended,
    in_state,
    log_of,
    marked,
    processes,
    python,
    said,
    session_of,
    started,
    stopped,
    token_of,
    until,
)


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
