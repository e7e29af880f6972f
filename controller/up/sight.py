"""What a local stack looks like from outside: its database, its bus, its daemons' own counters.

Used by `fleetpulse up` for its view and its summary. Only looks; a part that is away leaves the
last sight of it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from controller.bus import ControlBus
from controller.db.repository import Repository
from controller.errors import DatabaseUnreachable
from controller.model import Snapshot
from controller.reconcile.observe import is_probed
from controller.up.stack import Stack
from probe.errors import BusError
from probe.wire import ReplicaHealthStatus, ReplicaId

_TIMEOUT_S: Final = 2.0

Series = tuple[str, tuple[str, ...]]
"""A counter's name and the values of its labels."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a run, as JSON; the first eight fields are the contract's."""

    targets: int
    probes: int
    probes_per_second: float
    statuses_written: int
    healthy: int
    rollouts: int
    invariant_violations: int
    status_age_max_seconds: float | None
    """None when there is no status."""
    evictions: int
    seconds: float


@dataclass(slots=True)
class Totals:
    """Counters of daemons, series by series: one that was reset, or went, keeps what it counted."""

    _seen: dict[str, Mapping[Series, float]] = field(default_factory=dict)
    _before: Counter[str] = field(default_factory=Counter)

    def take(self, source: str, samples: Mapping[Series, float]) -> None:
        """Take the present values of one daemon's counters."""
        for series, value in self._seen.get(source, {}).items():
            if samples.get(series, 0.0) < value:
                self._before[series[0]] += int(value)
        self._seen[source] = samples

    def __getitem__(self, name: str) -> int:
        now = sum(
            int(value)
            for samples in self._seen.values()
            for series, value in samples.items()
            if series[0] == name
        )
        return self._before[name] + now


class Sight:
    """Looks at one stack."""

    def __init__(self, stack: Stack, repository: Repository, bus: ControlBus) -> None:
        self._stack = stack
        self._repository = repository
        self._bus = bus
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False)
        self.totals = Totals()
        self.snapshot: Snapshot | None = None
        self.statuses: Mapping[ReplicaId, ReplicaHealthStatus] = {}
        self.bus_time_s = 0.0
        self.targets = 0

    async def look(self) -> None:
        """Look at everything once."""
        try:
            self.snapshot = await self._repository.observe()
            probed = [ReplicaId(route.id) for route in self.snapshot.routes if is_probed(route)]
            evidence = await self._bus.read_evidence(probed)
            self.statuses, self.bus_time_s = evidence.statuses, evidence.time_s
        except (DatabaseUnreachable, BusError):
            self.statuses = {}
        for name in ("prober", "controller"):
            await self._scrape(name)

    async def close(self) -> None:
        """Close the connections that were opened for looking."""
        await self._http.aclose()

    def summary(self, *, seconds: float) -> Summary:
        """Sum up what was seen in `seconds`."""
        probes = self.totals["fleetpulse_probes_total"]
        oldest = min((s.last_check for s in self.statuses.values()), default=None)
        return Summary(
            targets=self.targets,
            probes=probes,
            probes_per_second=round(probes / seconds, 1),
            statuses_written=self.totals["fleetpulse_statuses_written_total"],
            healthy=sum(status.healthy for status in self.statuses.values()),
            rollouts=self.totals["fleetpulse_rollouts_total"],
            invariant_violations=self.totals["fleetpulse_invariant_violations_total"],
            status_age_max_seconds=None
            if oldest is None
            else round(max(0.0, self.bus_time_s - oldest), 3),
            evictions=self.totals["fleetpulse_evictions_total"],
            seconds=round(seconds, 1),
        )

    async def _scrape(self, name: str) -> None:
        url = self._stack.metrics_url(name)
        if url is None:
            return
        try:
            text = (await self._http.get(url)).text
        except httpx.HTTPError:
            return
        totals: dict[Series, float] = {}
        targets = 0.0
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "fleetpulse_targets":
                    targets += sample.value
                elif family.type == "counter" and not sample.name.endswith("_created"):
                    totals[sample.name, tuple(sample.labels.values())] = sample.value
        self.totals.take(name, totals)
        if name == "prober":
            self.targets = int(targets)
