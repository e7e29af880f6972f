"""A real Prometheus for tests, and promtool: both of Debian's package `prometheus`.

Its storage is a directory of the test's, its port is free, and it dies with the test run.
"""

import re
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

import anyio
import httpx
import msgspec

from controller.child import Child
from tests.fakes.services import program

START_WITHIN_S: Final = 20.0
SCRAPE_INTERVAL: Final = "500ms"
_LISTENING: Final = re.compile(r'msg="Listening on" address=(\S+)')
_PACKAGE: Final = "prometheus"


def promtool(*arguments: str | Path) -> str:
    """Run promtool; return what it said, and fail with it when it is not content."""
    done = subprocess.run(
        [program("promtool", package=_PACKAGE), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Prometheus:
    """A running server, asked over HTTP as Grafana asks it."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def scraping(
        cls, urls: Mapping[str, str], directory: Path, *, rules: Path
    ) -> AsyncIterator[Self]:
        """Start one that scrapes `urls`, by job; end it afterwards."""
        config = {
            "global": {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [httpx.URL(url).netloc.decode()]}]}
                for job, url in urls.items()
            ],
        }
        file = directory / "prometheus.yml"
        file.write_bytes(msgspec.json.encode(config))  # JSON is YAML
        child = Child(
            [
                str(program("prometheus", package=_PACKAGE)),
                f"--config.file={file}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            log_path=directory / "prometheus.log",
        )
        child.start()
        try:
            address = await _address(child)
            async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
                yield cls(client)
        finally:
            child.end()

    async def has_scraped(self, *, jobs: int) -> None:
        """Wait until so many targets answer; it looks for new ones every 5 s."""
        with anyio.fail_after(START_WITHIN_S):
            while True:
                data = await self._get("/api/v1/query", {"query": "up == 1"})
                if len(data["result"]) == jobs:
                    return
                await anyio.sleep(0.1)

    async def series(self, expr: str, *, since: float, until: float) -> Sequence[Any]:
        """Return every series that `expr` had between two moments, unix seconds.

        Fails with the server's words where it cannot evaluate `expr`.
        """
        data = await self._get(
            "/api/v1/query_range", {"query": expr, "start": since, "end": until, "step": 1}
        )
        found: Sequence[Any] = data["result"]
        return found

    async def rules(self) -> Sequence[Mapping[str, Any]]:
        """Return every rule as the server sees it."""
        data = await self._get("/api/v1/rules", {})
        return [rule for group in data["groups"] for rule in group["rules"]]

    async def label_values(self, label: str, *, match: str) -> Sequence[str]:
        """Return the values a label has."""
        reply = await self._client.get(f"/api/v1/label/{label}/values", params={"match[]": match})
        values: Sequence[str] = reply.json()["data"]
        return values

    async def _get(self, path: str, asked: Mapping[str, str | float]) -> Mapping[str, Any]:
        reply = (await self._client.get(path, params=dict(asked))).json()
        assert reply["status"] == "success", (asked, reply)
        data: Mapping[str, Any] = reply["data"]
        return data


async def _address(child: Child) -> str:
    with anyio.fail_after(START_WITHIN_S):
        while True:
            log = child.log_path.read_text(errors="replace")
            found = _LISTENING.search(log)
            if found is not None and "Server is ready" in log:
                return found[1]
            assert child.pid is not None, log
            await anyio.sleep(0.05)
