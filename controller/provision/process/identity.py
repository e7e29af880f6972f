"""Which process is ours, and how to signal it and no other.

A process id says little: it is given anew. A keeper is known by its id, when it was started, the
boot of the machine, and a random token in its environment; all are checked again after the
process was pinned (pidfd), so that what is signalled is what was checked.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

TOKEN_NAME: Final = "FLEETPULSE_SESSION"  # noqa: S105 - the name of a mark, not a secret
"""Everything that a session starts has it in its environment."""
_SWEEP_ROUNDS: Final = 50
_SWEEP_PAUSE_S: Final = 0.01


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A process, as its keeper wrote it down."""

    pid: int
    started_ticks: int
    """Since the boot, from /proc/PID/stat."""
    boot_id: str
    running: bool = False
    """Whether the command was started."""


def boot_id() -> str:
    """Return what is different after every boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def started_ticks(pid: int) -> int | None:
    """Return when a process was started; None where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])  # the name before may hold anything


def holds(pid: int, token: str) -> bool:
    """Tell whether a living process has the token; one that only waits to be reaped has none."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{TOKEN_NAME}={token}".encode() in environment.split(b"\0")


def is_alive(identity: Identity, token: str) -> bool:
    """Tell whether the process that was written down still lives."""
    return (
        identity.boot_id == boot_id()
        and identity.started_ticks == started_ticks(identity.pid)
        and holds(identity.pid, token)
    )


def send(identity: Identity, token: str, sign: signal.Signals) -> bool:
    """Signal the process that was written down; False when it is not there any more."""
    with _pinned(identity.pid) as pin:
        if not is_alive(identity, token):
            return False
        return _send(identity.pid, pin, sign)


def sweep(token: str) -> None:
    """Kill every process that has the token: what a keeper left that could not clean up."""
    for _ in range(_SWEEP_ROUNDS):
        found = [pid for pid in _pids() if holds(pid, token)]
        for pid in found:
            with _pinned(pid) as pin:
                if holds(pid, token):
                    _send(pid, pin, signal.SIGKILL)
        if not found:
            return
        time.sleep(_SWEEP_PAUSE_S)


def _pids() -> Iterator[int]:
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed
        if entry.isdigit():
            yield int(entry)


@contextmanager
def _pinned(pid: int) -> Iterator[int | None]:
    """Hold on to a process; None where there is none, or the kernel (before 5.3) cannot."""
    try:
        pin = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield pin
    finally:
        os.close(pin)


def _send(pid: int, pin: int | None, sign: signal.Signals) -> bool:
    try:
        if pin is None:
            os.kill(pid, sign)
        else:
            signal.pidfd_send_signal(pin, sign)
    except ProcessLookupError:
        return False
    return True
