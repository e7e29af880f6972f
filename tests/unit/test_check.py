"""What replies and failures mean, and which targets this version can check."""

import errno
from typing import Any

import pytest

from probe.admit import AGENT, admit
from probe.check import FAULT_REASONS, StatusJudge, printable
from probe.errors import MalformedEntry, UnsupportedCheck
from probe.faults import ERRNO_REASONS, reason_of
from probe.health import Outcome
from probe.http.policy import ConnectPolicy
from probe.http.pool import Phase
from probe.http.request import Step
from probe.http.response import Fault, Reply
from probe.scheduler import Check
from probe.settings import PRIVATE_RANGES
from probe.wire import (
    DETAIL_MAX_CHARS,
    REASONS,
    OutcomeKind,
    Reason,
    ReplicaId,
    ReplicaProbeTarget,
    TlsOptions,
)

POLICY = ConnectPolicy.of(PRIVATE_RANGES)
JUDGE = StatusJudge(POLICY)


def target(**fields: Any) -> ReplicaProbeTarget:  # noqa: ANN401 - any field of the contract
    given: dict[str, Any] = {
        "replica_host": "10.0.0.1",
        "inference_port": 8000,
        "health_path": "/health",
    }
    replica_id = ReplicaId("00000000-0000-4000-8000-000000000000")
    return ReplicaProbeTarget(replica_id=replica_id, **given | fields)


def judged(reply: Reply, **fields: Any) -> Outcome:  # noqa: ANN401 - any field of the contract
    """Judge a reply to the only step of a target."""
    asked = target(**fields)
    (step,) = admit(asked, POLICY).steps
    return judged_by(step, reply, asked)


def judged_by(step: Step, reply: Reply, asked: ReplicaProbeTarget) -> Outcome:
    return JUDGE.replied(Check(asked), step, reply, connect_s=0.1, first_byte_s=0.2, total_s=0.3)


EXPECTED_REASONS = {
    "ENOENT": Reason.CONNECT_REFUSED,
    "ECONNREFUSED": Reason.CONNECT_REFUSED,
    "ECONNRESET": Reason.CONNECT_RESET,
    "ECONNABORTED": Reason.CONNECT_RESET,
    "ENETRESET": Reason.CONNECT_RESET,
    "EPIPE": Reason.CONNECT_RESET,
    "ENOTCONN": Reason.CONNECT_RESET,
    "ETIMEDOUT": Reason.CONNECT_TIMEOUT,
    "EHOSTUNREACH": Reason.CONNECT_UNREACHABLE,
    "EHOSTDOWN": Reason.CONNECT_UNREACHABLE,
    "ENETUNREACH": Reason.CONNECT_UNREACHABLE,
    "ENOPROTOOPT": Reason.CONNECT_UNREACHABLE,
    "EMFILE": Reason.LOCAL_FDS,
    "ENFILE": Reason.LOCAL_FDS,
    "EADDRNOTAVAIL": Reason.LOCAL_PORTS,
    "EADDRINUSE": Reason.LOCAL_PORTS,
    "EAGAIN": Reason.LOCAL_NETWORK,
    "ENOBUFS": Reason.LOCAL_NETWORK,
    "ENOMEM": Reason.LOCAL_NETWORK,
    "ENETDOWN": Reason.LOCAL_NETWORK,
    "ENONET": Reason.LOCAL_NETWORK,
    "ENODEV": Reason.LOCAL_NETWORK,
    "EACCES": Reason.LOCAL_NETWORK,
    "EPERM": Reason.LOCAL_NETWORK,
    "EAFNOSUPPORT": Reason.LOCAL_NETWORK,
    "EINVAL": Reason.LOCAL_NETWORK,
}


def test_errno_table_is_covered_row_by_row() -> None:
    assert {errno.errorcode[number] for number in ERRNO_REASONS} == EXPECTED_REASONS.keys()


@pytest.mark.parametrize(("name", "reason"), EXPECTED_REASONS.items())
def test_each_errno_has_its_reason(name: str, reason: Reason) -> None:
    error = OSError(getattr(errno, name), "as the kernel says")
    outcome = JUDGE.broke(error, connect_s=0.1, total_s=0.2)
    assert outcome.reason is reason
    assert outcome.kind is REASONS[reason].kind
    assert name in outcome.detail
    assert (outcome.connect_s, outcome.total_s) == (0.1, 0.2)


@pytest.mark.parametrize("number", sorted(set(errno.errorcode) - set(ERRNO_REASONS)))
def test_any_other_errno_is_never_the_replicas_fault(number: int) -> None:
    """S1: ignorance is not failure."""
    assert REASONS[reason_of(OSError(number, "odd"))].kind is OutcomeKind.PROBE_ERROR


@pytest.mark.parametrize("error", [OSError("no number"), RuntimeError("closed"), ValueError()])
def test_error_without_errno_is_never_the_replicas_fault(error: Exception) -> None:
    outcome = JUDGE.broke(error, connect_s=0.0, total_s=0.0)
    assert outcome.kind is OutcomeKind.PROBE_ERROR


@pytest.mark.parametrize(
    ("status", "expected", "reason"),
    [
        (200, "200-299", Reason.OK),
        (204, "200-299", Reason.OK),
        (204, "200", Reason.STATUS_UNEXPECTED),
        (301, "200-299", Reason.REDIRECT_REFUSED),
        (304, "200-299", Reason.REDIRECT_REFUSED),
        (301, "200,301", Reason.OK),
        (401, "200-299", Reason.AUTH_REJECTED),
        (403, "200-299", Reason.AUTH_REJECTED),
        (401, "401", Reason.OK),
        (404, "200-299", Reason.STATUS_UNEXPECTED),
        (101, "200-299", Reason.STATUS_UNEXPECTED),
        (500, "200-299", Reason.STATUS_UNEXPECTED),
        (503, "200-299", Reason.STATUS_UNEXPECTED),
        (999, "200-299", Reason.STATUS_UNEXPECTED),
    ],
)
def test_status_is_judged_by_what_the_target_expects(
    status: int, expected: str, reason: Reason
) -> None:
    reply = Reply(status, reusable=True)
    outcome = judged(reply, expected_status=expected)
    assert outcome.reason is reason
    assert outcome.kind is REASONS[reason].kind
    assert outcome.http_status == status
    assert outcome.detail == ("" if reason is Reason.OK else f"{status}, not in {expected}")
    assert (outcome.connect_s, outcome.first_byte_s, outcome.total_s) == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("fault", Fault)
def test_each_fault_of_a_reply_has_its_reason(fault: Fault) -> None:
    reply = Reply(0, reusable=False, fault=fault, detail="begins \x1b[31m")
    outcome = judged(reply)
    assert outcome.reason is FAULT_REASONS[fault]
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.detail == "begins \\x1b[31m"


@pytest.mark.parametrize(
    ("phase", "received", "reason", "detail"),
    [
        ("resolve", 0, Reason.DNS_TIMEOUT, "no answer about the name within 1.0 s"),
        ("connect", 0, Reason.CONNECT_TIMEOUT, "no connection within 1.0 s"),
        ("tls", 0, Reason.TLS_HANDSHAKE, "no complete handshake within 1.0 s"),
        ("reply", 0, Reason.RESPONSE_TIMEOUT, "no byte of a reply within 1.0 s"),
        ("reply", 37, Reason.RESPONSE_TIMEOUT, "reply incomplete after 1.0 s, 37 bytes"),
    ],
)
def test_deadline_says_what_it_found_the_probe_doing(
    phase: Phase, received: int, reason: Reason, detail: str
) -> None:
    outcome = JUDGE.late(phase=phase, received=received, limit_s=1.0)
    assert (outcome.reason, outcome.detail, outcome.total_s) == (reason, detail, 1.0)


def test_prober_without_connections_left_blames_itself() -> None:
    outcome = JUDGE.crowded(1024)
    assert outcome.kind is OutcomeKind.PROBE_ERROR
    assert outcome.detail == "1024 connections are open, as many as this prober may hold"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("tab\tand\nline", "tab\\tand\\nline"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\u202eright to left", "\\u202eright to left"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 197 + "..."),
        ("\n" * 200, "\\n" * 98 + "\\..."),
    ],
)
def test_outside_text_is_escaped_and_cut(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert len(expected) <= DETAIL_MAX_CHARS


def test_admitted_target_is_ready_to_be_asked() -> None:
    prepared = admit(target(), POLICY)
    assert (str(prepared.place), prepared.port, prepared.steps[0].head_only) == (
        "10.0.0.1",
        8000,
        False,
    )
    assert prepared.refusal is None
    assert prepared.steps[0].request.startswith(b"GET /health HTTP/1.1\r\nHost: 10.0.0.1:8000\r\n")
    assert f"User-Agent: {AGENT}\r\n".encode() in prepared.steps[0].request


def test_admitted_target_may_name_its_host_and_method() -> None:
    prepared = admit(target(host_header="llm.example", method="HEAD"), POLICY)
    assert prepared.steps[0].head_only
    assert prepared.steps[0].request.startswith(b"HEAD /health HTTP/1.1\r\nHost: llm.example\r\n")


def test_ipv6_is_dialled_in_canonical_form() -> None:
    prepared = admit(target(replica_host="FD00:0::1"), POLICY)
    assert str(prepared.place) == "fd00::1"
    assert b"Host: [fd00::1]:8000\r\n" in prepared.steps[0].request


def test_address_outside_the_policy_is_kept_with_its_refusal() -> None:
    prepared = admit(target(replica_host="127.0.0.1"), POLICY)
    assert prepared.refusal is not None
    assert "--allow 127.0.0.1" in prepared.refusal


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"checks": "vlm"}, "checks: 'vlm' is not known, did you mean 'vllm'?; there are http, "),
        ({"checks": ("http", "grpc")}, "checks: 'grpc' is not known"),
        ({"checks": ()}, "checks: the list is empty"),
        ({"checks": "\x1b[31m"}, r"checks: '\x1b[31m'"),
        ({"checks": "x" * 100_000}, "is not known"),
        ({"scheme": "https"}, "scheme: 'https' cannot be spoken: this prober has no TLS"),
        ({"tls": TlsOptions()}, "tls: is set, but scheme is 'http'"),
        ({"headers": {"X-Key": "env:TOKEN"}}, "headers: 'X-Key' cannot be sent"),
        ({"replica_host": "replica_1.internal"}, "is not a host name"),
        ({"replica_host": "127.1"}, "'127.1' is not a canonical IP address"),
    ],
)
def test_target_beyond_this_prober_is_refused_by_the_name_of_the_field(
    fields: dict[str, Any], names: str
) -> None:
    with pytest.raises(UnsupportedCheck) as refused:
        admit(target(**fields), POLICY)
    assert names in str(refused.value)
    assert "\x1b" not in str(refused.value)


def test_checks_may_be_a_list_of_the_one_we_have() -> None:
    assert admit(target(checks=("http",)), POLICY).port == 8000


def test_target_that_cannot_be_sent_is_malformed() -> None:
    with pytest.raises(MalformedEntry, match="path"):
        admit(target(health_path="/a\r\nX: y"), POLICY)
