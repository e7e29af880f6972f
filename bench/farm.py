"""The farm as Python sees it, and what a process tree costs beside it."""

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from uuid import UUID

import msgspec

from probe.wire import ReplicaId, ReplicaProbeTarget

_NETWORK = 0x7F800000
"""127.128.0.0/9: the farm listens everywhere, so that each target has an address of its own."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Counts(msgspec.Struct, frozen=True):
    """What the farm has seen since it started."""

    probes: int
    connections: int


class Farm:
    """A running farm; ends with its block, and with this process."""

    def __init__(self, program: Path) -> None:
        with cores(prober=False):
            self._process = subprocess.Popen(
                [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        self.port = int(self._pipe(self._process.stdout).readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pipe(self._process.stdin).close()  # which the farm takes as its end
        self._process.wait(10)
        self._pipe(self._process.stdout).close()

    @property
    def pid(self) -> int:
        """The farm's process id."""
        return self._process.pid

    def counts(self) -> Counts:
        """Ask for the counts; takes the farm's loop a few microseconds."""
        stdin = self._pipe(self._process.stdin)
        stdin.write(b"\n")
        stdin.flush()
        line = self._pipe(self._process.stdout).readline()
        return msgspec.json.decode(line, type=Counts)

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe


@contextmanager
def cores(*, prober: bool) -> Iterator[None]:
    """Let what is started in this block run on the prober's core, or on all the others.

    On shared cores the farm wakes where the prober sends, and interrupts it: 24 times in a tick
    of 10 ms where it lets the floor, which sends faster, go on. With one core there is no choice.
    """
    mine = os.sched_getaffinity(0)
    own = {min(mine)}
    os.sched_setaffinity(0, own if prober else mine - own or own)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def hosts(count: int) -> list[str]:
    """Return that many addresses, all of them the farm's."""
    return [socket.inet_ntoa(struct.pack("!I", _NETWORK + n)) for n in range(1, count + 1)]


def fleet(count: int, port: int) -> list[ReplicaProbeTarget]:
    """Return that many targets on the farm at `port`, each to be probed once a second."""
    return [
        ReplicaProbeTarget(
            replica_id=ReplicaId(str(UUID(int=n + 1, version=4))),
            replica_host=host,
            inference_port=port,
            health_path="/health",
            interval_s=1.0,
            timeout_s=5.0,
            deployment=f"bench-{n % 50}",
        )
        for n, host in enumerate(hosts(count))
    ]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and all its descendants have used, and hold now."""

    cpu_s: float
    rss_bytes: int


def usage(pid: int) -> Usage:
    """Add up user and system time and resident memory of a process tree, from /proc.

    Time comes in ticks of 10 ms: over 10 s that is one part in a thousand at full load, and one
    in a hundred at a tenth of it. What ended meanwhile is not counted.
    """
    cpu_ticks = pages = 0
    for one in _tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended between the listing and now
        # Numbered from 3 (state): utime, stime, cutime, cstime are 14 to 17, rss is 24.
        cpu_ticks += sum(int(fields[number - 3]) for number in (14, 15))
        pages += int(fields[24 - 3])
    return Usage(cpu_ticks / _TICKS_PER_S, pages * _PAGE_BYTES)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            yield from _tree(int(child))
