"""The way to one replica: what does not change from probe to probe, and what was learnt.

Made by the pool when a check is first probed, and held by the check while no connection is open.
"""

from math import inf
from ssl import SSLSession
from typing import Final

from probe.http.dial import Endpoint, endpoint_of
from probe.http.keep import Keep
from probe.http.place import Name
from probe.http.request import Prepared, Step
from probe.http.tunnel import Tunnel
from probe.specs import status_set

RESUME_S: Final = 600.0
"""So long a TLS session is taken up again; a full handshake, which alone looks at the
certificate, costs both sides a millisecond and must not be put off for ever."""


NOTHING: Final = Step(request=b"", head_only=False, expected=status_set("100-999"))
"""Asked where being connected is enough."""


class Line:
    """See the module."""

    __slots__ = (
        "_resume_until",
        "_session",
        "endpoints",
        "first",
        "keep",
        "later",
        "name",
        "plain",
        "prepared",
        "renew_at",
        "request",
    )

    def __init__(self, prepared: Prepared, replica_id: str, *, renew_at: float) -> None:
        self.keep = Keep(replica_id)
        self._session: SSLSession | None = None
        self._resume_until = 0.0
        self._take(prepared, renew_at)

    def _take(self, prepared: Prepared, renew_at: float) -> None:
        place, steps = prepared.place, prepared.steps
        first = steps[0] if steps else NOTHING
        self.prepared = prepared
        self.renew_at = renew_at
        """From then on its secrets and certificates are to be read again; never, without any."""
        self.name = place.text if isinstance(place, Name) else None
        self.endpoints: tuple[Endpoint, ...] = (
            () if isinstance(place, Name) else (endpoint_of(place, prepared.port),)
        )
        self.first = first
        self.later = steps[1:]
        self.request = first.request
        self.plain = (
            prepared.tls is None
            and self.name is None
            and renew_at == inf
            and first is not NOTHING
            and first.content is None
            and not first.head_only
            and not self.later
        )
        """Asked each time the same, and what comes may be the reply as it stands: most probes."""

    def __repr__(self) -> str:
        return f"Line({self.prepared.place}:{self.prepared.port}, {self.keep})"

    def renew(self, prepared: Prepared, renew_at: float) -> None:
        """Go on with the target prepared anew; no connection may be open."""
        before, after = self.prepared.tls, prepared.tls
        if before is None or after is None or before.context is not after.context:
            self._session = None  # of another context, which no handshake takes
        self._take(prepared, renew_at)

    def session(self, now: float) -> SSLSession | None:
        """Return the TLS session to take up, if there is one and it is not too old."""
        return self._session if now < self._resume_until else None

    def remember(self, tunnel: Tunnel, now: float) -> None:
        """Keep the session of a tunnel that ends, if it came from a full handshake."""
        if not tunnel.resumed:
            self._session = tunnel.session()
            self._resume_until = now + RESUME_S
