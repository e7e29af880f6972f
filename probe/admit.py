"""From a target on the bus to what the wire does with it: the request bytes, the place, the TLS.

Called when targets are loaded (and by commands that load them), so that what cannot be checked is
refused then, by the name of the field, and a probe only has to be run. Must not know sockets.
"""

from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from ipaddress import IPv4Address
from typing import Final, Protocol

from probe.errors import MalformedEntry, UnsupportedCheck, WireError
from probe.http.content import Content
from probe.http.policy import ConnectPolicy, Place, UnixPath, parse_place
from probe.http.request import (
    ANY_HOST,
    Headers,
    Prepared,
    Step,
    addressed,
    authority,
    encode_request,
    headers_of,
)
from probe.http.tls import TlsPlan
from probe.layers import nearest
from probe.profiles import PROFILES
from probe.specs import CheckSpec, HttpCheck, TlsOptions
from probe.wire import Method, ReplicaProbeTarget, status_set

AGENT: Final = f"fleetpulse/{version('fleetpulse')}"
STEPS_MAX: Final = 8
"""Of one probe: they share one deadline, and each costs the replica a request."""
DRAFTS_MAX: Final = 1024
"""Steps remembered but for their host: a fleet has few kinds of targets."""
LOCAL_HOST: Final = "localhost"
"""The Host header over a socket of this machine, where no host has a name."""


class Revealed(Protocol):
    """A secret that shows itself only when asked by name."""

    def reveal(self) -> str:
        """Return the value."""


class SecretSource(Protocol):
    """Where the values of request headers are."""

    def value(self, reference: str, /) -> Revealed:
        """Return what a reference stands for. Raises `WireError` if it may not, or is not there."""


class ProxyRule(Protocol):
    """Which places are asked through a forward proxy."""

    def covers(self, place: Place, /) -> bool:
        """Tell whether this one is."""


class TlsSource(Protocol):
    """Where TLS contexts are."""

    def plan(self, options: TlsOptions, host: Place, /, *, http2: bool) -> TlsPlan:
        """Return how to speak TLS to `host`. Raises `WireError` if that cannot be."""


def admit(
    target: ReplicaProbeTarget,
    policy: ConnectPolicy,
    *,
    secrets: SecretSource | None = None,
    tls: TlsSource | None = None,
    proxy: ProxyRule | None = None,
) -> Prepared:
    """Prepare all of a target that does not change from probe to probe.

    An address that the policy refuses is not an error: the target is kept, and each of its
    probes ends as POLICY_DENIED, so that its owner reads why.

    Raises:
        UnsupportedCheck: if it asks for a check that this prober does not have; names the field.
        MalformedEntry: if a part of it cannot be sent, or expectations contradict each other.
    """
    place = parse_place(target.replica_host)
    steps = _steps(target, _host_header(target, place), secrets)
    proxied = proxy is not None and proxy.covers(place)
    if proxied:
        _refuse_by_proxy(target, has_steps=bool(steps))
    return Prepared(
        place=place,
        port=target.inference_port,
        steps=steps,
        tls=_plan(target, place, tls),
        detour=proxied or (target.http2 and bool(steps)),
        refusal=policy.refusal(place, target.inference_port),
    )


def _steps(
    target: ReplicaProbeTarget, host_header: str, secrets: SecretSource | None
) -> tuple[Step, ...]:
    """Return the steps of a target; those of a kind that was seen before are mostly made."""
    if isinstance(target.checks, str) and not target.headers:
        drafts = _drafts(target.checks, target.method, target.health_path, target.expected_status)
        return tuple([addressed(draft, host_header) for draft in drafts])
    values = _values(target, secrets)
    headers = headers_of(host_header=host_header, agent=AGENT, own=values)
    checks = (target.checks,) if isinstance(target.checks, str) else target.checks
    steps = tuple(
        _step(
            check,
            method=target.method,
            path=target.health_path,
            expected=target.expected_status,
            headers=headers,
            replica_id=target.replica_id,
            secrets=tuple(value for _, value in values),
        )
        for check in _asked(checks)
        if isinstance(check, HttpCheck)
    )
    if len(steps) > STEPS_MAX:
        raise MalformedEntry(f"checks: {len(steps)} requests a probe; ask for at most {STEPS_MAX}")
    return steps


@lru_cache(DRAFTS_MAX)
def _drafts(checks: str, method: Method, path: str, expected: str) -> tuple[Step, ...]:
    """Return the steps of a profile for any host; no profile asks for a replica's own id."""
    headers = headers_of(host_header=ANY_HOST, agent=AGENT)
    return tuple(
        _step(check, method=method, path=path, expected=expected, headers=headers)
        for check in _asked((checks,))
        if isinstance(check, HttpCheck)
    )


def _asked(checks: tuple[str | CheckSpec, ...]) -> Iterator[CheckSpec]:
    """Yield what `checks` comes to, profiles replaced by what they stand for."""
    if not checks:
        raise UnsupportedCheck("checks: the list is empty; leave it out for 'http'")
    for check in checks:
        if not isinstance(check, str):
            yield check
        elif check in PROFILES:
            yield from PROFILES[check].checks
        else:
            raise UnsupportedCheck(
                f"checks: {check[:80]!a} is not known{nearest(check[:80], PROFILES)}; "
                f"there are {', '.join(PROFILES)}"
            )


def _step(
    check: HttpCheck,
    *,
    method: Method,
    path: str,
    expected: str,
    headers: Headers,
    replica_id: str = "",
    secrets: tuple[str, ...] = (),
) -> Step:
    path, method = check.path or path, check.method or method
    if method == "HEAD" and (check.body_contains or check.json):
        raise MalformedEntry("checks: the reply to a HEAD has no body to look into; use GET")
    return Step(
        request=encode_request(method, path, headers),
        head_only=method == "HEAD",
        expected=status_set(check.expected_status or expected),
        content=Content.of(check, replica_id=replica_id),
        method=method,
        path=path,
        headers=headers,
        secrets=secrets,
    )


def _values(target: ReplicaProbeTarget, secrets: SecretSource | None) -> Headers:
    if not target.headers:
        return ()
    if secrets is None:
        names = ", ".join(target.headers)
        raise UnsupportedCheck(
            f"headers: {names[:80]!a} cannot be sent: this prober has no place for secrets"
        )
    values = []
    for name, reference in target.headers.items():
        try:
            values.append((name, secrets.value(reference).reveal()))
        except WireError as error:
            raise UnsupportedCheck(f"headers: {name}: {error}") from None
    return tuple(values)


def _plan(target: ReplicaProbeTarget, place: Place, tls: TlsSource | None) -> TlsPlan | None:
    if target.scheme == "http":
        if target.tls is not None:
            raise UnsupportedCheck(
                "tls: is set, but scheme is 'http'; use 'https', or leave it out"
            )
        return None
    if tls is None:
        raise UnsupportedCheck("scheme: 'https' cannot be spoken: this prober has no TLS")
    return tls.plan(target.tls or TlsOptions(), place, http2=target.http2)


def _refuse_by_proxy(target: ReplicaProbeTarget, *, has_steps: bool) -> None:
    """Refuse what a proxy would answer for the replica."""
    if not has_steps:
        raise UnsupportedCheck(
            "checks: 'tcp' would only reach the proxy; use 'http', or set proxy_for"
        )
    if target.http2 and target.scheme == "http":
        raise UnsupportedCheck("http2: a proxy forwards HTTP/1.1; use scheme 'https', or leave it")


def _host_header(target: ReplicaProbeTarget, place: Place) -> str:
    if target.host_header is not None:
        return target.host_header
    if isinstance(place, UnixPath):
        return LOCAL_HOST
    host = target.replica_host if isinstance(place, IPv4Address) else str(place)  # one spelling
    return authority(host, target.inference_port, scheme=target.scheme)
