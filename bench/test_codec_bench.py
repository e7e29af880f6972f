"""What one entry costs to encode and to decode; validation included, network not."""

from typing import Final

from pytest_benchmark.fixture import BenchmarkFixture

from probe.reasons import OutcomeKind, Reason
from probe.wire import (
    Phases,
    ReplicaHealthStatus,
    ReplicaId,
    ReplicaProbeTarget,
    decode_status,
    decode_target,
    encode,
)

REPLICA: Final = ReplicaId("0b2b4a52-3c36-4b7e-9a55-0f2d5c3d9e11")
TARGET: Final = ReplicaProbeTarget(
    replica_id=REPLICA,
    replica_host="10.20.30.40",
    inference_port=8000,
    health_path="/health",
    interval_s=1.0,
    deployment="chat",
    generation=3,
)
STATUS: Final = ReplicaHealthStatus(
    replica_id=REPLICA,
    healthy=True,
    outcome=OutcomeKind.PASSED,
    reason=Reason.OK,
    http_status=200,
    latency_ms=1.25,
    phases_ms=Phases(connect=0.5, first_byte=0.6, transfer=0.1),
    consecutive_successes=120,
    last_check=1_800_000_000.25,
    changed_at=1_799_999_000.5,
    prober="prober-1",
    generation=3,
    seq=4321,
)


def test_encode_a_target(benchmark: BenchmarkFixture) -> None:
    benchmark(encode, TARGET)


def test_decode_a_target(benchmark: BenchmarkFixture) -> None:
    assert benchmark(decode_target, encode(TARGET)) == TARGET


def test_encode_a_status(benchmark: BenchmarkFixture) -> None:
    benchmark(encode, STATUS)


def test_decode_a_status(benchmark: BenchmarkFixture) -> None:
    assert benchmark(decode_status, encode(STATUS)) == STATUS
