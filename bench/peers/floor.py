"""The floor: what the kernel takes for a request and a reply, whoever asks."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bench.case import Regime, RoundFailed
from bench.farm import hosts
from bench.machine import cores
from bench.running import Peer, Place, Running, never

_LIFE_S: Final = 3600.0
"""Longer than any round: it is ended, and ends by itself if nobody is left to do so."""


class _Floor(Running):
    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.pid = process.pid
        self._process = process

    def check(self) -> None:
        if self._process.poll() is not None:
            raise RoundFailed(f"the floor ended with exit code {self._process.returncode}")


@contextmanager
def _run(place: Place) -> Iterator[Running]:
    case = place.case
    command = [str(place.programs.floor), str(case.wanted_per_s), str(_LIFE_S)]
    command += ["new"] if case.regime is Regime.NEW else []
    with cores(prober=True):
        floor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with floor:
        assert floor.stdin is not None
        assert floor.stdout is not None
        lines = "".join(f"{host} {place.farm.port}\n" for host in hosts(case.targets))
        floor.stdin.write(lines.encode())
        floor.stdin.close()
        floor.stdout.readline()
        try:
            yield _Floor(floor)
        finally:
            floor.terminate()
            said, _ = floor.stdout.read(), floor.wait(10)
    failed = json.loads(said)["failed"]
    if failed:
        raise RoundFailed(f"{failed} of the floor's probes failed")


PEER: Final = Peer(
    "C and epoll: a request, a reply, nothing decided: what the kernel takes", _run, never
)
