"""What replies and failures mean, and which targets this version can check."""

import errno
import ssl
from typing import Any

import pytest

from probe.admit import admit
from probe.check import FAULT_REASONS, StatusJudge, printable
from probe.faults import ERRNO_REASONS, OWN_TLS_TROUBLE, VERIFY_REASONS, reason_of
from probe.health import Outcome
from probe.http.policy import ConnectPolicy
from probe.http.request import Step
from probe.http.response import Fault, Reply
from probe.http.roles import Phase
from probe.settings import PRIVATE_RANGES
from probe.wire import (
    DETAIL_MAX_CHARS,
    REASONS,
    HttpCheck,
    OutcomeKind,
    Reason,
    ReplicaId,
    ReplicaProbeTarget,
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
    return judged_by(step, reply)


def judged_by(step: Step, reply: Reply) -> Outcome:
    return JUDGE.replied(step, reply, connect_s=0.1, first_byte_s=0.2, total_s=0.3)


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


def tls_error(reason: str | None, verify_code: int | None = None) -> ssl.SSLError:
    """Build the error as the handshake raises it; its errno 1 would be EPERM elsewhere."""
    error = ssl.SSLError(1, "text") if verify_code is None else ssl.SSLCertVerificationError(1, "x")
    error.reason = reason  # type: ignore[assignment]  # None where OpenSSL has no word for it
    if isinstance(error, ssl.SSLCertVerificationError):
        error.verify_code = verify_code or 0
        error.verify_message = "certificate has expired" if verify_code else ""
    return error


@pytest.mark.parametrize(
    ("error", "reason", "said"),
    [
        (tls_error("CERTIFICATE_VERIFY_FAILED", 9), Reason.TLS_EXPIRED, "certificate has expired"),
        (tls_error("CERTIFICATE_VERIFY_FAILED", 10), Reason.TLS_EXPIRED, "certificate has expired"),
        (tls_error("CERTIFICATE_VERIFY_FAILED", 17), Reason.LOCAL_NETWORK, "certificate has"),
        (tls_error("CERTIFICATE_VERIFY_FAILED", 18), Reason.TLS_CERTIFICATE, "certificate has"),
        (tls_error("CERTIFICATE_VERIFY_FAILED", 62), Reason.TLS_CERTIFICATE, "certificate has"),
        (tls_error("WRONG_VERSION_NUMBER"), Reason.TLS_HANDSHAKE, "wrong version number"),
        (
            tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"),
            Reason.TLS_HANDSHAKE,
            "tlsv13 alert certificate required",
        ),
        (tls_error("MALLOC_FAILURE"), Reason.LOCAL_NETWORK, "malloc failure"),
        (tls_error("NO_PROTOCOLS_AVAILABLE"), Reason.LOCAL_NETWORK, "no protocols available"),
        (ssl.SSLEOFError(8, "EOF"), Reason.TLS_HANDSHAKE, "closed during the handshake"),
        (ssl.SSLZeroReturnError(6, "closed"), Reason.TLS_HANDSHAKE, "closed during the handshake"),
    ],
)
def test_each_failure_of_tls_has_its_reason(error: ssl.SSLError, reason: Reason, said: str) -> None:
    outcome = JUDGE.broke(error, connect_s=0.1, total_s=0.3, tls_s=0.2)
    assert (outcome.reason, outcome.tls_s) == (reason, 0.2)
    assert outcome.detail.startswith(said)


def test_every_other_verify_code_is_about_the_certificate() -> None:
    codes = set(range(1, 100)) - set(VERIFY_REASONS)
    assert {reason_of(tls_error("X", code)) for code in codes} == {Reason.TLS_CERTIFICATE}


@pytest.mark.parametrize("reason", sorted(OWN_TLS_TROUBLE))
def test_trouble_of_our_own_tls_is_never_the_replicas_fault(reason: str) -> None:
    """S1: ignorance is not failure."""
    assert REASONS[reason_of(tls_error(reason))].kind is OutcomeKind.PROBE_ERROR


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Reason.DNS_FAILED, OutcomeKind.FAILED),
        (Reason.DNS_TIMEOUT, OutcomeKind.PROBE_ERROR),
        (Reason.POLICY_DENIED, OutcomeKind.PROBE_ERROR),
    ],
)
def test_each_failure_of_a_name_has_its_reason(fault: Reason, kind: OutcomeKind) -> None:
    outcome = JUDGE.unresolved(fault, "no such\nname", total_s=0.4)
    assert (outcome.reason, outcome.kind) == (fault, kind)
    assert (outcome.detail, outcome.resolve_s, outcome.total_s) == ("no such\\nname", 0.4, 0.4)


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


NEEDED = (HttpCheck(body_contains="ready"),)


@pytest.mark.parametrize(
    ("reply", "reason", "detail"),
    [
        (Reply(200, reusable=True, body=b"all ready"), Reason.OK, ""),
        (
            Reply(200, reusable=True, body=b"not yet"),
            Reason.BODY_MISMATCH,
            "body: expected 'ready' in it, found 7 bytes beginning 'not yet'",
        ),
        (
            Reply(200, reusable=False, fault=Fault.CLOSED, detail="closed after 3 bytes"),
            Reason.RESPONSE_CLOSED,
            "closed after 3 bytes",
        ),
        (
            Reply(200, reusable=False, fault=Fault.TOO_LARGE, detail="body over 64 KiB"),
            Reason.RESPONSE_TOO_LARGE,
            "body over 64 KiB",
        ),
        (
            Reply(503, reusable=False, fault=Fault.CLOSED, detail="closed after 3 bytes"),
            Reason.STATUS_UNEXPECTED,
            "503, not in 200-299",
        ),
    ],
)
def test_status_comes_before_the_body_and_the_body_before_its_content(
    reply: Reply, reason: Reason, detail: str
) -> None:
    outcome = judged(reply, checks=NEEDED)
    assert (outcome.reason, outcome.detail, outcome.http_status) == (reason, detail, reply.status)


def test_open_connection_passes_where_it_is_all_that_is_asked() -> None:
    asked = target(checks="tcp")
    assert admit(asked, POLICY).steps == ()
    outcome = JUDGE.connected(connect_s=0.1, total_s=0.3, tls_s=0.2)
    assert (outcome.kind, outcome.connect_s, outcome.tls_s) == (OutcomeKind.PASSED, 0.1, 0.2)
