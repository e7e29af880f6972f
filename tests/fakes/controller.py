"""A real controller process for tests, ended with its test; and a look at its own port."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self

import anyio
import httpx
from anyio.abc import Process
from prometheus_client.parser import text_string_to_metric_families

START_WITHIN_S: Final = 60.0
END_WITHIN_S: Final = 10.0


def environment(**settings: object) -> dict[str, str]:
    """Return the environment of a controller with `settings`, and nobody else's."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("FLEETPULSE_")}
    return own | {f"FLEETPULSE_CONTROLLER__{k.upper()}": str(v) for k, v in settings.items()}


def command(*arguments: str, program: str = "controller") -> Sequence[str]:
    """Return the command line of a controller whose metrics are on a free port."""
    return [sys.executable, "-m", program, "--metrics", "127.0.0.1:0", *arguments]


async def run_to_end(*arguments: str, **settings: object) -> subprocess.CompletedProcess[bytes]:
    """Run a controller that ends by itself; fail when it does not."""
    with anyio.fail_after(START_WITHIN_S):
        return await anyio.run_process(
            command(*arguments), env=environment(**settings), check=False
        )


class ControllerProcess(NamedTuple):
    """One running `python -m controller`."""

    process: Process
    url: str
    log: Path

    @classmethod
    @asynccontextmanager
    async def running(
        cls, log: Path, *, fate: Mapping[str, object] | None = None, **settings: object
    ) -> AsyncIterator[Self]:
        """Start it and wait until it says where its metrics are; kill what is left at the end.

        With a `fate` it is one of `tests.fakes.fated`.
        """
        env = environment(**settings) | ({} if fate is None else {"FATE": json.dumps(fate)})
        program = "controller" if fate is None else "tests.fakes.fated"
        with log.open("wb") as output:
            process = await anyio.open_process(
                command(program=program), env=env, stdout=output, stderr=output
            )
        async with process:
            try:
                yield cls(process, await _address(process, log), log)
            finally:
                if process.returncode is None:
                    process.kill()

    async def end(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit code."""
        self.process.send_signal(sign)
        with anyio.fail_after(END_WITHIN_S):
            return await self.process.wait()

    async def get(self, path: str) -> httpx.Response:
        """Ask its own port."""
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(self.url + path)

    async def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value, summed over the series that carry `labels`."""
        return _total((await self.get("/metrics")).text, f"fleetpulse_{name}", labels)

    async def violations(self) -> dict[str, float]:
        """Return how often each invariant was broken, those that were."""
        name = "fleetpulse_invariant_violations_total"
        return {
            sample.labels["invariant"]: sample.value
            for family in text_string_to_metric_families((await self.get("/metrics")).text)
            for sample in family.samples
            if sample.name == name and sample.value
        }

    async def leads(self) -> bool:
        """Tell whether it is this one that leads."""
        return await self.metric("leader") == 1


def _total(exposition: str, name: str, labels: Mapping[str, str]) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def _address(process: Process, log: Path) -> str:
    with anyio.fail_after(START_WITHIN_S):
        while True:
            said = await anyio.Path(log).read_text()
            if found := re.search(r"(http://127\.0\.0\.1:\d+)/metrics", said):
                return found[1]
            assert process.returncode is None, said
            await anyio.sleep(0.02)
