"""The farm as Python sees it, and the fleet that stands on it."""

import socket
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self
from uuid import UUID

import msgspec

from bench.machine import cores
from probe.wire import ReplicaId, ReplicaProbeTarget

_NETWORK: Final = 0x7F800000
"""127.128.0.0/9: the farm listens everywhere, so that each target has an address of its own."""
TARGETS_MAX: Final = (1 << 17) - 1
"""What the farm keeps a record of."""
ONE_IN: Final = 10
"""Of the targets that hang, and of those that refuse, in a mix of faults."""


class Counts(msgspec.Struct, frozen=True):
    """What the farm has seen since it started; arrivals by time since it was last marked."""

    probes: int
    connections: int
    open: int
    fullest_100ms: int
    late_ms: tuple[int, int, int]
    """How far from its interval a target's next probe came, of half, of 99 % and of 99.9 %."""


class Seen(msgspec.Struct, frozen=True):
    """What one target has seen; times as `time.monotonic` has them, 0 for never."""

    count: int
    first: float
    last: float
    turned: float
    """The first probe since it was told how to answer."""


class Farm:
    """A running farm; ends with its block, and with this process."""

    def __init__(self, program: Path, *, closes: bool = False) -> None:
        """Start a farm; with `closes` it asks for a new connection for each probe."""
        with cores(prober=False):
            self._process = subprocess.Popen(
                [str(program), *(["close"] if closes else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        ports = self._pipe(self._process.stdout).readline().split()
        self.port, self.refusing_port = map(int, ports)

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
        return msgspec.json.decode(self._asked("count"), type=Counts)

    def mark(self, interval_s: float) -> Counts:
        """Ask for the counts, and begin anew with what is counted by time."""
        return msgspec.json.decode(self._asked(f"mark {interval_s}"), type=Counts)

    def seen(self, number: int) -> Seen:
        """Ask what target `number` has seen."""
        return msgspec.json.decode(self._asked(f"target {number}"), type=Seen)

    def answer(self, kind: str, *, first: int, last: int, step: int = 1) -> None:
        """Let every `step`-th target from `first` to `last` pass, fail, hang or flap."""
        self._asked(f"set {first} {last} {step} {kind}")

    def _asked(self, command: str) -> bytes:
        stdin = self._pipe(self._process.stdin)
        stdin.write(f"{command}\n".encode())
        stdin.flush()
        return self._pipe(self._process.stdout).readline()

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe


def host(number: int) -> str:
    """Return the address of a target."""
    return socket.inet_ntoa(struct.pack("!I", _NETWORK + number))


def hosts(count: int) -> list[str]:
    """Return the addresses of targets 1 to `count`, all of them the farm's."""
    return [host(number) for number in range(1, count + 1)]


def target(number: int, port: int, *, interval_s: float = 1.0) -> ReplicaProbeTarget:
    """Return one target of the farm; one failure is enough for its verdict."""
    return ReplicaProbeTarget(
        replica_id=ReplicaId(str(UUID(int=number, version=4))),
        replica_host=host(number),
        inference_port=port,
        health_path="/health",
        interval_s=interval_s,
        timeout_s=5.0,
        max_retries=1,
        deployment=f"bench-{number % 50}",
    )


def fleet(
    count: int, port: int, *, interval_s: float = 1.0, refusing_port: int | None = None
) -> list[ReplicaProbeTarget]:
    """Return targets 1 to `count`; with `refusing_port` one in ten stands where nobody listens."""
    return [
        target(
            number,
            refusing_port if refusing_port and number % ONE_IN == 1 else port,
            interval_s=interval_s,
        )
        for number in range(1, count + 1)
    ]
