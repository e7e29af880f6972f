"""What a reply or a failure means: the only place where they become reasons.

Called by the pool with what happened, and when targets are loaded to tell whether this version
can check them. A failure of our own machine must never be read as the replica's: what the errno
table does not know is a fault of the prober, and moves no counter.
"""

import errno
import os
from collections.abc import Mapping
from importlib.metadata import version
from types import MappingProxyType
from typing import Final

from probe.errors import UnsupportedCheck
from probe.health import Outcome, ended
from probe.http.policy import ConnectPolicy, UnixPath, parse_place
from probe.http.request import Prepared, Step, authority, encode_request
from probe.http.response import Fault, Reply
from probe.scheduler import Check
from probe.wire import DETAIL_MAX_CHARS, OutcomeKind, Reason, ReplicaProbeTarget, status_set

AGENT: Final = f"fleetpulse/{version('fleetpulse')}"
SUPPORTED_CHECK: Final = "http"

ERRNO_REASONS: Final[Mapping[int, Reason]] = MappingProxyType(
    {
        errno.ECONNREFUSED: Reason.CONNECT_REFUSED,
        errno.ECONNRESET: Reason.CONNECT_RESET,
        errno.ECONNABORTED: Reason.CONNECT_RESET,
        errno.ENETRESET: Reason.CONNECT_RESET,
        errno.EPIPE: Reason.CONNECT_RESET,
        errno.ENOTCONN: Reason.CONNECT_RESET,  # reset between the accept and our first look
        errno.ETIMEDOUT: Reason.CONNECT_TIMEOUT,
        errno.EHOSTUNREACH: Reason.CONNECT_UNREACHABLE,
        errno.EHOSTDOWN: Reason.CONNECT_UNREACHABLE,
        errno.ENETUNREACH: Reason.CONNECT_UNREACHABLE,
        errno.ENOPROTOOPT: Reason.CONNECT_UNREACHABLE,  # ICMP: protocol unreachable
        errno.EMFILE: Reason.LOCAL_FDS,
        errno.ENFILE: Reason.LOCAL_FDS,
        errno.EADDRNOTAVAIL: Reason.LOCAL_PORTS,
        errno.EADDRINUSE: Reason.LOCAL_PORTS,
        errno.ENOBUFS: Reason.LOCAL_NETWORK,
        errno.ENOMEM: Reason.LOCAL_NETWORK,
        errno.ENETDOWN: Reason.LOCAL_NETWORK,
        errno.ENONET: Reason.LOCAL_NETWORK,
        errno.EAGAIN: Reason.LOCAL_NETWORK,  # connect(2): no room in the routing cache
        errno.ENODEV: Reason.LOCAL_NETWORK,
        errno.EACCES: Reason.LOCAL_NETWORK,  # a firewall of this host, or a broadcast address
        errno.EPERM: Reason.LOCAL_NETWORK,
        errno.EAFNOSUPPORT: Reason.LOCAL_NETWORK,  # IPv6 is switched off here
        errno.EINVAL: Reason.LOCAL_NETWORK,
    }
)
UNKNOWN_ERROR: Final = Reason.LOCAL_NETWORK

FAULT_REASONS: Final[Mapping[Fault, Reason]] = MappingProxyType(
    {
        Fault.MALFORMED: Reason.RESPONSE_MALFORMED,
        Fault.TOO_LARGE: Reason.RESPONSE_TOO_LARGE,
        Fault.CLOSED: Reason.RESPONSE_CLOSED,
    }
)
_REDIRECTS: Final = range(300, 400)
_CREDENTIALS: Final = frozenset({401, 403})
_PASSED: Final = OutcomeKind.PASSED
_OK: Final = Reason.OK


def admit(target: ReplicaProbeTarget, policy: ConnectPolicy) -> Prepared:
    """Prepare all of a target that does not change from probe to probe.

    An address that the policy refuses is not an error: the target is kept, and each of its
    probes ends as POLICY_DENIED, so that its owner reads why.

    Raises:
        UnsupportedCheck: if it asks for a check that this version does not have; names the field.
        MalformedEntry: if a part of it cannot be sent.
    """
    _refuse_unsupported(target)
    place = parse_place(target.replica_host)
    host = "localhost" if isinstance(place, UnixPath) else str(place)
    host_header = target.host_header or authority(host, target.inference_port)
    request = encode_request(
        target.method, target.health_path, host_header=host_header, agent=AGENT
    )
    step = Step(request, target.method == "HEAD", status_set(target.expected_status))
    return Prepared(
        place=place,
        port=target.inference_port,
        steps=(step,),
        refusal=policy.refusal(place, target.inference_port),
    )


def _refuse_unsupported(target: ReplicaProbeTarget) -> None:
    checks = (target.checks,) if isinstance(target.checks, str) else target.checks
    if checks != (SUPPORTED_CHECK,):
        asked = ", ".join(map(ascii, checks)) or "none"
        raise UnsupportedCheck(f"checks: {asked[:80]} is not known; this version supports 'http'")
    if target.scheme != "http":
        raise UnsupportedCheck(f"scheme: {target.scheme!r} is not supported yet; use 'http'")
    if target.tls is not None:
        raise UnsupportedCheck("tls: is not supported yet; leave it out, and use scheme 'http'")
    if target.http2:
        raise UnsupportedCheck("http2: is not supported yet; this version speaks HTTP/1.1")
    if target.headers:
        names = ", ".join(sorted(target.headers))
        raise UnsupportedCheck(f"headers: {names[:80]} cannot be sent yet; leave headers out")


def reason_of(error: BaseException) -> Reason:
    """Return the reason of a failed dial or connection; the prober's own where it is unknown."""
    number = error.errno if isinstance(error, OSError) else None
    return UNKNOWN_ERROR if number is None else ERRNO_REASONS.get(number, UNKNOWN_ERROR)


def reason_of_status(status: int) -> Reason:
    """Return the reason of a status that is not expected."""
    if status in _REDIRECTS:
        return Reason.REDIRECT_REFUSED
    return Reason.AUTH_REJECTED if status in _CREDENTIALS else Reason.STATUS_UNEXPECTED


def printable(text: str) -> str:
    r"""Return `text` fit for a log line and a status: visible ASCII only, cut to 200 characters.

    >>> printable("caf\xe9 ends\n")
    'caf\\xe9 ends\\n'
    """
    escaped = text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
    return escaped if len(escaped) <= DETAIL_MAX_CHARS else escaped[: DETAIL_MAX_CHARS - 3] + "..."


class StatusJudge:
    """Judges by status alone; implements `probe.http.pool.Judge`."""

    __slots__ = ("policy",)

    def __init__(self, policy: ConnectPolicy) -> None:
        self.policy = policy

    def admit(self, target: ReplicaProbeTarget) -> Prepared:
        """Prepare a target; raises as the function `admit` does."""
        return admit(target, self.policy)

    def replied(
        self,
        check: Check,
        reply: Reply,
        *,
        connect_s: float,
        first_byte_s: float,
        total_s: float,
    ) -> Outcome:
        """Judge a reply: its status if it has one, else what is wrong with it."""
        status = reply.status
        if status in check.expected.codes:
            return Outcome(_PASSED, _OK, status, "", connect_s, first_byte_s, total_s)
        if reply.fault is not None:
            reason, detail = FAULT_REASONS[reply.fault], reply.detail
        else:
            reason, detail = reason_of_status(status), f"{status}, not in {check.expected.text}"
        return ended(
            reason,
            detail=printable(detail),
            http_status=status,
            connect_s=connect_s,
            first_byte_s=first_byte_s,
            total_s=total_s,
        )

    def broke(self, error: BaseException, *, connect_s: float, total_s: float) -> Outcome:
        """Judge a failed dial or connection by its errno."""
        number = error.errno if isinstance(error, OSError) else None
        name = errno.errorcode.get(number, "") if number is not None else type(error).__name__
        text = os.strerror(number) if number is not None else str(error)
        detail = printable(f"{text} ({name})" if name else text)
        return ended(reason_of(error), detail=detail, connect_s=connect_s, total_s=total_s)

    def late(self, *, connected: bool, received: int, limit_s: float) -> Outcome:
        """Judge a deadline: a hang reads differently from bytes that come too slowly."""
        if not connected:
            reason, detail = Reason.CONNECT_TIMEOUT, f"no connection within {limit_s:.1f} s"
        elif received == 0:
            reason, detail = Reason.RESPONSE_TIMEOUT, f"no byte of a reply within {limit_s:.1f} s"
        else:
            reason = Reason.RESPONSE_TIMEOUT
            detail = f"reply incomplete after {limit_s:.1f} s, {received} bytes"
        return ended(reason, detail=detail, total_s=limit_s)

    def denied(self, why: str) -> Outcome:
        """Judge a target that must not be dialled, or cannot be."""
        return ended(Reason.POLICY_DENIED, detail=printable(why))

    def crowded(self, max_open: int) -> Outcome:
        """Judge a probe for which there was no connection left."""
        detail = f"{max_open} connections are open, as many as this prober may hold"
        return ended(Reason.LOCAL_FDS, detail=detail)
