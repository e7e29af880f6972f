"""One probe of one target, for a person who asks: the same wire and rules as the daemon's.

Called by `fleetpulse check`. Knows nothing of schedules.
"""

import asyncio
import uuid
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import anyio
import msgspec

from probe.bus.prober import ProbeBus
from probe.check import StatusJudge
from probe.errors import MalformedEntry
from probe.health import UNKNOWN, Outcome, Streak, observe
from probe.reach import ways_of
from probe.report import phases_of
from probe.schedule.scheduler import Check
from probe.settings import Settings
from probe.wire import (
    OutcomeKind,
    Phases,
    Reason,
    ReplicaId,
    ReplicaProbeTarget,
    decode_target,
    encode,
    partition_of,
)

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
CONNECTIONS_MAX: Final = 8
"""A retry may open a second one while the first one closes."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one probe found, and what the rules make of it."""

    target: str
    """As it was asked for: a URL or a replica id."""
    passed: bool
    outcome: OutcomeKind
    reason: Reason
    detail: str
    http_status: int
    latency_ms: float
    phases_ms: Phases
    healthy: bool
    """The verdict after this probe, counted on from what the bus has of the replica."""
    consecutive_failures: int
    consecutive_successes: int


def replica_id_of(text: str) -> ReplicaId:
    """Return the canonical form of an id that a person typed.

    Raises:
        MalformedEntry: if it is not a UUID.
    """
    try:
        return ReplicaId(str(uuid.UUID(text)))
    except ValueError:
        raise MalformedEntry(
            f"{text!r} is not a replica id: see the first column of fleetpulse targets list"
        ) from None


def target_of_url(url: str) -> ReplicaProbeTarget:
    """Return the target that a URL means, with the defaults of every other field.

    Raises:
        MalformedEntry: if it is not a URL of a replica.
    """
    try:
        parts = urlsplit(url)
        port = DEFAULT_PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError as error:
        raise MalformedEntry(f"{url!r} is not a URL: {error}") from error
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.username is not None:
        raise MalformedEntry(
            f"{url!r} is neither a URL nor a replica id; write for example "
            "http://10.0.0.1:8000/health"
        )
    query = f"?{parts.query}" if parts.query else ""
    fields = {
        "replica_id": str(uuid.uuid5(uuid.NAMESPACE_URL, url)),
        "replica_host": parts.hostname,
        "inference_port": port,
        "health_path": (parts.path or "/") + query,
        "scheme": parts.scheme,
    }
    return decode_target(encode(fields))


async def target_on_bus(bus: ProbeBus, replica_id: ReplicaId) -> tuple[ReplicaProbeTarget, Streak]:
    """Read the target of a replica, and its streak so far.

    Raises:
        MalformedEntry: if the bus has no such target, or one that cannot be used.
        BusError: if the bus cannot be read.
    """
    now_s = (await bus.poll()).time_s
    partition = partition_of(replica_id)
    found = await bus.read_targets([partition], now_s)
    for entry in found.rejected:
        if entry.replica_id == replica_id:
            raise MalformedEntry(f"replica {replica_id}: {entry.error}")
    for target in found.by_partition[partition]:
        if target.replica_id == replica_id:
            status = (await bus.read_statuses([replica_id])).get(replica_id)
            if status is None:
                return target, UNKNOWN
            failures, successes = status.consecutive_failures, status.consecutive_successes
            return target, Streak(status.healthy, failures, successes)
    raise MalformedEntry(
        f"the bus has no target {replica_id}: see fleetpulse targets list, or give a URL"
    )


def as_profile(target: ReplicaProbeTarget, profile: str | None) -> ReplicaProbeTarget:
    """Return the target with the checks of a profile in place of its own, if one is named."""
    return target if profile is None else msgspec.structs.replace(target, checks=profile)


async def probe_once(target: ReplicaProbeTarget, judge: StatusJudge, settings: Settings) -> Outcome:
    """Probe a target once, within its own deadlines.

    Raises:
        WireError: if this prober cannot check it.
    """
    judge.admit(target)
    loop = asyncio.get_running_loop()
    wire, resolver = ways_of(settings, judge, loop=loop, max_open=CONNECTIONS_MAX, max_kept=0)
    ended = anyio.Event()
    outcomes: list[Outcome] = []

    def done(_check: Check, outcome: Outcome) -> None:
        outcomes.append(outcome)
        ended.set()

    wire.done = done
    check = Check(target)
    check.started_at = monotonic()
    wire.start(check, check.started_at)
    look_at: float | None = check.started_at + check.first_deadline_s
    try:
        while not outcomes and look_at is not None:
            with anyio.move_on_after(look_at - monotonic()):
                await ended.wait()
            if not outcomes:
                look_at = wire.expire(check, monotonic())
    finally:
        wire.close()
        with anyio.CancelScope(shield=True):
            await resolver.aclose()
    return outcomes[0]


def finding(asked: str, target: ReplicaProbeTarget, outcome: Outcome, *, before: Streak) -> Finding:
    """Say what an outcome means after the streak `before`."""
    streak, _ = observe(
        before,
        outcome,
        healthy_threshold=target.healthy_threshold,
        max_retries=target.max_retries,
    )
    return Finding(
        target=asked,
        passed=outcome.kind is OutcomeKind.PASSED,
        outcome=outcome.kind,
        reason=outcome.reason,
        detail=outcome.detail,
        http_status=outcome.http_status,
        latency_ms=round(outcome.total_s * 1000, 3),
        phases_ms=phases_of(outcome),
        healthy=streak.healthy,
        consecutive_failures=streak.consecutive_failures,
        consecutive_successes=streak.consecutive_successes,
    )
