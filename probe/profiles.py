"""What each inference engine says of its own health, by the name a target may use.

Pure data, read by `probe.admit` and by the documentation. A profile brings its own paths, so that
one deployment may say `vllm` and be done; statuses, headers, timeouts and thresholds stay the
target's. Only what an engine documents belongs here, and nothing that makes it generate a token.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from probe.specs import CheckSpec, HttpCheck, JsonExpectation, TcpCheck


class Profile(NamedTuple):
    """One named way to check a replica."""

    checks: tuple[CheckSpec, ...]
    """All must pass, in order. A check without a path has the target's."""
    sentence: str
    source: str
    """Where the engine promises it; empty for our own."""


PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        "http": Profile(
            (HttpCheck(),), "one request to `health_path`, judged by `expected_status`", ""
        ),
        "tcp": Profile(
            (TcpCheck(),), "an accepted connection; with `https` a completed handshake", ""
        ),
    }
)
