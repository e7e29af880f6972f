"""What httpx is given: a transport of one target, and the requests to send on it.

Called by the detour. httpcore would choose protocol and server name by itself and change the
shared TLS context on the way; here the target's plan decides both.
"""

import errno
import ssl
from types import MappingProxyType
from typing import Final, cast

import httpx

from probe.http.exchange import Journey
from probe.http.place import UnixPath
from probe.http.proxies import ForwardProxy
from probe.http.request import Prepared, Step
from probe.http.tls import TlsPlan

_LIMITS: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)
_REPLICA_UNREACHED: Final = MappingProxyType(
    {"502": errno.EHOSTUNREACH, "503": errno.EHOSTUNREACH, "504": errno.ETIMEDOUT}
)
"""What a proxy answers when it could not reach the replica; all else is between it and us."""


class ProxyTrouble(Exception):  # noqa: N818 - reads as what it is: no error of the replica
    """The proxy failed before it could say anything of the replica."""


class _Handshake:
    """What httpcore may do with a target's TLS context: which name and protocol is not its say."""

    def __init__(self, plan: TlsPlan) -> None:
        self._plan = plan

    def set_alpn_protocols(self, _protocols: list[str]) -> None:
        """Leave the shared context as it is."""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        _server_side: bool,  # noqa: FBT001 - as `ssl.SSLContext` has it
        _server_hostname: object,
        _session: object,
    ) -> ssl.SSLObject:
        """Begin a handshake for the name in the plan."""
        return self._plan.context.wrap_bio(
            incoming, outgoing, server_hostname=self._plan.server_name
        )


def open_transport(
    prepared: Prepared, *, http2: bool, proxy: ForwardProxy | None
) -> httpx.AsyncHTTPTransport:
    """Return a transport for one target: one connection at most, made when it is first used."""
    plan, place = prepared.tls, prepared.place
    if plan is None:  # httpx wants a context, and would spend 18 ms on one of its own
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        context = cast("ssl.SSLContext", _Handshake(plan))
    return httpx.AsyncHTTPTransport(
        verify=context,
        trust_env=False,
        http1=not http2,
        http2=http2,
        limits=_LIMITS,
        proxy=None if proxy is None else proxy.url.reveal(),
        uds=place.path if isinstance(place, UnixPath) else None,
    )


def request_for(prepared: Prepared, step: Step, host: str, journey: Journey) -> httpx.Request:
    """Return the request of one step; `host` is what is dialled, or what the proxy is to dial."""
    url = httpx.URL(
        scheme="http" if prepared.tls is None else "https",
        host=host,
        port=prepared.port,
        raw_path=step.path.encode("ascii"),
    )
    headers = list(step.headers)
    return httpx.Request(step.method, url, headers=headers, extensions={"trace": journey.trace})


def said_by_proxy(text: str) -> Exception:
    """Tell a replica that the proxy could not reach from a proxy that did not want to."""
    number = _REPLICA_UNREACHED.get(text[:3])
    if number is not None:
        return OSError(number, "")
    return ProxyTrouble(f"the proxy answered {text}")
