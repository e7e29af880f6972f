"""Keeps one replica's process: starts it, writes down what it says, ends all that it started.

One for each session, in a session of its own, so that a controller may end and come back. It is
the subreaper of everything below it and signals only children that it has not reaped yet, whose
ids nobody else can have. It ends when asked to, when its command has ended, and when its
directory is gone. Run as a script by `sessions`; knows the standard library alone.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LOCK_TRIES, LOCK_PAUSE_S = 50, 0.02
"""Somebody who only looks whether the lock is held holds it for microseconds."""
LOOK_S = 1.0
"""How often the directory is looked for."""
KILL_PAUSE_S = 0.05
CHUNK_BYTES = 65_536
TAIL_CHARS = 200
TAIL_LINES = 3


class Log:
    """What the command says, in at most two files of half the bytes allowed."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._half_bytes = max_bytes // 2
        self._file = path.open("ab")

    def write(self, data: bytes) -> None:
        """Append; a disk that is full, or a directory that is gone, costs the log alone."""
        try:
            if self._file.tell() + len(data) > self._half_bytes:
                self._file.close()
                self._path.replace(self._path.with_suffix(".1"))
                self._file = self._path.open("ab")
            self._file.write(data)
            self._file.flush()
        except (OSError, ValueError):  # ValueError: closed, and could not be opened anew
            return

    def make_room(self) -> None:
        """Give up what was said: on a full disk there is something more important to write."""
        self._path.with_suffix(".1").unlink(missing_ok=True)
        os.truncate(self._path, 0)

    def tail(self) -> str:
        """Return the last lines on one line, without what a terminal would obey."""
        try:
            with self._path.open("rb") as file:
                file.seek(-min(4096, file.seek(0, os.SEEK_END)), os.SEEK_END)
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        lines = [line.strip() for line in text.splitlines() if line.strip()][-TAIL_LINES:]
        joined = " | ".join(lines)[-TAIL_CHARS:]
        return "".join(letter if letter.isprintable() else " " for letter in joined)


class Keeper:
    """One command, from its start to the end of all it started."""

    def __init__(self, directory: Path, order: dict[str, Any]) -> None:
        self._directory = directory
        self._order = order
        self._log = Log(directory / "log", order["log_max_bytes"])
        self._selector = selectors.DefaultSelector()
        self._oom_kills = oom_kills()
        self._main = self._output = self._verdict = -1
        self._status: int | None = None
        self._failure = ""
        """Why the command could not be started."""
        self._running = self._asked_to_end = self._told_to_end = False
        self._kill_at: float | None = None
        self._killed = False
        self._alone = False
        self._look_at = time.monotonic() + LOOK_S

    def run(self) -> None:
        """Start the command, and return when nothing of it is left."""
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._listen_to_signals()
        self._write("keeper.json", identity() | {"running": False})
        taken = self._port_taken()
        if taken:
            self._write("exit.json", {"reason": taken, "started": False})
            return
        self._start()
        while not self._alone:
            for key, _ in self._selector.select(self._pause_s()):
                key.data()
            self._reap()
            self._decide(time.monotonic())
        while self._read_output():
            pass
        self._read_verdict()
        self._write("exit.json", {"reason": self._reason(), "started": not self._failure})

    def _listen_to_signals(self) -> None:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

        def drain() -> None:
            os.read(reader, CHUNK_BYTES)

        def asked(*_: object) -> None:
            self._asked_to_end = True

        signal.signal(signal.SIGTERM, asked)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._selector.register(reader, selectors.EVENT_READ, drain)

    def _port_taken(self) -> str:
        """Look at the port once more, the moment before the command is to have it."""
        host, port = self._order["host"], self._order["port"]
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            try:
                probe.bind((host, port))
            except OSError as error:
                return f"cannot start: port {port} of {host}: {os.strerror(error.errno or 0)}"
        return ""

    def _start(self) -> None:
        output, output_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        failure, failure_end = os.pipe()
        os.set_blocking(output_end, True)
        keeper = os.getpid()
        self._main = os.fork()
        if self._main == 0:
            self._become_command(keeper, output_end, failure_end)
        os.close(output_end)
        os.close(failure_end)
        self._output, self._verdict = output, failure
        self._selector.register(output, selectors.EVENT_READ, self._read_output)
        self._selector.register(failure, selectors.EVENT_READ, self._read_verdict)

    def _become_command(self, keeper: int, output: int, failure: int) -> NoReturn:
        command, environment = self._order["command"], self._order["environment"]
        try:
            os.setsid()
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != keeper:
                os._exit(1)
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(self._directory / "work")
            for one in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(one, signal.SIG_DFL)
            os.execvpe(command[0], command, environment)  # noqa: S606 - what a revision names
        except OSError as error:
            os.write(failure, str(error.errno or 0).encode())
        finally:
            os._exit(127)

    def _read_verdict(self) -> None:
        """Read why the command could not be started; the end of the pipe says that it was."""
        if self._verdict not in self._selector.get_map():
            return
        self._selector.unregister(self._verdict)
        if number := os.read(self._verdict, 16):
            self._failure = start_failure(self._order["command"][0], int(number))
        else:
            self._running = True
            self._write("keeper.json", identity() | {"running": True})

    def _read_output(self) -> bool:
        """Read once: who never stops talking must wait its turn. False when there is no more."""
        try:
            data = os.read(self._output, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._log.write(data)
        elif self._output in self._selector.get_map():  # all who could write are gone
            self._selector.unregister(self._output)
        return bool(data)

    def _pause_s(self) -> float:
        if self._kill_at is None:
            return LOOK_S
        return max(KILL_PAUSE_S, min(LOOK_S, self._kill_at - time.monotonic()))

    def _reap(self) -> None:
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._main:
                    self._status = status
        except ChildProcessError:
            self._alone = True

    def _decide(self, now: float) -> None:
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            if not (self._directory / "lock").exists():
                self._asked_to_end = True
        if self._asked_to_end and self._kill_at is None:
            self._kill_at = now + self._order["grace_s"]
        if self._asked_to_end and self._running and not self._told_to_end:
            self._told_to_end = True
            if self._status is None:  # not reaped, so the group is still its
                os.killpg(self._main, signal.SIGTERM)
        if self._status is not None and not self._asked_to_end:
            self._kill_at = now  # who started them is gone without being asked to go
        if self._kill_at is not None and now >= self._kill_at and not self._alone:
            self._killed = self._killed or self._status is None
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    def _reason(self) -> str:
        said = self._log.tail()
        return f"{self._bare_reason()}; its last lines: {said}" if said else self._bare_reason()

    def _bare_reason(self) -> str:
        if self._failure:
            return self._failure
        code = os.waitstatus_to_exitcode(self._status or 0)
        if self._killed:
            return f"killed: it had not ended {self._order['grace_s']:g} s after SIGTERM"
        if code >= 0:
            return f"exited with code {code}"
        if -code != signal.SIGKILL:
            return f"killed by {signal_name(-code)}"
        if oom_kills() > self._oom_kills:
            return "killed by SIGKILL: this machine ran out of memory meanwhile (OOM killer)"
        return "killed by SIGKILL, not by fleetpulse"

    def _write(self, name: str, value: dict[str, Any]) -> None:
        """Write a file whole or not at all; one whose directory is gone is for nobody."""
        path = self._directory / name
        with contextlib.suppress(OSError):
            try:
                path.with_suffix(".new").write_text(json.dumps(value), encoding="utf-8")
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._log.make_room()
                path.with_suffix(".new").write_text(json.dumps(value), encoding="utf-8")
            path.with_suffix(".new").replace(path)


def signal_name(number: int) -> str:
    """Return what people call a signal; real-time ones have a number only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def start_failure(command: str, number: int) -> str:
    """Return why a command could not be started."""
    if number == errno.ENOENT:
        return f"cannot start: command {command!r} not found on PATH, nor what its #! line names"
    if number in (errno.EACCES, errno.ENOEXEC):
        return f"cannot start: {command!r} is not executable"
    return f"cannot start: {command!r}: {os.strerror(number)}"


def identity() -> dict[str, Any]:
    """Return what tells this process from every other, also after its id was given anew."""
    after_name = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return {"pid": os.getpid(), "started_ticks": int(after_name[19]), "boot_id": boot_id}


def children() -> list[int]:
    """Return the children of this process, ended ones that were not reaped included."""
    found, me = [], os.getpid()
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == me:
                found.append(int(entry))
    return found


def oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def lock(directory: Path) -> bool:
    """Take the session for the life of this process; False when it is taken, over, or gone."""
    try:
        held = os.open(directory / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)
            continue
        try:
            same = os.path.samestat(os.fstat(held), (directory / "lock").stat())
        except FileNotFoundError:
            return False
        return same and not (directory / "exit.json").exists()
    return False


def main(directory: Path) -> None:
    """Keep the session in `directory` as standard input orders, unless somebody does already."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # what a careless starter left open
    order = json.load(sys.stdin)
    if lock(directory):
        Keeper(directory, order).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
