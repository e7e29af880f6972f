"""Why a probe ended as it did: the closed set of reasons, their layers and their sentences.

Part of the contract on the bus (`probe.wire` hands these names on). A new reason is one member
and one row here; `probe.check` decides when it applies.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple


class OutcomeKind(StrEnum):
    """What one probe is worth as evidence."""

    PASSED = "passed"
    """The replica answered as its target expects."""
    FAILED = "failed"
    """The replica, or the way to it, did not do as its target expects."""
    PROBE_ERROR = "probe_error"
    """The prober itself could not ask: no evidence, no counter moves."""


class Layer(StrEnum):
    """How far a probe came before its reason was found."""

    NAME = "name"
    CONNECT = "connect"
    TLS = "tls"
    RESPONSE = "response"
    CONTENT = "content"
    POLICY = "policy"
    LOCAL = "local"


class Reason(StrEnum):
    """Why a probe ended as it did: a closed set, safe as a metric label."""

    __hash__ = str.__hash__  # that of `Enum` is Python: 0.15 us, several times a probe

    OK = "OK"
    DNS_FAILED = "DNS_FAILED"
    DNS_TIMEOUT = "DNS_TIMEOUT"
    CONNECT_REFUSED = "CONNECT_REFUSED"
    CONNECT_TIMEOUT = "CONNECT_TIMEOUT"
    CONNECT_UNREACHABLE = "CONNECT_UNREACHABLE"
    CONNECT_RESET = "CONNECT_RESET"
    TLS_HANDSHAKE = "TLS_HANDSHAKE"
    TLS_CERTIFICATE = "TLS_CERTIFICATE"
    TLS_EXPIRED = "TLS_EXPIRED"
    RESPONSE_TIMEOUT = "RESPONSE_TIMEOUT"
    RESPONSE_CLOSED = "RESPONSE_CLOSED"
    RESPONSE_MALFORMED = "RESPONSE_MALFORMED"
    RESPONSE_TOO_LARGE = "RESPONSE_TOO_LARGE"
    STATUS_UNEXPECTED = "STATUS_UNEXPECTED"
    BODY_MISMATCH = "BODY_MISMATCH"
    REDIRECT_REFUSED = "REDIRECT_REFUSED"
    AUTH_REJECTED = "AUTH_REJECTED"
    STALLED = "STALLED"
    POLICY_DENIED = "POLICY_DENIED"
    LOCAL_FDS = "LOCAL_FDS"
    LOCAL_PORTS = "LOCAL_PORTS"
    LOCAL_LAG = "LOCAL_LAG"
    LOCAL_NETWORK = "LOCAL_NETWORK"


class ReasonEntry(NamedTuple):
    """One row of the reason table."""

    layer: Layer
    kind: OutcomeKind
    sentence: str


_PASSED, _FAILED, _ERROR = OutcomeKind.PASSED, OutcomeKind.FAILED, OutcomeKind.PROBE_ERROR

REASONS: Final[Mapping[Reason, ReasonEntry]] = MappingProxyType(
    {
        Reason.OK: ReasonEntry(Layer.CONTENT, _PASSED, "answered as expected"),
        Reason.DNS_FAILED: ReasonEntry(Layer.NAME, _FAILED, "the host name does not resolve"),
        Reason.DNS_TIMEOUT: ReasonEntry(Layer.NAME, _ERROR, "the resolver did not answer"),
        Reason.CONNECT_REFUSED: ReasonEntry(
            Layer.CONNECT, _FAILED, "nothing listens on the port: starting, or exited"
        ),
        Reason.CONNECT_TIMEOUT: ReasonEntry(
            Layer.CONNECT, _FAILED, "no answer to the connection: host down, or packets dropped"
        ),
        Reason.CONNECT_UNREACHABLE: ReasonEntry(
            Layer.CONNECT, _FAILED, "the network has no way to the host"
        ),
        Reason.CONNECT_RESET: ReasonEntry(
            Layer.CONNECT, _FAILED, "the connection was reset by the other side"
        ),
        Reason.TLS_HANDSHAKE: ReasonEntry(Layer.TLS, _FAILED, "the TLS handshake failed"),
        Reason.TLS_CERTIFICATE: ReasonEntry(
            Layer.TLS, _FAILED, "the certificate is not valid for this host or authority"
        ),
        Reason.TLS_EXPIRED: ReasonEntry(
            Layer.TLS, _FAILED, "the certificate has expired, or is not valid yet"
        ),
        Reason.RESPONSE_TIMEOUT: ReasonEntry(
            Layer.RESPONSE, _FAILED, "no complete reply in time: busy, or hung"
        ),
        Reason.RESPONSE_CLOSED: ReasonEntry(
            Layer.RESPONSE, _FAILED, "the connection was closed before a complete reply"
        ),
        Reason.RESPONSE_MALFORMED: ReasonEntry(Layer.RESPONSE, _FAILED, "the reply is not HTTP/1"),
        Reason.RESPONSE_TOO_LARGE: ReasonEntry(
            Layer.RESPONSE, _FAILED, "the reply is larger than a probe may read"
        ),
        Reason.STATUS_UNEXPECTED: ReasonEntry(
            Layer.CONTENT, _FAILED, "the status code is not among the expected ones"
        ),
        Reason.BODY_MISMATCH: ReasonEntry(
            Layer.CONTENT, _FAILED, "the reply's headers or body are not as expected"
        ),
        Reason.REDIRECT_REFUSED: ReasonEntry(
            Layer.CONTENT, _FAILED, "answered with a redirect, which a probe never follows"
        ),
        Reason.AUTH_REJECTED: ReasonEntry(
            Layer.CONTENT, _FAILED, "answered 401 or 403: check the probe's credentials or path"
        ),
        Reason.STALLED: ReasonEntry(
            Layer.CONTENT, _FAILED, "alive, but its engine makes no progress"
        ),
        Reason.POLICY_DENIED: ReasonEntry(
            Layer.POLICY, _ERROR, "the address is not allowed: see --allow"
        ),
        Reason.LOCAL_FDS: ReasonEntry(
            Layer.LOCAL, _ERROR, "the prober has no file descriptor left: raise its limit"
        ),
        Reason.LOCAL_PORTS: ReasonEntry(
            Layer.LOCAL, _ERROR, "the prober's host has no local port left"
        ),
        Reason.LOCAL_LAG: ReasonEntry(
            Layer.LOCAL, _ERROR, "the prober itself was late: it needs more CPU"
        ),
        Reason.LOCAL_NETWORK: ReasonEntry(Layer.LOCAL, _ERROR, "the prober's own network is down"),
    }
)
