"""What the commands about targets and statuses do, between the bus and the terminal.

Called by `probe.cli` alone, one function per verb. Every bus error is raised as `BusError`.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
import click
import msgspec

from probe import show
from probe.bus import ProbeBus, connect
from probe.bus_targets import TargetFeed, Targets
from probe.check import admit
from probe.errors import MalformedEntry, WireError
from probe.health import UNKNOWN
from probe.http.policy import ConnectPolicy
from probe.once import (
    Finding,
    finding,
    probe_once,
    replica_id_of,
    target_of_url,
    target_on_bus,
)
from probe.settings import Settings
from probe.wire import (
    PARTITIONS,
    Keys,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    decode_target,
    encode,
)

WATCH_PERIOD_S: Final = 1.0
LINE_MAX_BYTES: Final = 1 << 16
"""A target is below 1 KiB; anything this long is not one."""


class BadLine(msgspec.Struct, frozen=True):
    """One line of a file that is not a target."""

    line: int
    error: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a file of targets holds."""

    targets: list[ReplicaProbeTarget]
    rejected: list[BadLine]


@dataclass(frozen=True, slots=True)
class Seen:
    """Statuses at one instant of the bus's time; None where there is none."""

    now_s: float
    statuses: dict[ReplicaId, ReplicaHealthStatus | None]

    @property
    def all_healthy(self) -> bool:
        """Tell whether each of them is there and healthy."""
        return all(status is not None and status.healthy for status in self.statuses.values())


@asynccontextmanager
async def _bus(settings: Settings) -> AsyncIterator[ProbeBus]:
    client = connect(settings.redis_url, timeout_s=settings.bus_timeout_s)
    bus = ProbeBus(client, Keys(settings.key_prefix))
    try:
        yield bus
    finally:
        await bus.aclose()


@asynccontextmanager
async def _feed(settings: Settings) -> AsyncIterator[TargetFeed]:
    client = connect(settings.redis_url, timeout_s=settings.bus_timeout_s)
    feed = TargetFeed(client, Keys(settings.key_prefix))
    try:
        yield feed
    finally:
        await feed.aclose()


def parse_targets(lines: Iterable[bytes]) -> Parsed:
    """Read targets, one JSON object a line; empty lines are skipped.

    What this prober could not check is rejected here, where its author still reads it.
    """
    parsed = Parsed([], [])
    anywhere = ConnectPolicy(())
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            if len(line) > LINE_MAX_BYTES:
                raise MalformedEntry(f"{len(line)} bytes are too many for a target")
            target = decode_target(line)
            admit(target, anywhere)
        except WireError as error:
            parsed.rejected.append(BadLine(number, str(error)))
        else:
            parsed.targets.append(target)
    return parsed


async def load(targets: Sequence[ReplicaProbeTarget], settings: Settings) -> int:
    """Write targets to the bus; return how many."""
    async with _feed(settings) as feed:
        return await feed.load(targets)


async def listed(settings: Settings) -> Targets:
    """Read every target on the bus."""
    async with _feed(settings) as feed:
        return await feed.list()


async def remove(replica_ids: Sequence[str], settings: Settings) -> int:
    """Remove targets and their statuses; return how many targets were there."""
    async with _feed(settings) as feed:
        return await feed.remove(map(replica_id_of, replica_ids))


async def check_each(asked: Sequence[str], settings: Settings) -> list[Finding]:
    """Probe each URL or replica once, one after the other."""
    policy = ConnectPolicy.of(settings.allow)
    findings: list[Finding] = []
    async with _bus(settings) as bus:
        for text in asked:
            if "://" in text:
                target, streak = target_of_url(text), UNKNOWN
            else:
                target, streak = await target_on_bus(bus, replica_id_of(text))
            outcome = await probe_once(target, policy)
            findings.append(finding(text, target, outcome, before=streak))
    return findings


async def statuses(replica_ids: Sequence[str], settings: Settings) -> Seen:
    """Read statuses, of every target when none is named."""
    async with _bus(settings) as bus:
        return await _look(bus, [replica_id_of(text) for text in replica_ids])


async def watch(replica_ids: Sequence[str], settings: Settings, *, as_json: bool) -> None:
    """Show statuses until interrupted: live on a terminal, else one line per change."""
    wanted = [replica_id_of(text) for text in replica_ids]
    async with _bus(settings) as bus:
        if show.on_terminal() and not as_json:
            await _watch_live(bus, wanted)
        else:
            await _watch_changes(bus, wanted, as_json=as_json)


async def _watch_live(bus: ProbeBus, wanted: Sequence[ReplicaId]) -> None:
    from rich.live import Live  # noqa: PLC0415 - only where it is seen

    with Live(auto_refresh=False) as live:
        while True:
            seen = await _look(bus, wanted)
            rows = sorted(_rows(seen), key=_worst_first)
            shown = rows[: max(1, live.console.size.height - 2)]
            live.update(show.rich_table(show.STATUS_COLUMNS, shown), refresh=True)
            await anyio.sleep(WATCH_PERIOD_S)


async def _watch_changes(bus: ProbeBus, wanted: Sequence[ReplicaId], *, as_json: bool) -> None:
    before: dict[ReplicaId, tuple[str, str]] = {}
    while True:
        seen = await _look(bus, wanted)
        now: dict[ReplicaId, tuple[str, str]] = {}
        for (replica_id, status), row in zip(seen.statuses.items(), _rows(seen), strict=True):
            now[replica_id] = (row[1], row[2])
            if before.get(replica_id) == now[replica_id]:
                continue
            if as_json:
                show.line(_object(replica_id, status))
            else:
                click.echo("  ".join(row).rstrip())
        before = now
        await anyio.sleep(WATCH_PERIOD_S)


async def _look(bus: ProbeBus, wanted: Sequence[ReplicaId]) -> Seen:
    now_s = (await bus.poll()).time_s
    ids = list(wanted)
    if not ids:
        found = await bus.read_targets(range(PARTITIONS), now_s)
        ids = sorted(t.replica_id for targets in found.by_partition.values() for t in targets)
    known = await bus.read_statuses(ids)
    return Seen(now_s, {replica_id: known.get(replica_id) for replica_id in ids})


def _rows(seen: Seen) -> list[show.Row]:
    return [
        show.status_row(replica_id, status, now_s=seen.now_s)
        for replica_id, status in seen.statuses.items()
    ]


def _worst_first(row: show.Row) -> tuple[int, str]:
    return (("unhealthy", "unknown", "healthy").index(row[1]), row[0])


def _object(replica_id: ReplicaId, status: ReplicaHealthStatus | None) -> object:
    return {"replica_id": replica_id, "healthy": None} if status is None else status


def print_findings(findings: Iterable[Finding], *, as_json: bool) -> None:
    """Print what the probes found."""
    for found in findings:
        if as_json:
            show.line(found)
            continue
        status = f" (HTTP {found.http_status})" if found.http_status else ""
        click.echo(f"{show.mark(found.outcome)}  {found.target}")
        detail = f": {found.detail}" if found.detail else ""
        click.echo(f"  {found.reason}{status}, {show.sentence(found.reason)}{detail}")
        phases = show.phases_text(found.phases_ms)
        click.echo(f"  {found.latency_ms:.1f} ms" + (f": {phases}" if phases else ""))
        word = "healthy" if found.healthy else "not healthy"
        click.echo(
            f"  verdict: {word} after {found.consecutive_successes} passed and "
            f"{found.consecutive_failures} failed in a row"
        )


def print_targets(found: Targets, *, as_json: bool) -> None:
    """Print targets by id; what cannot be used goes to stderr."""
    listed_targets = sorted(
        (target for targets in found.by_partition.values() for target in targets),
        key=lambda target: target.replica_id,
    )
    for entry in found.rejected:
        click.echo(f"{entry.key}: {entry.error}", err=True)
    if as_json:
        for target in listed_targets:
            click.echo(encode(target))
    else:
        show.table(show.TARGET_COLUMNS, map(show.target_row, listed_targets))


def print_statuses(seen: Seen, *, as_json: bool) -> None:
    """Print statuses as they were seen."""
    if as_json:
        for replica_id, status in seen.statuses.items():
            show.line(_object(replica_id, status))
    else:
        show.table(show.STATUS_COLUMNS, _rows(seen))
