"""What a reply or a failure means: the only place where they become outcomes.

Called by the pool with what happened. What a target asks for is `probe.admit`'s affair, what an
error stands for `probe.faults`'s; here both meet, and what is said of it is made fit for a log.
"""

from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from probe.admit import ProxyRule, SecretSource, TlsSource, admit
from probe.faults import reason_of, words_of
from probe.health import Outcome, ended
from probe.http.policy import ConnectPolicy
from probe.http.request import Prepared, Step
from probe.http.response import Fault, Reply
from probe.http.roles import Phase
from probe.wire import DETAIL_MAX_CHARS, OutcomeKind, Reason, ReplicaProbeTarget, StatusSet

FAULT_REASONS: Final[Mapping[Fault, Reason]] = MappingProxyType(
    {
        Fault.MALFORMED: Reason.RESPONSE_MALFORMED,
        Fault.TOO_LARGE: Reason.RESPONSE_TOO_LARGE,
        Fault.CLOSED: Reason.RESPONSE_CLOSED,
    }
)
TELLING_CHARS: Final = 8
"""So many characters of a secret in a row are hidden; fewer tell nobody anything."""

_REDIRECTS: Final = range(300, 400)
_CREDENTIALS: Final = frozenset({401, 403})
_PASSED: Final = OutcomeKind.PASSED
_OK: Final = Reason.OK
_TICKS_PER_S: Final = 100_000
_TICKS_SHARED: Final = 5_000
"""Up to 50 ms: what takes longer is rarely twice the same."""
_OUTCOMES_MAX: Final = 8192
"""For one set of expected statuses, of 200 bytes; most need a few hundred."""


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


def redacted(text: str, secrets: tuple[str, ...]) -> str:
    """Return `text` with every telling part of a secret hidden: a replica may echo what we send.

    >>> redacted("you sent Bearer sk-1234567 as sk-12345", ("Bearer sk-1234567",))
    'you sent *** as ***'
    """
    hidden = bytearray(len(text))
    for secret in {form for s in secrets for form in (s, ascii(s)[1:-1])}:
        width = min(TELLING_CHARS, len(secret))
        for start in range(len(secret) - width + 1):
            at = text.find(secret[start : start + width])
            while at >= 0:
                hidden[at : at + width] = b"\1" * width
                at = text.find(secret[start : start + width], at + 1)
    shown = (
        "***" if hide and not before else "" if hide else char
        for char, hide, before in zip(text, hidden, b"\0" + hidden, strict=False)
    )
    return "".join(shown)


def _by_status(expected: StatusSet, reply: Reply, total_s: float) -> Outcome:
    """Judge a reply that came in one piece, on a connection that was open."""
    status = reply.status
    if status in expected.codes:
        return Outcome(_PASSED, _OK, status, "", 0.0, total_s, total_s)
    reason, detail = _unwelcome(expected, reply)
    return ended(
        reason,
        detail=printable(detail),
        http_status=status,
        first_byte_s=total_s,
        total_s=total_s,
    )


def _unwelcome(expected: StatusSet, reply: Reply) -> tuple[Reason, str]:
    status = reply.status
    if status:
        return reason_of_status(status), f"{status}, not in {expected.text}"
    return _fault(reply)


class StatusJudge:
    """Judges what the wire brings; implements `probe.http.pool.Judge`."""

    __slots__ = ("_outcomes", "policy", "proxy", "secrets", "tls")

    def __init__(
        self,
        policy: ConnectPolicy,
        *,
        secrets: SecretSource | None = None,
        tls: TlsSource | None = None,
        proxy: ProxyRule | None = None,
    ) -> None:
        self.policy = policy
        self.proxy = proxy
        self.secrets = secrets
        self.tls = tls
        self._outcomes: defaultdict[StatusSet, dict[int, Outcome]] = defaultdict(dict)

    def admit(self, target: ReplicaProbeTarget) -> Prepared:
        """Prepare a target; raises as the function `admit` does."""
        return admit(target, self.policy, secrets=self.secrets, tls=self.tls, proxy=self.proxy)

    def replied(
        self,
        step: Step,
        reply: Reply,
        /,
        *,
        connect_s: float,
        first_byte_s: float,
        total_s: float,
        resolve_s: float = 0.0,
        tls_s: float = 0.0,
    ) -> Outcome:
        """Judge the reply to one step: status first, then body and headers if they are asked for.

        A passing outcome of a step before the last one says that the next one may be asked.
        """
        status = reply.status
        if status in step.expected.codes:
            wrong = None if step.content is None else _wrong_content(step, reply)
            if wrong is None:
                return Outcome(
                    _PASSED, _OK, status, "", connect_s, first_byte_s, total_s, resolve_s, tls_s
                )
            reason, detail = wrong
        else:
            reason, detail = _unwelcome(step.expected, reply)
        return ended(
            reason,
            detail=printable(redacted(detail, step.secrets) if step.secrets else detail),
            http_status=status,
            connect_s=connect_s,
            first_byte_s=first_byte_s,
            total_s=total_s,
            resolve_s=resolve_s,
            tls_s=tls_s,
        )

    def answered(self, expected: StatusSet, reply: Reply, total_s: float, /) -> Outcome:
        """Judge a whole reply on a kept connection, by its status alone: nearly all there are.

        Times are cut to 10 us. So equal outcomes are the same object, and 10,000 replicas keep a
        few hundred of them in the caches instead of one each in memory.
        """
        ticks = int(total_s * _TICKS_PER_S)
        if ticks >= _TICKS_SHARED or reply.fault is not None:
            return _by_status(expected, reply, total_s)
        known, key = self._outcomes[expected], reply.status * _TICKS_SHARED + ticks
        outcome = known.get(key)
        if outcome is None:
            if len(known) >= _OUTCOMES_MAX:
                known.clear()
            outcome = known[key] = _by_status(expected, reply, ticks / _TICKS_PER_S)
        return outcome

    def connected(
        self,
        *,
        connect_s: float,
        total_s: float,
        resolve_s: float = 0.0,
        tls_s: float = 0.0,
    ) -> Outcome:
        """Judge a connection where it is all that is asked for: it is open, so it passes."""
        return ended(_OK, connect_s=connect_s, total_s=total_s, resolve_s=resolve_s, tls_s=tls_s)

    def broke(
        self,
        error: BaseException,
        *,
        connect_s: float,
        total_s: float,
        resolve_s: float = 0.0,
        tls_s: float = 0.0,
    ) -> Outcome:
        """Judge a failed dial, handshake or connection by its error."""
        return ended(
            reason_of(error),
            detail=printable(words_of(error)),
            connect_s=connect_s,
            total_s=total_s,
            resolve_s=resolve_s,
            tls_s=tls_s,
        )

    def unresolved(self, fault: Reason, detail: str, *, total_s: float) -> Outcome:
        """Judge a name without an address to dial; `fault` is the resolver's or the policy's."""
        return ended(fault, detail=printable(detail), resolve_s=total_s, total_s=total_s)

    def late(self, *, phase: Phase, received: int, limit_s: float) -> Outcome:
        """Judge a deadline: a hang reads differently from bytes that come too slowly."""
        within = f"within {limit_s:.1f} s"
        match phase:
            case "resolve":
                reason, detail = Reason.DNS_TIMEOUT, f"no answer about the name {within}"
            case "connect":
                reason, detail = Reason.CONNECT_TIMEOUT, f"no connection {within}"
            case "tls":
                reason, detail = Reason.TLS_HANDSHAKE, f"no complete handshake {within}"
            case "reply" if received == 0:
                reason, detail = Reason.RESPONSE_TIMEOUT, f"no byte of a reply {within}"
            case "reply":
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


def _wrong_content(step: Step, reply: Reply) -> tuple[Reason, str] | None:
    """Return what is wrong with a reply beyond its status."""
    if reply.fault is not None:
        return _fault(reply)
    mismatch = step.content.mismatch(reply) if step.content is not None else None
    return None if mismatch is None else (Reason.BODY_MISMATCH, mismatch)


def _fault(reply: Reply) -> tuple[Reason, str]:
    fault = Fault.MALFORMED if reply.fault is None else reply.fault
    return FAULT_REASONS[fault], reply.detail
