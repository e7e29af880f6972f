"""The directory of one session: what was promised, who keeps it, how it ended, what it said.

    session.json   token and address, written before anything is started
    lock           held by the keeper for as long as it lives
    keeper.json    which process that is
    exit.json      why the session ended
    log, log.1     what the command said
    work/          where it runs

Everything is written by renaming, so that each file is there whole or not at all; one that a power
cut left empty counts as absent, and a directory without a readable promise is no session.
"""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from controller.provision.process.identity import Identity

LOGS: Final = "logs"
LOGS_MAX: Final = 50
"""Logs of sessions that are over, kept for whoever asks why."""

_File = TypeVar("_File", bound=msgspec.Struct)


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided before the start."""

    token: str
    host: str
    port: int
    made_at_s: float
    """By the wall clock; only tells whether a keeper may still be about to come."""


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a session ended."""

    reason: str
    started: bool
    """False when the command was never run."""


class Place:
    """One session's directory, which may not be there."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self.path = root / name

    @property
    def promise(self) -> Promise | None:
        """What was promised; None where there is no session."""
        return self._read("session.json", Promise)

    @property
    def keeper(self) -> Identity | None:
        """Who keeps it; None when nobody came yet."""
        return self._read("keeper.json", Identity)

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it has not, or nobody could write it down."""
        return self._read("exit.json", Exit)

    def make(self, promise: Promise) -> None:
        """Make the directory with all a keeper needs.

        Raises:
            OSError: if it cannot be made.
        """
        new = self._root / f".new-{uuid.uuid4()}"
        new.mkdir(mode=0o700)
        try:
            (new / "work").mkdir()
            (new / "lock").touch()
            (new / "session.json").write_bytes(msgspec.json.encode(promise))
            new.rename(self.path)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def is_kept(self) -> bool:
        """Tell whether a keeper lives: it holds the lock, which the kernel takes from the dead."""
        with self._locked() as mine:
            return mine is False

    def retire(self) -> bool:
        """Remove the directory but for its log; False when a keeper lives after all."""
        with self._locked() as mine:
            if mine is False:
                return False
            with contextlib.suppress(OSError):  # on a full disk, room comes of going on without it
                self._keep_log()
            gone = self._root / f".gone-{uuid.uuid4()}"
            try:
                self.path.rename(gone)
            except (FileNotFoundError, NotADirectoryError):
                return True
            shutil.rmtree(gone, ignore_errors=True)
        return True

    def _keep_log(self) -> None:
        if not (self.path / "log").exists():
            return
        logs = self._root / LOGS
        logs.mkdir(exist_ok=True)
        (self.path / "log").replace(logs / f"{self.path.name}.log")
        known = sorted(logs.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in known[:-LOGS_MAX]:
            path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[bool | None]:
        """Yield True while the lock is held here, False when another has it, None without one."""
        try:
            lock = os.open(self.path / "lock", os.O_RDWR)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(lock)

    def _read(self, name: str, kind: type[_File]) -> _File | None:
        try:
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except msgspec.DecodeError:  # a power cut leaves files empty that were just written
            return None


def clear(root: Path) -> None:
    """Remove what somebody who was killed had begun to remove."""
    for path in root.glob(".gone-*"):
        shutil.rmtree(path, ignore_errors=True)


def places(root: Path) -> Iterator[Place]:
    """Yield the places of all sessions below `root`."""
    if not root.is_dir():
        return
    for path in root.iterdir():
        if path.name != LOGS and not path.name.startswith("."):
            yield Place(root, path.name)
