"""How one target's TLS is spoken: a context that many targets share, and the name to ask for.

Called when a target is loaded. A context with the system's authorities costs 18 ms and 900 KB, so
targets of equal options share one; a file that has changed on disk makes the next target loaded
get a new one (certificates rotate). Targets name files, and only ones below one directory.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from probe.errors import MalformedEntry, UnsupportedCheck
from probe.http.place import Place, UnixPath, parse_place
from probe.references import find_below
from probe.specs import TlsOptions

ALPN_HTTP1: Final = ("http/1.1",)
ALPN_HTTP2: Final = ("h2",)
FILE_MAX_BYTES: Final = 1024 * 1024
CONTEXTS_MAX: Final = 64
"""Who writes targets must not fill our memory with contexts."""

_Stamp = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class TlsPlan:
    """What a handshake needs; the context has the authorities and the client's certificate."""

    context: ssl.SSLContext
    server_name: str | None
    """Sent as SNI, and what the certificate must be for; None where neither is asked."""


@dataclass(frozen=True, slots=True)
class _Key:
    """What makes contexts equal: options, and the state of each file when it was read."""

    verify: bool
    authorities: _Stamp | None
    certificate: _Stamp | None
    key: _Stamp | None
    http2: bool


class TlsContexts:
    """Makes and remembers the contexts; `directory` holds every file that a target may name."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._contexts: dict[_Key, ssl.SSLContext] = {}

    def __repr__(self) -> str:
        return f"TlsContexts({str(self._directory)!r}, {len(self._contexts)} contexts)"

    def plan(self, options: TlsOptions, host: Place, *, http2: bool = False) -> TlsPlan:
        """Return how to speak TLS to `host`.

        Raises:
            UnsupportedCheck: if a file cannot be used; names the field and the remedy.
            MalformedEntry: if options contradict each other.
        """
        server_name = _server_name(options, host)
        if options.client_key_file is not None and options.client_certificate_file is None:
            raise MalformedEntry(
                "tls.client_key_file: is a key without a certificate; "
                "name tls.client_certificate_file too"
            )
        if options.ca_file is not None and not options.verify:
            raise MalformedEntry(
                "tls.ca_file: authorities are named but tls.verify is false; leave one out"
            )
        key = _Key(
            verify=options.verify,
            authorities=self._stamp("ca_file", options.ca_file),
            certificate=self._stamp("client_certificate_file", options.client_certificate_file),
            key=self._stamp("client_key_file", options.client_key_file),
            http2=http2,
        )
        context = self._contexts.pop(key, None)
        if context is None:
            context = _build(key, options)
            while len(self._contexts) >= CONTEXTS_MAX:
                del self._contexts[next(iter(self._contexts))]
        self._contexts[key] = context  # the one used last goes last
        return TlsPlan(context, server_name)

    def _stamp(self, field: str, name: str | None) -> _Stamp | None:
        if name is None:
            return None
        if self._directory is None:
            raise UnsupportedCheck(f"tls.{field}: this prober has no tls_directory; set it there")
        try:
            path = find_below(self._directory, name)
            state = path.stat()
        except ValueError as error:
            raise UnsupportedCheck(
                f"tls.{field}: {name[:80]!a} {error}; name a file below tls_directory"
            ) from None
        except OSError as error:
            raise UnsupportedCheck(
                f"tls.{field}: {name[:80]!a} cannot be read below tls_directory: {error.strerror}"
            ) from None
        if state.st_size > FILE_MAX_BYTES:
            raise UnsupportedCheck(f"tls.{field}: {name[:80]!a} is longer than 1 MiB")
        return str(path), state.st_ino, state.st_mtime_ns, state.st_size


def _server_name(options: TlsOptions, host: Place) -> str | None:
    if options.server_name is None:
        if not isinstance(host, UnixPath):
            return str(host)
        if options.verify:
            raise UnsupportedCheck(
                "tls.server_name: a socket has no name of its own; say whose certificate to expect"
            )
        return None
    place = parse_place(options.server_name, "tls.server_name")
    if isinstance(place, UnixPath):
        raise MalformedEntry("tls.server_name: is a path; write a host name or an address")
    return str(place)


def _build(key: _Key, options: TlsOptions) -> ssl.SSLContext:
    # Not `create_default_context`: it would also log session keys to a file of the environment.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN_HTTP2 if key.http2 else ALPN_HTTP1)
    if not key.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif key.authorities is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(key.authorities[0])
        except OSError as error:
            raise UnsupportedCheck(_bad("ca_file", options.ca_file, error)) from None
    if key.certificate is not None:
        try:
            # A key under a passphrase must not make the prober ask for it on a terminal.
            context.load_cert_chain(
                key.certificate[0], key.key[0] if key.key else None, password=lambda: b""
            )
        except OSError as error:
            name = options.client_certificate_file
            raise UnsupportedCheck(_bad("client_certificate_file", name, error)) from None
    return context


def _bad(field: str, name: str | None, error: OSError) -> str:
    what = (isinstance(error, ssl.SSLError) and error.reason) or error.strerror or "unusable"
    return (
        f"tls.{field}: {name!a} does not load ({what}); "
        "it must be PEM, with a key without passphrase that fits the certificate"
    )
