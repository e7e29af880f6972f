"""What this prober may dial and has at hand, from its settings: policy, secrets, TLS, the wire.

Called once by who composes a prober, and by the commands that probe or load targets. Knows files
and the environment, so that who judges a target need know neither.
"""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from functools import cache
from os.path import realpath
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from probe.admit import admit
from probe.check import StatusJudge
from probe.errors import SettingsError, UnsupportedCheck
from probe.here import is_here
from probe.http.detour import Detour
from probe.http.keep import KeepRule
from probe.http.place import Place, UnixPath
from probe.http.policy import ConnectPolicy, Service
from probe.http.pool import HttpPool
from probe.http.proxies import ForwardProxy
from probe.http.resolver import Resolver
from probe.http.tls import TlsContexts, TlsPlan
from probe.references import VARIABLE_PREFIX, References, Secret, is_below
from probe.settings import Settings
from probe.specs import TlsOptions
from probe.wire import ReplicaProbeTarget

DETOUR_SHARE: Final = 4
"""One connection in so many may take the detour, whose probes cost ten times ours."""

_REFERENCES: Final = ("env:", "file:")
_PROXY_SCHEMES: Final = ("http", "https")
_ANY_VALUE: Final = Secret("x")


def judge_of(
    settings: Settings, environ: Mapping[str, str], *, own: Iterable[Service | UnixPath] = ()
) -> StatusJudge:
    """Return the judge of a prober with these settings; `own` services are never dialled.

    Raises:
        SettingsError: if a list of what may be dialled is none, or the proxy is named by a
            reference that leads nowhere.
    """
    secrets = References(_directory(settings.secrets_directory), environ)
    proxy = None
    if settings.proxy:
        proxy = ForwardProxy(_proxy_url(settings.proxy, secrets), settings.proxy_for)
    policy = ConnectPolicy.of(
        settings.allow,
        ports=settings.allow_ports,
        allow_dns=settings.allow_dns,
        own=own,
        real_path=realpath,
        is_here=is_here,
    )
    tls = TlsContexts(_directory(settings.tls_directory))
    return StatusJudge(policy, secrets=secrets, tls=tls, proxy=proxy)


class Ways(NamedTuple):
    """All ways to ask, made for one event loop."""

    wire: HttpPool
    resolver: Resolver
    """To be closed after the wire; names are asked through it."""


def ways_of(
    settings: Settings,
    judge: StatusJudge,
    *,
    loop: asyncio.AbstractEventLoop,
    max_open: int,
    max_kept: int,
) -> Ways:
    """Return the wire that judges as `judge` does, with its ways to names, HTTP/2 and the proxy."""
    resolver = Resolver(judge.policy, loop=loop, nameservers=settings.nameservers)
    proxy = judge.proxy if isinstance(judge.proxy, ForwardProxy) else None
    detour = Detour(
        judge,
        loop=loop,
        max_open=max(1, max_open // DETOUR_SHARE),
        resolver=resolver,
        proxy=proxy,
    )
    wire = HttpPool(
        judge,
        loop=loop,
        max_open=max_open,
        max_kept=max_kept,
        keep=KeepRule(settings.connection_age_s, settings.fresh_every),
        resolver=resolver,
        detour=detour,
    )
    return Ways(wire, resolver)


def refuse_malformed(target: ReplicaProbeTarget) -> None:
    """Refuse what no prober of this version could check, whatever it has at hand and may dial.

    Raises:
        WireError: as `admit` does.
    """
    admit(target, ConnectPolicy(), secrets=_Elsewhere(), tls=_Elsewhere())


def _proxy_url(text: str, secrets: References) -> Secret:
    try:
        url = secrets.value(text) if text.startswith(_REFERENCES) else Secret(text)
    except UnsupportedCheck as error:
        raise SettingsError(f"probe.proxy: {error}") from error
    if urlsplit(url.reveal()).scheme not in _PROXY_SCHEMES:
        raise SettingsError("probe.proxy: what it names is no URL; write http://10.0.0.1:3128")
    return url


def _directory(text: str) -> Path | None:
    return Path(text) if text else None


class _Elsewhere:
    """Stands for the secrets and certificates of a prober on another host."""

    def value(self, reference: str, /) -> Secret:
        kind, _, name = reference.partition(":")
        if (kind == "env" and name.startswith(VARIABLE_PREFIX)) or (
            kind == "file" and is_below(name)
        ):
            return _ANY_VALUE
        raise UnsupportedCheck(
            f"a reference is env:{VARIABLE_PREFIX}NAME or file:NAME, never the value itself"
        )

    def plan(self, options: TlsOptions, _host: Place, /, *, http2: bool) -> TlsPlan:
        del http2
        return TlsPlan(_any_context(), options.server_name)


@cache
def _any_context() -> ssl.SSLContext:
    """Return a context that is never used; one costs 0.2 ms, and files of targets are long."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
