"""Which targets are asked through a forward proxy, and which one that is.

Used when a target is loaded and when it is asked. The proxy's URL may hold a password, so it is a
secret; the proxy itself is the operator's word and not judged by the policy.
"""

from collections.abc import Iterable

from probe.allow import Network, network_or_suffix
from probe.http.place import Name, Place, UnixPath
from probe.references import Secret


class ForwardProxy:
    """One proxy, and the networks and ends of names that it is for; none means all."""

    __slots__ = ("_networks", "_suffixes", "url")

    def __init__(self, url: Secret, only: Iterable[str] = ()) -> None:
        entries = [network_or_suffix(entry) for entry in only]
        self.url = url
        self._suffixes = tuple(entry for entry in entries if isinstance(entry, str))
        self._networks: tuple[Network, ...] = tuple(
            entry for entry in entries if not isinstance(entry, str)
        )

    def covers(self, place: Place) -> bool:
        """Tell whether `place` is asked through this proxy; a socket of this host never is."""
        if isinstance(place, UnixPath):
            return False
        if not (self._networks or self._suffixes):
            return True
        if isinstance(place, Name):
            return any(
                place.text == suffix.lstrip(".") or place.text.endswith(f".{suffix.lstrip('.')}")
                for suffix in self._suffixes
            )
        return any(place in network for network in self._networks)
