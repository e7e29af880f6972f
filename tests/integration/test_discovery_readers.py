"""The documents for others, read by the programs they are for."""

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from controller.child import Child
from controller.model import Route
from controller.publish.discovery import target_groups
from controller.publish.envoy import discovery_response
from controller.route.table import table_of
from tests.fakes.nouns import DEMO, a_deployment, a_route, fleet
from tests.fakes.prober import until
from tests.fakes.prometheus import promtool

START_WITHIN_S = 20.0


def test_prometheus_takes_the_document(tmp_path: Path) -> None:
    groups = target_groups({DEMO: a_deployment()}, [*fleet(2), a_route(3, host="::1")])
    document = tmp_path / "ready.json"
    document.write_bytes(msgspec.json.encode(groups))
    config = tmp_path / "prometheus.yml"
    job = {"job_name": "replicas", "file_sd_configs": [{"files": [str(document)]}]}
    config.write_bytes(msgspec.json.encode({"scrape_configs": [job]}))
    found: Any = msgspec.json.decode(
        promtool("check", "service-discovery", "--timeout=1s", config, "replicas")
    )
    discovered = [each["discoveredLabels"] for each in found]
    assert {labels["__address__"] for labels in discovered} == {"127.0.0.1:8000", "[::1]:8000"}
    assert {labels["deployment"] for labels in discovered} == {"demo"}
    kept = {name for each in found for name in each["labels"]}
    assert not any(name.startswith("__meta") for name in kept), "no series carries an id"


class Envoy:
    """A running Envoy with one cluster, which it reads from a file as from an API."""

    def __init__(self, directory: Path) -> None:
        self._document = directory / "eds.json"
        self._admin = directory / "admin.sock"

    def publish(self, *routes: Route) -> None:
        """Replace the document, in one move."""
        beside = self._document.with_suffix(".new")
        response = discovery_response([table_of(a_deployment(), routes)])
        beside.write_bytes(msgspec.json.encode(response))
        beside.replace(self._document)

    def bootstrap(self) -> dict[str, Any]:
        """Return what Envoy is started with."""
        source = {"path_config_source": {"path": str(self._document)}}
        cluster = {
            "name": "demo",
            "type": "EDS",
            "eds_cluster_config": {"eds_config": source | {"resource_api_version": "V3"}},
        }
        return {
            "node": {"id": "test", "cluster": "test"},
            "admin": {"address": {"pipe": {"path": str(self._admin)}}},
            "static_resources": {"clusters": [cluster]},
        }

    async def weights(self) -> dict[str, int] | None:
        """Return the weight of each endpoint by address; None while it does not answer."""
        transport = httpx.AsyncHTTPTransport(uds=str(self._admin))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            try:
                reply = await client.get("/clusters", params={"format": "json"})
            except httpx.TransportError:
                return None
        (cluster,) = [c for c in reply.json()["cluster_statuses"] if c["name"] == "demo"]
        found = {}
        for host in cluster.get("host_statuses", ()):
            address = host["address"]["socket_address"]
            found[f"{address['address']}:{address['port_value']}"] = host["weight"]
        return found

    async def until(self, wanted: dict[str, int]) -> None:
        """Wait until Envoy sends where it should."""

        async def reached() -> bool:
            return await self.weights() == wanted

        await until(reached, within_s=START_WITHIN_S)

    def configure(self, directory: Path) -> Path:
        """Write what Envoy is started with; return where."""
        path = directory / "bootstrap.json"
        path.write_bytes(msgspec.json.encode(self.bootstrap()))
        return path


@asynccontextmanager
async def running(*routes: Route) -> AsyncIterator[Envoy]:
    program = shutil.which("envoy", path=os.pathsep.join(_places()))
    if program is None:
        pytest.skip("envoy is not here: install the development dependencies")
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        envoy = Envoy(Path(directory))
        envoy.publish(*routes)
        config = envoy.configure(Path(directory))
        words = [program, "-c", str(config), "--disable-hot-restart", "--concurrency", "1"]
        child = Child(words, log_path=Path(directory, "envoy.log"))
        child.start()
        try:
            yield envoy
        finally:
            child.end(patience_s=5.0)


def _places() -> Iterable[str]:
    return str(Path(sys.executable).parent), os.environ.get("PATH", "")


async def test_envoy_sends_where_the_table_says_and_stops_when_it_is_empty() -> None:
    """R-47: no endpoints is an answer; and it follows what replaces it."""
    first = a_route(1, port=8001), a_route(2, port=8002, traffic_ratio=0.25)
    async with running(*first) as envoy:
        await envoy.until({"127.0.0.1:8001": 100, "127.0.0.1:8002": 25})
        envoy.publish(a_route(3, port=8003, host="::1"))
        await envoy.until({"::1:8003": 100})
        envoy.publish()
        await envoy.until({})
