"""What the commands about targets and statuses do, between the bus and the terminal.

Called by `probe.cli` alone, one function per verb. Every bus error is raised as `BusError`.
"""

import json
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import anyio
import click
import msgspec

from probe.bus.connect import BusFiles, Client, connect
from probe.bus.hash_layout import HashBus
from probe.bus.prober import ProbeBus
from probe.bus.targets import TargetFeed, Targets
from probe.commands import show
from probe.commands.once import (
    Finding,
    as_profile,
    finding,
    probe_once,
    replica_id_of,
    target_of_url,
    target_on_bus,
)
from probe.errors import BusError, MalformedEntry, SettingsError, WireError
from probe.health import UNKNOWN
from probe.layers import nearest
from probe.reach import judge_of, refuse_malformed
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
NOTHING: Final = "no targets on the bus: feed it with `fleetpulse targets load FILE`"
_FIELDS: Final = ("v", *ReplicaProbeTarget.__struct_fields__)
_PLACED: Final = re.compile(r".*: Expected (?P<what>.*) - at `\$\.(?P<key>\w+)`", re.DOTALL)
_FORMS: Final = {
    "replica_id": "write a UUID in lower case",
    "replica_host": "write an IP address, a host name, or unix: and a path",
    "health_path": "write a path that begins with / and has no spaces, such as /health",
    "host_header": "write a host name, with a port if need be",
}
"""Where a pattern decides, what it stands for."""
LINE_MAX_BYTES: Final = 1 << 16
"""A target is below 1 KiB; anything this long is not one."""


class BadLine(msgspec.Struct, frozen=True):
    """One line of a file that is not a target."""

    line: int
    error: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a file of targets holds."""

    targets: list[ReplicaProbeTarget] = field(default_factory=list)
    rejected: list[BadLine] = field(default_factory=list)
    doubted: list[BadLine] = field(default_factory=list)
    """Lines that are used, but for a key that nobody reads."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Statuses at one instant of the bus's time; None where there is none."""

    now_s: float
    statuses: dict[ReplicaId, ReplicaHealthStatus | None]

    @property
    def all_healthy(self) -> bool:
        """Tell whether each of them is there and healthy."""
        return all(status is not None and status.healthy for status in self.statuses.values())


def _client(settings: Settings) -> Client:
    files = BusFiles.of(settings)
    return connect(settings.redis_url, files=files, timeout_s=settings.bus_timeout_s)


@asynccontextmanager
async def _bus(settings: Settings) -> AsyncIterator[ProbeBus]:
    client = _client(settings)
    kind = HashBus if settings.bus_layout == "hash" else ProbeBus
    bus = kind(client, Keys(settings.key_prefix))
    try:
        yield bus
    finally:
        await bus.aclose()


@asynccontextmanager
async def _feed(settings: Settings) -> AsyncIterator[TargetFeed]:
    if settings.bus_layout == "hash":
        raise SettingsError(
            'bus_layout = "hash": the targets there belong to another system; feed them to that one'
        )
    client = _client(settings)
    feed = TargetFeed(client, Keys(settings.key_prefix))
    try:
        yield feed
    finally:
        await feed.aclose()


def parse_targets(lines: Iterable[bytes]) -> Parsed:
    """Read targets, one JSON object a line; empty lines are skipped.

    What this prober could not check is rejected here, where its author still reads it. A key it
    does not know may be of a later version, or mistyped: the line is used, and doubted.
    """
    parsed = Parsed()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            if len(line) > LINE_MAX_BYTES:
                raise MalformedEntry(f"{len(line)} bytes are too many for a target")
            target = decode_target(line)
            refuse_malformed(target)
        except WireError as error:
            parsed.rejected.append(BadLine(number, _explain(error, line)))
        else:
            parsed.targets.append(target)
            parsed.doubted.extend(
                BadLine(number, f"unknown key {key!r} is ignored{nearest(key, _FIELDS)}")
                for key in json.loads(line)
                if key not in _FIELDS
            )
    return parsed


def _explain(error: WireError, line: bytes) -> str:
    """Say which field cannot be, what it holds and what it may hold."""
    placed = _PLACED.fullmatch(str(error))
    if placed is None:
        return str(error)
    key, what = placed["key"], placed["what"].replace("`", "")
    value = json.loads(line)[key]
    return f"{key} = {str(value)[:80]!r}: {_FORMS.get(key, f'expected {what}')}"


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


async def check_each(
    asked: Sequence[str], settings: Settings, *, profile: str | None
) -> list[Finding]:
    """Probe each URL or replica once, one after the other; with a profile's checks if one is named.

    Raises:
        WireError: if one of them cannot be checked.
        BusError: if one is looked for on the bus, and that cannot be read.
    """
    judge = judge_of(settings, os.environ)
    findings: list[Finding] = []
    async with _bus(settings) as bus:
        for text in asked:
            if "://" in text:
                target, streak = target_of_url(text), UNKNOWN
            else:
                target, streak = await target_on_bus(bus, replica_id_of(text))
            target = as_profile(target, profile)
            outcome = await probe_once(target, judge, settings)
            findings.append(finding(text, target, outcome, before=streak))
    return findings


async def statuses(replica_ids: Sequence[str], settings: Settings) -> Seen:
    """Read statuses, of every target when none is named."""
    async with _bus(settings) as bus:
        return await _look(bus, [replica_id_of(text) for text in replica_ids])


async def watch(replica_ids: Sequence[str], settings: Settings, *, as_json: bool) -> None:
    """Show statuses until interrupted: live on a terminal, else one line per change.

    A bus that is away at first is a mistake, and raised; later it is an outage, and waited for.
    """
    wanted = [replica_id_of(text) for text in replica_ids]
    async with _bus(settings) as bus:
        if show.on_terminal() and not as_json:
            await _watch_live(bus, wanted)
        else:
            await _watch_changes(bus, wanted, as_json=as_json)


async def _watch_live(bus: ProbeBus, wanted: Sequence[ReplicaId]) -> None:
    from rich.console import Group  # noqa: PLC0415 - only where it is seen
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    rows: list[show.Row] = []
    with Live(auto_refresh=False) as live:
        async for seen in _looks(bus, wanted):
            below = Text(str(seen), style="yellow")
            if isinstance(seen, Seen):
                rows = sorted(_rows(seen), key=_worst_first)
                below = Text(_counts(rows), style="dim")
            shown = rows[: max(1, live.console.size.height - 3)]
            live.update(Group(show.live_table(show.STATUS_COLUMNS, shown), below), refresh=True)


async def _watch_changes(bus: ProbeBus, wanted: Sequence[ReplicaId], *, as_json: bool) -> None:
    before: dict[ReplicaId, tuple[str, str]] = {}
    trouble = ""
    async for seen in _looks(bus, wanted):
        if isinstance(seen, BusError):
            if str(seen) != trouble:
                click.echo(seen, err=True)
            trouble = str(seen)
            continue
        now: dict[ReplicaId, tuple[str, str]] = {}
        for (replica_id, status), row in zip(seen.statuses.items(), _rows(seen), strict=True):
            now[replica_id] = (row[1], row[2])
            if before.get(replica_id) == now[replica_id]:
                continue
            if as_json:
                show.line(_object(replica_id, status))
            else:
                click.echo("  ".join(row).rstrip())
        before, trouble = now, ""


async def _looks(bus: ProbeBus, wanted: Sequence[ReplicaId]) -> AsyncIterator[Seen | BusError]:
    """Look once a period, for ever."""
    yield await _look(bus, wanted)
    while True:
        await anyio.sleep(WATCH_PERIOD_S)
        try:
            seen: Seen | BusError = await _look(bus, wanted)
        except BusError as error:
            seen = error
        yield seen


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
    return (show.VERDICTS.index(row[1]), row[0])


def _counts(rows: Sequence[show.Row]) -> str:
    """Count the rows, also those that the screen has no room for."""
    counts = Counter(row[1] for row in rows)
    words = [f"{counts[verdict]} {verdict}" for verdict in show.VERDICTS]
    return f"{len(rows)} targets: {', '.join(words)}; Ctrl-C ends"


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
        rows = [show.target_row(target) for target in listed_targets]
        show.table(show.TARGET_COLUMNS, rows, nothing=NOTHING)


def print_statuses(seen: Seen, *, as_json: bool) -> None:
    """Print statuses as they were seen."""
    if as_json:
        for replica_id, status in seen.statuses.items():
            show.line(_object(replica_id, status))
    else:
        show.table(show.STATUS_COLUMNS, _rows(seen), nothing=NOTHING)
