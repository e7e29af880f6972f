"""The bytes of one request, built once per target from validated parts.

Pure; called when a target is loaded. Every part is checked here although the wire contract has
checked it before: a target may also come from a command line, and one CR too many would let its
author write a second request of their own.
"""

import re
from dataclasses import dataclass
from typing import Final

from probe.errors import MalformedEntry
from probe.http.policy import Place
from probe.http.tls import TlsPlan
from probe.wire import Method, StatusSet

HTTP_PORT: Final = 80
_PATH: Final = re.compile(r"/[!-~]*")
_AUTHORITY: Final = re.compile(r"[0-9A-Za-z._:\[\]-]{1,255}")
_AGENT: Final = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class Step:
    """One exchange of a probe: what is said, and which statuses are welcome."""

    request: bytes
    head_only: bool
    """The request is a HEAD: its reply ends with its head, whatever length it tells."""
    expected: StatusSet


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything about one target that does not change from probe to probe."""

    place: Place
    port: int
    """Unused where the place is a socket on this host."""
    steps: tuple[Step, ...]
    """In order, on one connection where the peer keeps it; none: being connected is enough."""
    tls: TlsPlan | None = None
    refusal: str | None = None
    """Why the target must not be dialled; None when it may."""


def authority(host: str, port: int) -> str:
    """Return the Host header of a URL with this host and port.

    >>> authority("10.0.0.1", 80), authority("fd00::1", 8000)
    ('10.0.0.1', '[fd00::1]:8000')
    """
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port == HTTP_PORT else f"{bracketed}:{port}"


def encode_request(method: Method, path: str, *, host_header: str, agent: str) -> bytes:
    """Encode a request without body that asks for an unencoded reply and a kept connection.

    Raises:
        MalformedEntry: if a part holds a character that does not belong there.
    """
    for name, text, pattern in (
        ("health_path", path, _PATH),
        ("host_header", host_header, _AUTHORITY),
        ("agent", agent, _AGENT),
    ):
        if pattern.fullmatch(text) is None:
            raise MalformedEntry(
                f"{name} {text!a} cannot be sent; use visible ASCII without spaces"
            )
    return (
        f"{method} {path} HTTP/1.1\r\n"
        f"Host: {host_header}\r\n"
        f"User-Agent: {agent}\r\n"
        "Accept: */*\r\n"
        "Accept-Encoding: identity\r\n"
        "Connection: keep-alive\r\n"
        "\r\n"
    ).encode("ascii")
