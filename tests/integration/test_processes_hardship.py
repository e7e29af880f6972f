"""Replicas as real processes where something is in the way: chatter, bad files, a busy machine."""

import errno
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import IO

import pytest

from controller.errors import ProvisionError
from controller.provision.port import SessionState
from controller.provision.process.keeper import Keeper
from controller.provision.process.place import Place, Promise
from controller.provision.process.ports import is_free
from controller.provision.processes import ProcessProvisioner
from tests.fakes.fleet import a_route
from tests.fakes.processes import (
    a_process_order,
    ended,
    marked,
    python,
    said,
    session_of,
    started,
    stopped,
    token_of,
    until,
)

LEAVES_A_CONNECTION = """
import os, socket
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
print("listening", flush=True)
one, _ = listener.accept()
one.recv(1)
print("heard", flush=True)
os.kill(os.getpid(), 9)
"""
"""Dies with a connection open, as a server that is probed does."""


class TestBadFiles:
    """What one session left on the disk is no other session's affair."""

    @pytest.mark.parametrize("content", [b"", b'{"token":', b"\xff", b"[]"])
    async def test_a_file_that_a_power_cut_left_empty_stops_nothing(
        self, provisioner: ProcessProvisioner, root: Path, content: bytes
    ) -> None:
        cut, other = a_route(), a_process_order()
        (root / cut.id).mkdir(parents=True)
        (root / cut.id / "session.json").write_bytes(content)
        (root / cut.id / "lock").touch()
        route = await started(provisioner, other)
        found = await provisioner.inspect([cut, route])
        assert found[cut.id].state is SessionState.MISSING
        assert found[route.id].state is SessionState.RUNNING
        assert await provisioner.stop([cut, route]) == {cut.id: None, route.id: None}
        assert not (root / cut.id).exists()

    @pytest.mark.parametrize("name", ["keeper.json", "exit.json"])
    async def test_an_empty_word_of_a_keeper_is_none(
        self, provisioner: ProcessProvisioner, root: Path, name: str
    ) -> None:
        route = await started(provisioner, a_process_order(*python("")))
        await ended(provisioner, route)
        (root / route.id / name).write_bytes(b"")
        assert await ended(provisioner, route)
        await stopped(provisioner, route)

    async def test_a_folder_of_somebody_else_stops_nothing(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        """A file system has lost+found, and only root may look into it."""
        root.mkdir()  # noqa: ASYNC240 - takes no time
        (root / "lost+found").symlink_to("lost+found")
        route = await started(provisioner, a_process_order())
        assert (await session_of(provisioner, route)).state is SessionState.RUNNING

    async def test_a_session_that_cannot_be_read_is_left_out_and_stops_no_other(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        route, bad = await started(provisioner, a_process_order()), a_route()
        (root / bad.id).symlink_to(bad.id)  # a loop, which nobody can read
        assert set(await provisioner.inspect([bad, route])) == {route.id}
        answers = await provisioner.stop([bad, route])
        assert answers[route.id] is None
        assert "cannot be used" in str(answers[bad.id])
        with pytest.raises(ProvisionError, match=r"process_directory .* cannot be used"):
            await provisioner.inspect([bad])

    async def test_a_log_that_cannot_be_kept_keeps_no_session(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        route = await started(provisioner, a_process_order())
        (root / "logs").touch()  # no directory can be made there
        assert await provisioner.stop([route]) == {route.id: None}

    async def test_a_keeper_that_could_not_write_its_name_is_ended_all_the_same(
        self, provisioner: ProcessProvisioner, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on a disk that filled up just then."""
        monkeypatch.setattr("controller.provision.process.sessions.START_WAIT_S", 0.0)
        monkeypatch.setattr("controller.provision.process.ender.KEEPER_GRACE_S", 0.0)
        order = a_process_order()
        with monkeypatch.context() as patch:
            patch.setattr("os.posix_spawn", lambda *_, **__: os.getpid())
            await provisioner.start([order])
        (root / order.route.id / "keeper.new").mkdir()
        token = token_of(root, order.route)
        await provisioner.start([order])
        await until(lambda: len(marked(token)) == 2)
        await stopped(provisioner, order.route)
        assert not marked(token)


class TestPort:
    async def test_a_port_of_its_own_is_had_again_at_once_after_a_crash(
        self, provisioner: ProcessProvisioner, root: Path
    ) -> None:
        """Neither its session nor what the kernel keeps of its connections is in the way."""
        port = next(p for p in range(20_000, 20_900) if is_free("127.0.0.1", p))
        command = python(LEAVES_A_CONNECTION)
        route = await started(provisioner, a_process_order(*command, port=port))
        await said(root, route, "listening")
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.send(b"x")
            await ended(provisioner, route)
            assert client.recv(1) == b""
        successor = await started(provisioner, a_process_order(*command, port=port))
        await said(root, successor, "listening")


async def test_a_keeper_that_comes_while_it_is_looked_for_is_not_taken_for_dead(
    provisioner: ProcessProvisioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.provision.process.sessions.START_WAIT_S", 0.0)
    order = a_process_order()
    with monkeypatch.context() as patch:
        patch.setattr("os.posix_spawn", lambda *_, **__: os.getpid())
        await provisioner.start([order])
    look = Place.is_kept
    came: list[IO[str]] = []

    def comes_after(place: Place) -> bool:
        kept = look(place)
        if not came:
            came.append((place.path / "lock").open())
            fcntl.flock(came[0], fcntl.LOCK_EX)
            keeper = {"pid": os.getpid(), "started_ticks": 1, "boot_id": "this"}
            (place.path / "keeper.json").write_text(json.dumps(keeper))
        return kept

    monkeypatch.setattr(Place, "is_kept", comes_after)
    assert (await session_of(provisioner, order.route)).state is SessionState.PENDING
    came[0].close()


async def test_who_never_stops_talking_is_listened_to_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its keeper hears neither the request to end, nor that its directory is gone."""
    keeper = Keeper(tmp_path, {"log_max_bytes": 100_000})
    said = 0

    def endless(_descriptor: int, count: int) -> bytes:
        nonlocal said
        said += 1
        assert said < 100
        return b"x" * count

    with monkeypatch.context() as patch:
        patch.setattr("os.read", endless)
        keeper._read_output()  # of a pipe that is filled faster than it is read
    keeper._log._file.close()
    keeper._selector.close()


async def test_what_a_killed_controller_left_to_remove_is_removed_by_the_next_one(
    provisioner: ProcessProvisioner, root: Path
) -> None:
    left = root / ".gone-1" / "work"
    left.mkdir(parents=True)
    (left / "weights").write_bytes(b"x")
    await started(provisioner, a_process_order())
    assert not left.parent.exists()


async def test_on_a_disk_that_its_log_filled_a_keeper_still_says_why_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log.1").write_bytes(b"x")
    write = Path.write_text

    def full(path: Path, text: str, encoding: str) -> int:
        if (tmp_path / "log.1").exists() or (tmp_path / "log").stat().st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, text, encoding=encoding)

    monkeypatch.setattr(Path, "write_text", full)
    keeper = Keeper(tmp_path, {"log_max_bytes": 100_000})
    keeper._log.write(b"last line\n")
    keeper._write("exit.json", {"reason": "exited with code 7", "started": True})
    keeper._log._file.close()
    keeper._selector.close()
    ended = Place(tmp_path.parent, tmp_path.name).exit
    assert ended is not None
    assert ended.reason == "exited with code 7"


async def test_a_full_disk_is_told_with_what_helps(
    provisioner: ProcessProvisioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_place: Place, _promise: Promise) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Place, "make", full)
    order = a_process_order()
    answer = str((await provisioner.start([order]))[order.route.id])
    assert answer.endswith("cannot be used: No space left on device; make room on its disk")
