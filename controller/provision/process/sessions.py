"""Sessions as processes of this machine: started by a keeper each, asked about, ended.

Blocking, for the adapter's threads. What it knows it reads from the sessions' directories, so that
a controller that was started anew knows as much as the one before it.
"""

import contextlib
import errno
import json
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from controller.errors import ProvisionError
from controller.model import Revision, Route, RouteId
from controller.provision.port import Order, Session, SessionState
from controller.provision.process import identity
from controller.provision.process.ender import Ender
from controller.provision.process.identity import TOKEN_NAME, boot_id
from controller.provision.process.place import Place, Promise, clear, places
from controller.provision.process.ports import Ports, is_free

LOG_MAX_BYTES: Final = 2 * 1024 * 1024
INHERITED: Final = ("PATH", "HOME", "LANG")
"""What a command gets of our environment; the rest, secrets among it, is not its affair."""
START_WAIT_S: Final = 2.0
"""How long a start waits for the word that the command runs; it takes 0.05 s."""
COMING_S: Final = 10.0
"""A keeper that was started and is not there after so long will not come."""
_POLL_S: Final = 0.01
_KEEPER: Final = str(Path(__file__).with_name("keeper.py"))


class Sessions:
    """All sessions below one directory."""

    def __init__(self, root: Path, *, host: str, ports: Ports, grace_s: float) -> None:
        self._root = root
        self._host = host
        self._ports = ports
        self._grace_s = grace_s
        self._ender = Ender(grace_s=grace_s)
        self._starting = threading.Lock()

    def start(self, orders: Sequence[Order]) -> dict[RouteId, str | ProvisionError]:
        """Start what is not started yet; wait a moment for what cannot be.

        Raises:
            ProvisionError: if the directory cannot be used.
        """
        answers: dict[RouteId, str | ProvisionError] = {}
        with self._starting:
            self._prepare()
            taken = self._taken()
            for order in orders:
                try:
                    answers[order.route.id] = self._start(order, taken)
                except ProvisionError as error:
                    answers[order.route.id] = error
        deadline = time.monotonic() + START_WAIT_S
        for route_id, answer in answers.items():
            if isinstance(answer, str):
                answers[route_id] = self._verdict(route_id, answer, deadline)
        return answers

    def inspect(self, routes: Sequence[Route]) -> dict[RouteId, Session]:
        """Tell what became of the sessions; one that cannot be read is left out.

        Raises:
            ProvisionError: if none of them can be read.
        """
        self._ender.reap()
        found: dict[RouteId, Session] = {}
        unread: OSError | None = None
        for route in routes:
            try:
                found[route.id] = self._inspect(route.id)
            except OSError as error:
                unread = error
        if unread is not None and not found:
            raise _unusable(self._root, unread) from unread
        return found

    def stop(self, routes: Sequence[Route]) -> dict[RouteId, ProvisionError | None]:
        """End the sessions, and wait a while until nothing is left of them."""
        answers: dict[RouteId, ProvisionError | None] = {route.id: None for route in routes}
        left = self._ender.end([Place(self._root, route.id) for route in routes])
        slow = f"its process was asked to end, and is killed after {self._grace_s:g} s"
        for name, error in left.items():
            said = ProvisionError(slow) if error is None else _unusable(self._root, error)
            answers[RouteId(name)] = said
        return answers

    def _prepare(self) -> None:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._root):
                pass
            clear(self._root)
        except OSError as error:
            raise _unusable(self._root, error) from error

    def _taken(self) -> dict[int, bool]:
        """Return the ports of all sessions that can be read, and whether they are in use.

        That of a session that is over rests, lest whoever still asks for it gets another replica.
        """
        taken: dict[int, bool] = {}
        for place in places(self._root):
            with contextlib.suppress(OSError):  # somebody else's folder
                if (promise := place.promise) is not None:
                    used = taken.get(promise.port, False)
                    taken[promise.port] = used or place.exit is None
        return taken

    def _start(self, order: Order, taken: dict[int, bool]) -> str:
        place = Place(self._root, order.route.id)
        promise = place.promise
        if promise is None:
            spec = order.revision.spec
            if not spec.command:
                raise ProvisionError(
                    f"revision {order.revision.number} has no command; write one, such as "
                    '["server", "--port", "{port}"]'
                )
            port = self._port(order.revision, taken)
            promise = Promise(
                token=secrets.token_hex(16), host=self._host, port=port, made_at_s=time.time()
            )
            taken[port] = True
            try:
                place.retire()  # what no promise was left of
                place.make(promise)
            except OSError as error:
                raise _unusable(self._root, error) from error
        if place.keeper is None and place.exit is None and not place.is_kept():
            self._spawn(place, promise, order.revision)
        return _session_id(order.route.id)

    def _port(self, revision: Revision, taken: Mapping[int, bool]) -> int:
        """Return the port the command is going to use: its own when it names no other."""
        fixed = revision.spec.port
        if fixed is None or any("{port}" in word for word in revision.spec.command):
            return self._ports.choose(taken)
        if taken.get(fixed, False) or not is_free(self._host, fixed):
            raise ProvisionError(
                f"port {fixed} of revision {revision.number} is taken on {self._host}: write "
                "{port} into its command, so that every replica gets one of its own"
            )
        return fixed

    def _spawn(self, place: Place, promise: Promise, revision: Revision) -> None:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        mark = {TOKEN_NAME: promise.token}
        known = {"HOST": promise.host, "PORT": str(promise.port)}
        order = {
            "command": [_filled(word, known) for word in revision.spec.command],
            "environment": inherited | revision.spec.environment | known | mark,
            "host": promise.host,
            "port": promise.port,
            "grace_s": self._grace_s,
            "log_max_bytes": LOG_MAX_BYTES,
        }
        # The order goes through a file without a name: an environment may hold secrets.
        with tempfile.TemporaryFile() as file, (place.path / "log").open("ab") as log:
            file.write(json.dumps(order).encode())
            file.seek(0)
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-IS", _KEEPER, str(place.path)],
                inherited | mark,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, file.fileno(), 0),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                ],
                setsid=True,  # what ends this process is not meant for its replicas
                setsigmask=[signal.SIGTERM],  # until it knows what to do about it
            )
        self._ender.adopt(pid)

    def _verdict(self, route_id: RouteId, session_id: str, deadline: float) -> str | ProvisionError:
        """Wait until the command runs, or cannot; what takes longer is looked after later."""
        place = Place(self._root, route_id)
        while time.monotonic() < deadline:
            ended = place.exit
            if ended is not None and not ended.started:
                self._ender.end([place])
                return ProvisionError(ended.reason)
            keeper = place.keeper
            if ended is not None or (keeper is not None and keeper.running):
                return session_id
            time.sleep(_POLL_S)
        return session_id

    def _inspect(self, route_id: RouteId) -> Session:
        place = Place(self._root, route_id)
        promise = place.promise
        if promise is None:
            return Session(
                id="",
                state=SessionState.MISSING,
                exit_reason=f"there is no such session in {self._root}",
            )
        # In this order: a keeper holds its lock before it writes who it is, and until it has
        # written how it ended. The other way round, one that comes meanwhile would look dead.
        keeper, kept, ended = place.keeper, place.is_kept(), place.exit
        state, reason = SessionState.EXITED, ""
        if ended is not None:
            reason = ended.reason
        elif kept:
            running = keeper is not None and keeper.running
            state = SessionState.RUNNING if running else SessionState.PENDING
        elif keeper is None and time.time() - promise.made_at_s < COMING_S:
            state = SessionState.PENDING
        else:
            identity.sweep(promise.token)
            reason = _violent_end(keeper)
        running = state is SessionState.RUNNING
        return Session(
            id=_session_id(route_id),
            state=state,
            host=promise.host if running else None,
            port=promise.port if running else None,
            exit_reason=reason,
        )


def _session_id(route_id: RouteId) -> str:
    return f"process-{route_id}"


def _filled(word: str, known: Mapping[str, str]) -> str:
    """Put host and port into one word of a command; other braces are the command's own.

    >>> _filled("--bind={host}:{port}", {"HOST": "::1", "PORT": "8000"})
    '--bind=::1:8000'
    """
    return word.replace("{port}", known["PORT"]).replace("{host}", known["HOST"])


def _violent_end(keeper: identity.Identity | None) -> str:
    if keeper is not None and keeper.boot_id != boot_id():
        return "this machine was started again since"
    return "its keeper was killed, and the process with it"


def _unusable(root: Path, error: OSError) -> ProvisionError:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "make room on its disk" if is_full else "name one that this user may write to"
    return ProvisionError(
        f"process_directory {str(root)!r} cannot be used: {error.strerror or error}; {remedy}"
    )
