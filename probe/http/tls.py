"""How one target's TLS is spoken: a context that many targets share, and the name to ask for."""

from dataclasses import dataclass
from ssl import SSLContext


@dataclass(frozen=True, slots=True)
class TlsPlan:
    """What a handshake needs; the context has the authorities and the client's certificate."""

    context: SSLContext
    server_name: str | None
    """Sent as SNI, and what the certificate must be for; None where neither is asked."""
