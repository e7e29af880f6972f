"""TLS between a connection and its bytes, in memory: what goes in and out is the caller's to carry.

Made by connections whose target has a `TlsPlan`, one per socket. It holds no socket, so the
connection reads and writes in one way whether there is TLS or not.
"""

from ssl import (
    MemoryBIO,
    SSLEOFError,
    SSLSession,
    SSLWantReadError,
    SSLZeroReturnError,
    cert_time_to_seconds,
)
from typing import Final

from probe.http.tls import TlsPlan

_PIECE_BYTES: Final = 16 * 1024
"""A record holds at most so much."""


class Tunnel:
    """The client's end. All methods but `session` raise `ssl.SSLError` on a broken promise."""

    __slots__ = ("_incoming", "_outgoing", "_tls", "ended")

    def __init__(self, plan: TlsPlan, session: SSLSession | None) -> None:
        self.ended = False  # the peer has said good-bye, or is gone
        self._incoming, self._outgoing = MemoryBIO(), MemoryBIO()
        self._tls = plan.context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=plan.server_name, session=session
        )

    def shake(self, data: bytes = b"") -> bool:
        """Take bytes of the handshake, the first time none; tell whether it is complete."""
        self._incoming.write(data)
        try:
            self._tls.do_handshake()
        except SSLWantReadError:
            return False
        return True

    def outgoing(self) -> bytes:
        """Take what must be sent now; what the protocol itself has to say comes first."""
        return self._outgoing.read()

    def seal(self, data: bytes) -> None:
        """Put data into the outgoing bytes."""
        self._tls.write(data)

    def open(self, data: bytes) -> bytes:
        """Return what the received bytes hold, as far as it is complete."""
        self._incoming.write(data)
        pieces: list[bytes] = []
        try:
            while piece := self._tls.read(_PIECE_BYTES):
                pieces.append(piece)
            self.ended = True
        except SSLWantReadError:
            pass
        except (SSLZeroReturnError, SSLEOFError):
            self.ended = True
        return b"".join(pieces)

    def broken_off(self) -> None:
        """Take the end of the connection in the middle of the handshake: raises what that is."""
        self._incoming.write_eof()
        self._tls.do_handshake()

    @property
    def resumed(self) -> bool:
        """The handshake took up an earlier session, and showed no certificate."""
        return bool(self._tls.session_reused)

    def session(self) -> SSLSession | None:
        """Return what a later connection may resume; dear (30 us), so ask once, at the end."""
        return self._tls.session

    def certificate_ends_at(self) -> float | None:
        """Return the wall-clock time until which the peer's certificate is valid.

        None where it was not verified: nothing is known of it then.
        """
        certificate = self._tls.getpeercert() or {}
        until = certificate.get("notAfter")
        return cert_time_to_seconds(until) if isinstance(until, str) else None
