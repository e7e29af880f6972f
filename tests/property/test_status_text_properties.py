"""The template of a status says what the struct of the contract says, for any check."""

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from probe.health import Outcome, ended
from probe.reasons import Reason
from probe.report import phases_of
from probe.schedule.watch import Check
from probe.status_text import StatusText
from probe.wire import (
    DETAIL_MAX_CHARS,
    Keys,
    ReplicaHealthStatus,
    decode_status,
    encode,
)
from tests.fakes.entries import replica, target

durations = st.floats(min_value=0, max_value=600) | st.just(0.0)
times = st.floats(min_value=0, max_value=1e7)
counts = st.integers(min_value=0, max_value=10**12)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    parts = {name: draw(durations) for name in ("resolve_s", "connect_s", "tls_s", "first_byte_s")}
    return ended(
        draw(st.sampled_from(Reason)),
        detail=draw(text | st.just("")),
        http_status=draw(st.integers(min_value=0, max_value=999)),
        total_s=sum(parts.values()) + draw(durations),
        **parts,
    )


@st.composite
def checks(draw: st.DrawFn) -> Check:
    check = Check(target(draw(st.integers(min_value=0, max_value=1000)), generation=draw(counts)))
    check.healthy = draw(st.booleans())
    check.failures, check.successes = draw(counts), draw(counts)
    check.seq = draw(counts)
    check.evidence_at = draw(st.none() | times)
    check.changed_at = draw(st.none() | times)
    check.due_at = draw(times)
    check.started_at = check.due_at + draw(durations)
    return check


def status_of(check: Check, outcome: Outcome, *, offset_s: float) -> ReplicaHealthStatus:
    """Say in the contract's own words what the template says in text."""

    def bus_time(at: float | None) -> float:
        return 0.0 if at is None else int((at + offset_s) * 1e3) / 1e3

    slot_wait = int((check.started_at - check.due_at) * 1e6) / 1e3
    return ReplicaHealthStatus(
        replica_id=check.replica_id,
        healthy=check.streak.healthy,
        outcome=outcome.kind,
        reason=outcome.reason,
        detail=outcome.detail[:DETAIL_MAX_CHARS],
        http_status=outcome.http_status,
        latency_ms=int(outcome.total_s * 1e6) / 1e3,
        phases_ms=msgspec.structs.replace(phases_of(outcome), slot_wait=slot_wait),
        consecutive_failures=check.streak.consecutive_failures,
        consecutive_successes=check.streak.consecutive_successes,
        last_check=bus_time(check.evidence_at),
        changed_at=bus_time(check.changed_at),
        prober="p-1",
        generation=check.generation,
        seq=check.seq,
    )


def unpacked(entry: str) -> tuple[str, bytes]:
    """Read two bulk strings of the protocol back, by their lengths in bytes."""
    parts: list[bytes] = []
    rest = entry.encode()
    while rest:
        length, rest = rest[1:].split(b"\r\n", 1)
        parts.append(rest[: int(length)])
        assert rest[int(length) :].startswith(b"\r\n")
        rest = rest[int(length) + 2 :]
    key, value = parts
    return key.decode(), value


@given(checks(), outcomes(), times, st.sampled_from(["", "blue:", "größe:"]))
@example(Check(target(1)), ended(Reason.OK), 1.7e9, "")
def test_the_template_says_what_the_contract_s_struct_says(
    check: Check, outcome: Outcome, offset_s: float, prefix: str
) -> None:
    keys = Keys(prefix)
    key, value = unpacked(StatusText(keys, prober="p-1").entry(check, outcome, offset_s))
    expected = status_of(check, outcome, offset_s=offset_s)
    assert key == keys.status(check.replica_id)
    assert value.isascii()
    assert decode_status(value) == decode_status(encode(expected)) == expected


def test_no_field_of_the_contract_is_left_out() -> None:
    entry = StatusText(Keys(), prober="p-1").entry(Check(target(1)), ended(Reason.OK), 0.0)
    fields = msgspec.json.decode(unpacked(entry)[1]).keys()
    assert fields == {"v", *ReplicaHealthStatus.__struct_fields__}


def test_a_detail_is_cut_and_cannot_break_out_of_its_quotes() -> None:
    check, detail = Check(target(1)), '","healthy":true\r\n$3\r\n' + "\\x" * 200
    entry = StatusText(Keys(), prober="p-1").entry(
        check, ended(Reason.CONNECT_REFUSED, detail=detail), 0.0
    )
    status = decode_status(unpacked(entry)[1])
    assert status.replica_id == replica(1)
    assert status.detail == detail[:DETAIL_MAX_CHARS]
    assert not status.healthy
