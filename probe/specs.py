"""What a target may ask for beyond an address: statuses, content, other checks, TLS.

Part of the contract on the bus (`probe.wire` hands these names on). A check is either a name -
`http`, `tcp`, or a profile of `probe.profiles` - or a spec of its own, so that one target may
combine several.
"""

from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec

from probe.errors import MalformedEntry

STATUS_MIN: Final = 100
STATUS_MAX: Final = 999
"""HTTP has three digits; what a server may say is wider than what is registered."""

PATH_PATTERN: Final = r"\A/[!-~]*\Z"  # \Z, not $: `$` also accepts a trailing newline
HEADER_NAME_PATTERN: Final = r"\A[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z"

Method = Literal["GET", "HEAD", "OPTIONS"]
"""What a probe may say: the methods that promise to change nothing."""
Path = Annotated[str, msgspec.Meta(pattern=PATH_PATTERN, max_length=2048)]
HeaderName = Annotated[str, msgspec.Meta(pattern=HEADER_NAME_PATTERN)]
StatusText = Annotated[str, msgspec.Meta(max_length=128)]
_Expected = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class TlsOptions(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How to speak TLS to one replica.

    Files are named, never carried: each name is one below the prober's own `tls_directory`.
    """

    verify: bool = True
    ca_file: str | None = None
    client_certificate_file: str | None = None
    """PEM: the certificate, its chain, and its key unless `client_key_file` names another."""
    client_key_file: str | None = None
    server_name: str | None = None


class JsonExpectation(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What one place of a JSON body must hold.

    `path` is dotted, with list places in brackets: `data[0].id`. Without `equals` it is enough
    that the place exists and is neither null, false nor empty.
    """

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    equals: str | int | float | bool | None = None


class HttpCheck(
    msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="http"
):
    """One exchange over HTTP; what is left out is taken from the target."""

    path: Path | None = None
    method: Method | None = None
    expected_status: StatusText | None = None
    headers: dict[HeaderName, _Expected] = msgspec.field(default_factory=dict)
    """Reply headers by name, each with the text that it must contain."""
    body_contains: _Expected | None = None
    json: tuple[JsonExpectation, ...] = ()
    identity: bool = False
    """`{replica_id}` in an expected text stands for the target's own id; with `identity` one
    expectation must use it, so that another replica at the same address is told apart."""


class TcpCheck(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="tcp"):
    """An accepted connection is all that is asked (with TLS: a completed handshake)."""


CheckSpec = HttpCheck | TcpCheck
Checks = str | tuple[str | CheckSpec, ...]
"""One name, or a list of names and specs; all of them must pass, in order."""


class StatusSet:
    """The status codes a target expects: single codes and ranges, separated by commas.

    >>> 204 in StatusSet("200-299,301"), 302 in StatusSet("200-299,301")
    (True, False)
    """

    __slots__ = ("codes", "text")

    def __init__(self, text: str) -> None:
        """Parse `text`.

        Raises:
            MalformedEntry: if a part is neither a code nor an ascending range in 100-999.
        """
        self.text = text
        codes: set[int] = set()
        for part in text.split(","):
            low, dash, high = part.strip().partition("-")
            if not (low.isascii() and low.isdigit() and (not dash or high.isdigit())):
                raise MalformedEntry(
                    f"expected_status {text!r}: {part!r} is neither a code nor a range; "
                    "write for example 200-299,304"
                )
            first, last = int(low), int(high) if dash else int(low)
            if not STATUS_MIN <= first <= last <= STATUS_MAX:
                raise MalformedEntry(
                    f"expected_status {text!r}: {part!r} is not an ascending range in 100-999"
                )
            codes.update(range(first, last + 1))
        self.codes = frozenset(codes)
        """For who asks ten thousand times a second: `in` on the set itself costs a call more."""

    def __contains__(self, code: int) -> bool:
        return code in self.codes

    def __repr__(self) -> str:
        return f"StatusSet({self.text!r})"


@lru_cache(maxsize=1024)
def status_set(text: str) -> StatusSet:
    """Return the parsed `text`; raises as `StatusSet` does. Parsing costs 5 us, a fleet has few."""
    return StatusSet(text)
