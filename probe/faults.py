"""What a failed dial, handshake or connection means: tables from errors to reasons.

Called by `probe.check` alone. A failure of our own machine must never be read as the replica's:
what the tables do not know is a fault of the prober, and moves no counter.
"""

import errno
import os
import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from probe.reasons import Reason

ERRNO_REASONS: Final[Mapping[int, Reason]] = MappingProxyType(
    {
        errno.ECONNREFUSED: Reason.CONNECT_REFUSED,
        errno.ENOENT: Reason.CONNECT_REFUSED,  # no such socket file
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

VERIFY_REASONS: Final[Mapping[int, Reason]] = MappingProxyType(
    {
        9: Reason.TLS_EXPIRED,  # X509_V_ERR_CERT_NOT_YET_VALID
        10: Reason.TLS_EXPIRED,  # X509_V_ERR_CERT_HAS_EXPIRED
        17: UNKNOWN_ERROR,  # X509_V_ERR_OUT_OF_MEM
    }
)
"""By OpenSSL's verify code; every other one is about who signed the certificate, or for whom."""
CERTIFICATE_REFUSED: Final = Reason.TLS_CERTIFICATE

OWN_TLS_TROUBLE: Final = frozenset(
    {"INTERNAL_ERROR", "MALLOC_FAILURE", "NO_CIPHERS_AVAILABLE", "NO_PROTOCOLS_AVAILABLE"}
)
"""OpenSSL's names for what only our own library or settings can cause."""
HANDSHAKE_FAILED: Final = Reason.TLS_HANDSHAKE


def reason_of(error: BaseException) -> Reason:
    """Return the reason of a failed dial or connection; the prober's own where it is unknown."""
    match error:
        # Before OSError: these are OSErrors whose errno is OpenSSL's, and 1 is not EPERM.
        case ssl.SSLCertVerificationError(verify_code=int(code)):
            return VERIFY_REASONS.get(code, CERTIFICATE_REFUSED)
        case ssl.SSLError(reason=str(reason)) if reason in OWN_TLS_TROUBLE:
            return UNKNOWN_ERROR
        case ssl.SSLError():
            return HANDSHAKE_FAILED
        case OSError(errno=int(number)):
            return ERRNO_REASONS.get(number, UNKNOWN_ERROR)
        case _:
            return UNKNOWN_ERROR


def words_of(error: BaseException) -> str:
    """Say what an error says, without its address in our source."""
    match error:
        case ssl.SSLCertVerificationError(verify_message=str(message)) if message:
            return message
        case ssl.SSLError(reason=str(reason)):
            return reason.lower().replace("_", " ")
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return "closed during the handshake"
        case OSError(errno=int(number)) if not isinstance(error, ssl.SSLError):
            name = errno.errorcode.get(number)
            return f"{os.strerror(number)} ({name})" if name else os.strerror(number)
        case _:
            return f"{error} ({type(error).__name__})"
