"""The whole system on one machine: bus, fleet, controller and prober as real processes.

Used by `fleetpulse up` and the end-to-end tests. Everything lives in one private directory, no
port is fixed, and nothing outlives the process that started it. Knows processes, not replicas.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import structlog

from controller.child import Child
from controller.db import migrate
from controller.embedded import EmbeddedValkey
from controller.errors import ControllerError
from controller.provision.fleet.process import fleet_child
from controller.provision.processes import end_processes

log = structlog.get_logger()

START_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.02
BACKOFF_MAX_S: Final = 10.0
_METRICS_LINE: Final = re.compile(r"metrics on (http://\S+)/metrics")

_PACE_S: Final = 1.0
"""Every handler's period here, so that a person sees things move."""
_PAUSE_S: Final = 0.2
"""And their pause when a mark wakes them: a replica passes five handlers until it is probed."""


class Runs(StrEnum):
    """What runs the replicas of a local stack."""

    SIMULATED = "simulated"
    PROCESS = "process"


class StackError(ControllerError):
    """A part of the local system does not start."""


class Stack:
    """Bus, controller, prober and what runs replicas; what ends by itself is started again."""

    def __init__(self, directory: Path, *, runs: Runs = Runs.SIMULATED) -> None:
        """Prepare to live in `directory`, which must be private and short of name."""
        self.directory = directory
        self.processes = directory / "processes"
        self._runs = runs
        self.bus = EmbeddedValkey(directory)
        self.fleet_socket = directory / "fleet.sock"
        self.redis_url = self.bus.url
        self.database_url = f"sqlite:///{directory / 'fleetpulse.db'}"
        self._settings = directory / "fleetpulse.toml"
        self.children: Mapping[str, Child] = {
            "bus": self.bus.process,
            **self._fleet(),
            "controller": self._python("controller", "controller", *self._config()),
            "prober": self._python("prober", "probe", *self._config()),
        }
        self.held: set[str] = set()
        """Parts that stay down when they end: what a test, or chaos, took away for a while."""
        self._metrics: dict[str, tuple[int, str | None]] = {}
        self._failures: dict[str, int] = {}
        self._retry_at: dict[str, float] = {}

    async def start(self) -> None:
        """Start everything, each part as soon as what it needs is there.

        Raises:
            StackError: if a part ends, or does not come up in time; with what it said last.
            EmbeddedError: if there is no Valkey for this machine.
        """
        self._settings.write_text(self._toml(), encoding="utf-8")
        self.children["bus"].start()
        if "fleet" in self.children:
            self.children["fleet"].start()
        await migrate.upgrade(self.database_url)
        await self._until("bus", self.bus.is_ready)
        if "fleet" in self.children:
            await self._until("fleet", self.fleet_socket.exists)
        self.children["prober"].start()
        self.children["controller"].start()
        for name in ("prober", "controller"):
            await self._until(name, partial(self._has_metrics, name))

    async def _until(self, name: str, ready: Callable[[], bool]) -> None:
        child = self.children[name]
        with anyio.move_on_after(START_TIMEOUT_S):
            while not ready():
                if child.pid is None:
                    break
                await anyio.sleep(POLL_S)
            else:
                return
        raise StackError(f"the {name} does not start: {child.log_tail()}")

    def _has_metrics(self, name: str) -> bool:
        return self.metrics_url(name) is not None

    def metrics_url(self, name: str) -> str | None:
        """Return where the prober's or the controller's metrics are; None until it said so."""
        log_path = self.children[name].log_path
        read_bytes, url = self._metrics.get(name, (-1, None))
        size_bytes = log_path.stat().st_size
        if size_bytes != read_bytes:  # it said something since: perhaps it was started anew
            found = _METRICS_LINE.findall(log_path.read_text(errors="replace"))
            url = f"{found[-1]}/metrics" if found else None
            self._metrics[name] = size_bytes, url
        return url

    def tend(self) -> Iterable[str]:
        """Start again what ended by itself, ever more slowly; return the names of those."""
        now = time.monotonic()
        started = []
        for name, child in self.children.items():
            if child.pid is not None or name in self.held:
                continue
            if name not in self._retry_at:
                failures = self._failures.get(name, 0)
                self._failures[name] = failures + 1
                self._retry_at[name] = now + min(BACKOFF_MAX_S, 0.5 * 2**failures)
                log.warning("part_ended", part=name, code=child.returncode, said=child.log_tail())
            elif now >= self._retry_at[name]:
                del self._retry_at[name]
                child.start()
                started.append(name)
        return started

    def take_away(self, name: str, sign: signal.Signals = signal.SIGKILL) -> None:
        """End one part and keep it down until `bring_back`."""
        self.held.add(name)
        self.children[name].end(sign)

    def bring_back(self, name: str) -> None:
        """Start a part that was taken away."""
        self.held.discard(name)
        self.children[name].start()

    def stop(self) -> None:
        """End everything in good order: first who writes, then what it writes to."""
        for name in ("controller", "prober"):
            self.children[name].send(signal.SIGTERM)
        for name in ("controller", "prober"):
            self.children[name].end(patience_s=10.0)
        if self._runs is Runs.PROCESS:
            end_processes(self.processes, grace_s=_PACE_S)
        for name in ("fleet", "bus"):
            if name in self.children:
                self.children[name].end(patience_s=10.0)

    def _fleet(self) -> dict[str, Child]:
        if self._runs is Runs.PROCESS:
            return {}
        return {"fleet": fleet_child(self.fleet_socket, log_path=self.directory / "fleet.log")}

    def _python(self, name: str, module: str, *arguments: str) -> Child:
        return Child(
            [sys.executable, "-m", module, *arguments],
            log_path=self.directory / f"{name}.log",
            environment={k: v for k, v in os.environ.items() if not k.startswith("FLEETPULSE_")},
        )

    def _config(self) -> tuple[str, ...]:
        return ("--config", str(self._settings))

    def _toml(self) -> str:
        return f"""\
[probe]
redis_url = "{self.redis_url}"
allow = ["127.0.0.0/8"]
metrics = "127.0.0.1:0"

[controller]
database_url = "{self.database_url}"
redis_url = "{self.redis_url}"
metrics = "127.0.0.1:0"
provisioner = "{self._runs}"
fleet_socket = "{self.fleet_socket}"
process_directory = "{self.processes}"
max_period_s = {_PACE_S}
max_mark_pause_s = {_PAUSE_S}
first_sync_s = 0
termination_grace_s = {_PACE_S}
"""
