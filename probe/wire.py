"""The contract on the bus, version 1: what is written, under which key, for how long.

Both daemons speak only through these types and keys; nothing else is shared between them.
Reading is liberal (unknown fields are ignored), writing is strict, and an entry that cannot be
used raises a `WireError` naming the field, so that its reader can skip and count it.

Times on the wire are seconds of the bus's own clock (`TIME`), never of a process.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal, NewType, TypeVar
from zlib import crc32

import msgspec

from probe.errors import MalformedEntry, UnknownVersion, WireError
from probe.reasons import REASONS, Layer, OutcomeKind, Reason, ReasonEntry
from probe.specs import (
    STATUS_MAX,
    STATUS_MIN,
    Checks,
    CheckSpec,
    HeaderName,
    HttpCheck,
    JsonExpectation,
    Method,
    Path,
    StatusSet,
    StatusText,
    TcpCheck,
    TlsOptions,
    status_set,
)

__all__ = [
    "CHANGES_MAX_LENGTH",
    "DETAIL_MAX_CHARS",
    "HEARTBEAT_TTL_S",
    "INTERVAL_MAX_S",
    "PARTITIONS",
    "REASONS",
    "SCHEMA_VERSION",
    "STATUS_MAX",
    "STATUS_MIN",
    "STATUS_TTL_FLOOR_S",
    "TARGET_TTL_S",
    "CheckSpec",
    "Checks",
    "HealthChange",
    "HttpCheck",
    "JsonExpectation",
    "Keys",
    "Layer",
    "Method",
    "OutcomeKind",
    "Phases",
    "ProberHeartbeat",
    "Reason",
    "ReasonEntry",
    "ReplicaHealthStatus",
    "ReplicaId",
    "ReplicaProbeTarget",
    "StatusSet",
    "TcpCheck",
    "TlsOptions",
    "decode_heartbeat",
    "decode_status",
    "decode_target",
    "encode",
    "partition_of",
    "partitions_moved",
    "status_set",
    "status_ttl_s",
]

SCHEMA_VERSION: Final = 1
PARTITIONS: Final = 64

TARGET_TTL_S: Final = 3600
"""A target outlives a controller restart by an hour (R-45)."""
STATUS_TTL_FLOOR_S: Final = 120
"""Below this a slow prober would look like a dead one."""
HEARTBEAT_TTL_S: Final = 15
"""Three missed heartbeats of 5 s."""
CHANGES_MAX_LENGTH: Final = 100_000
DETAIL_MAX_CHARS: Final = 200
INTERVAL_MAX_S: Final = 1200
"""A third of the target's TTL, so that a target is visited before it expires."""

ReplicaId = NewType("ReplicaId", str)
"""A UUID in canonical lower case; the same id is `route_id` in the controller's database."""

_UUID = r"\A[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z"
_HOST = r"\A([0-9A-Za-z._:-]{1,253}|unix:/[!-~]{1,100})\Z"
_AUTHORITY = r"\A[0-9A-Za-z._:\[\]-]{1,255}\Z"


_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class ReplicaProbeTarget(
    msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="v", tag=SCHEMA_VERSION
):
    """What the prober needs to check one replica.

    Written by the controller to `route_probe:{replica_id}` with `TARGET_TTL_S`.
    `headers` maps names to references (`probe.references`) that the prober resolves:
    a secret's value never travels on the bus.
    """

    replica_id: Annotated[ReplicaId, msgspec.Meta(pattern=_UUID)]
    replica_host: Annotated[str, msgspec.Meta(pattern=_HOST)]
    inference_port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    health_path: Path
    scheme: Literal["http", "https"] = "http"
    method: Method = "GET"
    interval_s: Annotated[float, msgspec.Meta(ge=0.1, le=INTERVAL_MAX_S)] = 10.0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 15.0
    connect_timeout_s: _Seconds = 5.0
    expected_status: StatusText = "200-299"
    max_retries: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    healthy_threshold: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    checks: Checks = "http"
    host_header: Annotated[str, msgspec.Meta(pattern=_AUTHORITY)] | None = None
    headers: dict[HeaderName, str] = msgspec.field(default_factory=dict)
    tls: TlsOptions | None = None
    http2: bool = False
    deployment: Annotated[str, msgspec.Meta(max_length=128)] = ""
    generation: int = 0


class Phases(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Where the time of one probe went, in milliseconds; 0 where a phase did not happen."""

    slot_wait: float = 0.0
    resolve: float = 0.0
    connect: float = 0.0
    tls: float = 0.0
    first_byte: float = 0.0
    transfer: float = 0.0


class ReplicaHealthStatus(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="v", tag=SCHEMA_VERSION
):
    """What the prober found about one replica.

    Written by the prober to `route_health:{replica_id}` with `status_ttl_s(interval_s)`.
    `healthy` is the verdict after thresholds; `outcome` and `reason` tell of the last probe
    alone. `seq` grows with every write: a status whose `seq` stands still is stale, whatever
    its time to live says.
    """

    replica_id: ReplicaId
    healthy: bool
    outcome: OutcomeKind
    reason: Reason
    detail: str = ""
    http_status: int = 0
    latency_ms: float = 0.0
    phases_ms: Phases = Phases()
    consecutive_failures: int = 0
    consecutive_successes: int = 0
    last_check: float = 0.0
    changed_at: float = 0.0
    prober: str = ""
    generation: int = 0
    seq: int = 0


class ProberHeartbeat(msgspec.Struct, frozen=True, kw_only=True, tag_field="v", tag=SCHEMA_VERSION):
    """What one prober says of itself every 5 s, with `HEARTBEAT_TTL_S`.

    `partitions` lists what it owns; the controller reads a missing status as DEGRADED only
    where a living prober covers the replica's partition. `sick` says in one sentence why it does
    not trust itself: then it owns nothing. `error_ratio` is the share of its probes since the
    last heartbeat that were its own fault, `interval_stretch` by how much it lengthens intervals.
    One with a fixed `shard` shares nothing out with the others.
    """

    instance: str
    partitions: tuple[int, ...]
    targets: int
    probes_per_second: float
    loop_lag_ms: float
    version: str
    started_at: float
    at: float
    sick: str = ""
    error_ratio: float = 0.0
    interval_stretch: float = 1.0
    shard: str = ""


class HealthChange(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict change, as a stream entry: wakes the controller's classification."""

    replica_id: ReplicaId
    healthy: bool
    reason: Reason
    seq: int = 0


class Keys:
    """The names of our keys on one bus.

    >>> Keys("blue:").target(ReplicaId("r"))
    'blue:route_probe:r'
    """

    __slots__ = ("changes", "epoch", "partitions", "prefix", "probers", "versions")

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.versions = f"{prefix}route_probe_versions"
        self.changes = f"{prefix}route_health_changes"
        self.epoch = f"{prefix}bus_epoch"
        self.probers = f"{prefix}probers"
        self.partitions = f"{prefix}route_probe_partitions"

    def target(self, replica_id: ReplicaId) -> str:
        """Name the target of one replica."""
        return f"{self.prefix}route_probe:{replica_id}"

    def status(self, replica_id: ReplicaId) -> str:
        """Name the status of one replica."""
        return f"{self.prefix}route_health:{replica_id}"

    def index(self, partition: int) -> str:
        """Name the sorted set of one partition's targets, scored by expiry (bus seconds)."""
        return f"{self.prefix}route_probe_index:{partition}"

    def heartbeat(self, instance: str) -> str:
        """Name the heartbeat of one prober."""
        return f"{self.prefix}prober:{instance}"


def partition_of(replica_id: ReplicaId) -> int:
    """Return the partition of a replica, 0 to 63, the same on every machine.

    >>> partition_of(ReplicaId("00000000-0000-4000-8000-000000000000"))
    23
    """
    return crc32(replica_id.encode()) % PARTITIONS


def status_ttl_s(interval_s: float) -> int:
    """Return how long a status may live: three missed probes, at least 120 s.

    >>> status_ttl_s(10.0), status_ttl_s(100.0)
    (120, 300)
    """
    return max(STATUS_TTL_FLOOR_S, int(3 * interval_s))


class _Versioned(msgspec.Struct):
    v: int = SCHEMA_VERSION


_target_decoder = msgspec.json.Decoder(ReplicaProbeTarget)
_status_decoder = msgspec.json.Decoder(ReplicaHealthStatus)
_heartbeat_decoder = msgspec.json.Decoder(ProberHeartbeat)
_version_decoder = msgspec.json.Decoder(_Versioned)
_encoder = msgspec.json.Encoder()

encode = _encoder.encode
"""Encode any of the contract's structs as compact JSON; fields keep their declared order."""

_Entry = TypeVar("_Entry")


def _decode(decoder: msgspec.json.Decoder[_Entry], data: bytes | str, what: str) -> _Entry:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _explain(data, error, what) from error


def _explain(data: bytes | str, error: Exception, what: str) -> WireError:
    """Tell an unknown version from a malformed entry, whatever else is wrong with it."""
    try:
        version = _version_decoder.decode(data).v
    except (msgspec.MsgspecError, UnicodeDecodeError):
        version = SCHEMA_VERSION
    if version != SCHEMA_VERSION:
        return UnknownVersion(f"{what} has version {version}; this program speaks {SCHEMA_VERSION}")
    return MalformedEntry(f"{what} cannot be used: {error}")


def decode_target(data: bytes | str) -> ReplicaProbeTarget:
    """Decode one target.

    Raises:
        MalformedEntry: if it is not JSON, lacks a field or holds a value out of range.
        UnknownVersion: if it is of another schema version.
    """
    target = _decode(_target_decoder, data, "the probe target")
    status_set(target.expected_status)
    return target


def decode_status(data: bytes | str) -> ReplicaHealthStatus:
    """Decode one status; raises as `decode_target` does."""
    return _decode(_status_decoder, data, "the health status")


def decode_heartbeat(data: bytes | str) -> ProberHeartbeat:
    """Decode one heartbeat; raises as `decode_target` does."""
    return _decode(_heartbeat_decoder, data, "the heartbeat")


def partitions_moved(
    known: Mapping[int, int], current: Mapping[int, int], owned: Iterable[int]
) -> list[int]:
    """Return the owned partitions whose version differs from the one known, in order.

    >>> partitions_moved({0: 4, 1: 7}, {0: 4, 1: 8, 2: 1}, [0, 1, 2, 3])
    [1, 2]
    """
    return [p for p in sorted(owned) if current.get(p) is not None and current[p] != known.get(p)]
