"""An example of a proxy that learns its routes from the bus, and of a lively one's accidents.

Reads an event stream for hints and the keys for the truth. What it has it keeps: a key that is
missing means that nobody refreshed it, not that the routes are gone (S17). Written against the
contract alone, with a plain client, so that it shows what any other reader needs.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

_VERSION: Final = re.compile(r"@(\d+)\.(\d+)\Z")


@dataclass(slots=True)
class Endpoint:
    """What the proxy routes to for one endpoint."""

    version: tuple[int, int] = (0, 0)
    routes: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Address by route."""
    ratios: dict[str, float] = field(default_factory=dict)
    """Share of the traffic by session; 1 where the bus does not say."""


class FakeAppProxy:
    """Sees what it is pointed at in a tick: what events name, and every few ticks all it knows."""

    def __init__(self, client: Any, *, prefix: str = "", full_every: int = 2) -> None:  # noqa: ANN401 - of one server or of a cluster
        self._client = client
        self._prefix = prefix
        self._full_every = full_every
        self.restart()

    def restart(self) -> None:
        """Forget everything, and where the stream was read."""
        self.endpoints: dict[str, Endpoint] = {}
        self.refused = 0
        """Tables that were older than the one it had."""
        self._last_id = "0-0"
        self._ticks = 0

    async def tick(self) -> None:
        """Read the news, then what they name."""
        named = await self._events()
        if self._ticks % self._full_every == 0:
            named |= {*self.endpoints, *await self._scan()}
        self._ticks += 1
        for endpoint_id in sorted(named):
            value = await self._get(f"endpoint.{endpoint_id}.route_connection_info")
            await self.take(endpoint_id, value)

    async def take(self, endpoint_id: str, value: str | None) -> None:
        """Take one table, however late it comes; a missing key changes nothing."""
        if value is None:
            return
        version, entries = parse(value)
        known = self.endpoints.setdefault(endpoint_id, Endpoint())
        if version < known.version:
            self.refused += 1
            return
        known.version = version
        known.routes = {e["route_id"]: (e["kernel_host"], e["kernel_port"]) for e in entries}
        known.ratios = {}
        for session_id in {e["session_id"] for e in entries}:
            ratio = await self._get(f"endpoint.{endpoint_id}.session.{session_id}.traffic_ratio")
            known.ratios[session_id] = 1.0 if ratio is None else float(ratio)

    async def _events(self) -> set[str]:
        found = await self._client.xrange(f"{self._prefix}events", min=f"({self._last_id}")
        if not found:
            return set()
        self._last_id = found[-1][0].decode()
        return {
            fields[b"endpoint_id"].decode()
            for _, fields in found
            if fields[b"event"] == b"endpoint_route_list_updated"
        }

    async def _scan(self) -> set[str]:
        pattern = f"{self._prefix}endpoint.*.route_connection_info"
        return {
            key.decode().removeprefix(self._prefix).split(".")[1]
            async for key in self._client.scan_iter(match=pattern)
        }

    async def _get(self, key: str) -> str | None:
        value = await self._client.get(f"{self._prefix}{key}")
        return None if value is None else value.decode()


def parse(value: str) -> tuple[tuple[int, int], Iterable[dict[str, Any]]]:
    """Return the version of connection info, and its entries of every app."""
    version, entries = (0, 0), []
    for app, listed in json.loads(value).items():
        if found := _VERSION.match(app):
            version = int(found[1]), int(found[2])
        entries += listed
    return version, entries
