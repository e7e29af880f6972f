"""The bytes of one request, built once per target from validated parts.

Pure; called when a target is loaded. Every part is checked here although the wire contract has
checked it before: a target may also come from a command line, and one CR too many would let its
author write a second request of their own.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from probe.errors import MalformedEntry
from probe.http.content import Content
from probe.http.policy import Place
from probe.http.tls import TlsPlan
from probe.specs import HEADER_NAME_PATTERN
from probe.wire import Method, StatusSet

DEFAULT_PORTS: Final[Mapping[str, int]] = MappingProxyType({"http": 80, "https": 443})
NOT_THE_TARGETS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that decide where a message ends, who gets it, or what becomes of the connection."""
ANY_HOST: Final = "any"
"""Stands for the host in the draft of a step."""
_ANY_HOST_LINE: Final = f"Host: {ANY_HOST}\r\n".encode()
"""Nothing before it in a request can hold a space and an end of line: no path or method does."""
_PATH: Final = re.compile(r"/[!-~]*")
_AUTHORITY: Final = re.compile(r"[0-9A-Za-z._:\[\]-]{1,255}")
_AGENT: Final = re.compile(r"[!-~]{1,128}")
_NAME: Final = re.compile(HEADER_NAME_PATTERN)
_VALUE: Final = re.compile(r"[!-~]([\t -~]{0,4094}[!-~])?")


Headers = tuple[tuple[str, str], ...]


class Step(msgspec.Struct, frozen=True, gc=False):
    """One exchange of a probe: what is said, and what must come back.

    What may hold a secret stays out of its repr. A struct, as `Prepared`: a frozen dataclass
    takes 3 us to make, ten times as long, and a fleet is made of these when it is loaded.
    """

    request: bytes
    """All of it, as HTTP/1.1."""
    head_only: bool
    """The request is a HEAD: its reply ends with its head, whatever length it tells."""
    expected: StatusSet
    content: Content | None = None
    """What headers and body must hold; None: the status alone is asked for."""
    method: Method = "GET"
    """Method, path and headers once more, for who speaks another HTTP than 1.1."""
    path: str = "/"
    headers: Headers = ()
    """Host first, then all others; nothing that belongs to one connection."""
    secrets: tuple[str, ...] = ()
    """Values sent that no detail may show."""

    def __repr__(self) -> str:
        return f"Step({self.method} {self.path}, expected={self.expected}, content={self.content})"


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """Everything about one target that does not change from probe to probe."""

    place: Place
    port: int
    """Unused where the place is a socket on this host."""
    steps: tuple[Step, ...]
    """In order, on one connection where the peer keeps it; none: being connected is enough."""
    tls: TlsPlan | None = None
    detour: bool = False
    """To be asked in another way than HTTP/1.1 on a connection of ours: HTTP/2, or by a proxy."""
    refusal: str | None = None
    """Why the target must not be dialled; None when it may."""


def authority(host: str, port: int, *, scheme: str = "http") -> str:
    """Return the Host header of a URL with this host and port.

    >>> authority("10.0.0.1", 80), authority("fd00::1", 8000), authority("llm", 443, scheme="https")
    ('10.0.0.1', '[fd00::1]:8000', 'llm')
    """
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port == DEFAULT_PORTS[scheme] else f"{bracketed}:{port}"


def headers_of(*, host_header: str, agent: str, own: Headers = ()) -> Headers:
    """Return all headers of a request without body that asks for an unencoded reply.

    What the target sets itself takes the place of ours, where it may.

    Raises:
        MalformedEntry: if a part cannot be sent, or is not the target's to set; no message shows
            a value of `own`, which may be a secret.
    """
    _refuse_unless(_AUTHORITY, host_header=host_header)
    _refuse_unless(_AGENT, agent=agent)
    for name, value in own:
        if _NAME.fullmatch(name) is None or name.lower() in NOT_THE_TARGETS:
            raise MalformedEntry(
                f"headers: {name!a} is not a target's to set; leave it out"
                + (", and use host_header" if name.lower() == "host" else "")
            )
        if _VALUE.fullmatch(value) is None:
            raise MalformedEntry(
                f"headers: the value of {name} cannot be sent; it must be visible ASCII on one "
                "line, at most 4096 characters, without blanks around it"
            )
    theirs = {name.lower() for name, _ in own}
    ours = (("User-Agent", agent), ("Accept", "*/*"))
    kept = (header for header in ours if header[0].lower() not in theirs)
    return (("Host", host_header), *kept, ("Accept-Encoding", "identity"), *own)


def encode_request(method: Method, path: str, headers: Headers) -> bytes:
    """Encode a request that asks for a kept connection; `headers` come from `headers_of`.

    Raises:
        MalformedEntry: if the path holds a character that does not belong there.
    """
    _refuse_unless(_PATH, path=path)
    lines = (f"{name}: {value}\r\n" for name, value in headers)
    head = f"{method} {path} HTTP/1.1\r\n{''.join(lines)}Connection: keep-alive\r\n\r\n"
    return head.encode("ascii")


def addressed(draft: Step, host_header: str) -> Step:
    """Return a step drafted for `ANY_HOST` as it is for another host.

    What all targets of one kind share is checked and encoded once.

    Raises:
        MalformedEntry: if the host cannot be sent.
    """
    _refuse_unless(_AUTHORITY, host_header=host_header)
    before, _, after = draft.request.partition(_ANY_HOST_LINE)
    return Step(
        b"%bHost: %b\r\n%b" % (before, host_header.encode("ascii"), after),
        draft.head_only,
        draft.expected,
        draft.content,
        draft.method,
        draft.path,
        (("Host", host_header), *draft.headers[1:]),
        draft.secrets,
    )


def _refuse_unless(pattern: re.Pattern[str], **parts: str) -> None:
    for name, text in parts.items():
        if pattern.fullmatch(text) is None:
            raise MalformedEntry(
                f"{name} {text!a} cannot be sent; use visible ASCII without spaces"
            )
