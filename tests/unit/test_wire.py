"""The contract on the bus: what is written, what is read, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from probe.errors import MalformedEntry, UnknownVersion
from probe.wire import (
    PARTITIONS,
    REASONS,
    STATUS_TTL_FLOOR_S,
    TARGET_TTL_S,
    Keys,
    OutcomeKind,
    Phases,
    ProberHeartbeat,
    Reason,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    StatusSet,
    TlsOptions,
    decode_heartbeat,
    decode_status,
    decode_target,
    encode,
    partition_of,
    status_ttl_s,
)

GOLDEN = Path(__file__).parent / "golden"
ID = ReplicaId("6f1c2d3e-0000-4000-8000-00000000002a")

TARGETS = {
    "target_minimal": ReplicaProbeTarget(
        replica_id=ID, replica_host="10.1.2.3", inference_port=8000, health_path="/health"
    ),
    "target_full": ReplicaProbeTarget(
        replica_id=ID,
        replica_host="10.1.2.3",
        inference_port=8443,
        health_path="/v1/health/ready",
        scheme="https",
        method="HEAD",
        interval_s=2.5,
        timeout_s=7.0,
        connect_timeout_s=1.5,
        expected_status="200,204,300-302",
        max_retries=4,
        healthy_threshold=3,
        checks=("http", "vllm"),
        host_header="model.example:8443",
        headers={"Authorization": "env:PROBE_TOKEN"},
        tls=TlsOptions(verify=False, ca_file="/etc/ca.pem", server_name="model.example"),
        http2=True,
        deployment="chat",
        generation=7,
    ),
}
STATUS = ReplicaHealthStatus(
    replica_id=ID,
    healthy=False,
    outcome=OutcomeKind.FAILED,
    reason=Reason.STATUS_UNEXPECTED,
    detail="503 Service Unavailable",
    http_status=503,
    latency_ms=1.25,
    phases_ms=Phases(connect=0.5, first_byte=0.75),
    consecutive_failures=3,
    last_check=1763700000.5,
    changed_at=1763699990.25,
    prober="host-1",
    generation=7,
    seq=42,
)
HEARTBEAT = ProberHeartbeat(
    instance="host-1",
    partitions=(0, 1, 63),
    targets=500,
    probes_per_second=499.5,
    loop_lag_ms=0.5,
    version="0.1.0",
    started_at=1763699000.0,
    at=1763700000.0,
)


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes().rstrip(b"\n")


def edited(name: str, **changes: object) -> bytes:
    return json.dumps(json.loads(golden(name)) | changes).encode()


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_written_as_the_stored_bytes_and_read_back_from_them(name: str) -> None:
    """R-43: the bytes of version 1 are frozen; a change of them is a change of the version."""
    assert encode(TARGETS[name]) == golden(name)
    assert decode_target(golden(name)) == TARGETS[name]


def test_a_status_is_written_as_the_stored_bytes_and_read_back_from_them() -> None:
    assert encode(STATUS) == golden("status")
    assert decode_status(golden("status")) == STATUS


def test_a_heartbeat_is_written_as_the_stored_bytes_and_read_back_from_them() -> None:
    assert encode(HEARTBEAT) == golden("heartbeat")
    assert decode_heartbeat(golden("heartbeat")) == HEARTBEAT


def test_a_heartbeat_of_an_older_prober_is_that_of_a_well_one() -> None:
    early = json.loads(golden("heartbeat"))
    for later in ("sick", "error_ratio", "interval_stretch", "shard"):
        del early[later]
    assert decode_heartbeat(json.dumps(early)) == HEARTBEAT


def test_a_field_of_a_newer_writer_is_ignored() -> None:
    assert decode_target(edited("target_minimal", colour="blue")) == TARGETS["target_minimal"]
    assert decode_status(edited("status", colour="blue")) == STATUS
    assert decode_heartbeat(edited("heartbeat", colour="blue")) == HEARTBEAT


@pytest.mark.parametrize(
    ("decode", "name"),
    [(decode_target, "target_full"), (decode_status, "status"), (decode_heartbeat, "heartbeat")],
)
def test_another_version_is_told_apart_from_a_malformed_entry(
    decode: Callable[[bytes], object], name: str
) -> None:
    """R-43."""
    with pytest.raises(UnknownVersion, match=r"version 2; this program speaks 1"):
        decode(edited(name, v=2))
    with pytest.raises(UnknownVersion, match="version 2"):
        decode(b'{"v":2,"all":"else is different"}')
    with pytest.raises(MalformedEntry):
        decode(b'{"v":1}')


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("replica_id", "not-a-uuid"),
        ("replica_id", ID.upper()),
        ("replica_id", ID + "\n"),
        ("replica_host", "a b"),
        ("replica_host", ""),
        ("replica_host", "x" * (1 << 20)),
        ("inference_port", 0),
        ("inference_port", 65536),
        ("inference_port", 2**70),
        ("health_path", "health"),
        ("health_path", "/a b"),
        ("health_path", "/health\r\nX-Evil: 1"),
        ("health_path", "/health\n"),
        ("health_path", "/" + "a" * 2048),
        ("interval_s", 0),
        ("interval_s", 1201),
        ("timeout_s", -1),
        ("expected_status", "ok"),
        ("expected_status", "300-200"),
        ("expected_status", "99"),
        ("expected_status", ""),
        ("max_retries", 0),
        ("healthy_threshold", 0),
        ("method", "POST"),
        ("scheme", "gopher"),
        ("headers", {"X Y": "env:A"}),
        ("host_header", "a\r\nb"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_field(field: str, value: object) -> None:
    with pytest.raises(MalformedEntry, match=field):
        decode_target(edited("target_minimal", **{field: value}))


@pytest.mark.parametrize("data", [b"", b"nonsense", b"[]", b"\xff\xfe", b"null", b'{"v":"1"}'])
def test_what_is_no_entry_is_refused(data: bytes) -> None:
    for decode in (decode_target, decode_status, decode_heartbeat):
        with pytest.raises(MalformedEntry):
            decode(data)


def test_every_reason_has_a_row_and_only_the_own_faults_are_no_evidence() -> None:
    """S1: the prober's own faults never count against a replica."""
    assert set(REASONS) == set(Reason)
    errors = {r for r, entry in REASONS.items() if entry.kind is OutcomeKind.PROBE_ERROR}
    local = {r for r in Reason if r.startswith("LOCAL_")}
    assert errors == local | {Reason.DNS_TIMEOUT, Reason.POLICY_DENIED}
    assert [r for r, entry in REASONS.items() if entry.kind is OutcomeKind.PASSED] == [Reason.OK]


def test_a_prefix_goes_before_every_key() -> None:
    keys = Keys("blue:")
    names = [
        keys.versions,
        keys.changes,
        keys.epoch,
        keys.probers,
        keys.partitions,
        keys.target(ID),
        keys.status(ID),
        keys.index(3),
        keys.heartbeat("host-1"),
    ]
    assert all(name.startswith("blue:") for name in names)
    assert [n.removeprefix("blue:") for n in names] == [
        "route_probe_versions",
        "route_health_changes",
        "bus_epoch",
        "probers",
        "route_probe_partitions",
        f"route_probe:{ID}",
        f"route_health:{ID}",
        "route_probe_index:3",
        "prober:host-1",
    ]


def test_partitions_spread_a_fleet_evenly() -> None:
    counts = [0] * PARTITIONS
    for n in range(64_000):
        counts[partition_of(ReplicaId(f"00000000-0000-4000-8000-{n:012x}"))] += 1
    assert min(counts) > 800
    assert max(counts) < 1200


def test_a_status_outlives_three_intervals_and_never_less_than_the_floor() -> None:
    """R-45: times to live are named constants."""
    assert TARGET_TTL_S == 3600
    assert STATUS_TTL_FLOOR_S == 120
    assert status_ttl_s(1.0) == 120
    assert status_ttl_s(1200.0) == 3600


def test_a_status_set_knows_codes_and_ranges() -> None:
    codes = StatusSet("200-204, 301")
    assert [c for c in range(100, 600) if c in codes] == [200, 201, 202, 203, 204, 301]
