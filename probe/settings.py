"""What an operator may set: frozen, with units in the names, and refused when it cannot work.

Layers, each over the one before: defaults, the `[probe]` table of a TOML file, environment
(`FLEETPULSE_PROBE__FLUSH_S`, and the shared names `FLEETPULSE_REDIS_URL`, `FLEETPULSE_ALLOW`),
flags. The layers come in as values, so nothing here reads the environment; every value remembers
where it came from, for `--check-config`.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from probe.errors import SettingsError
from probe.wire import HEARTBEAT_TTL_S, STATUS_TTL_FLOOR_S, ReplicaProbeTarget

ENVIRONMENT_PREFIX: Final = "FLEETPULSE_PROBE__"
SHARED_NAMES: Final = {"FLEETPULSE_REDIS_URL": "redis_url", "FLEETPULSE_ALLOW": "allow"}
TABLE: Final = "probe"
_OTHER_TABLES: Final = frozenset({"controller"})
"""One file may configure both daemons."""
_TARGET_DEFAULTS: Final = {
    field.name: field.default for field in msgspec.structs.fields(ReplicaProbeTarget)
}

BUS_SCHEMES: Final = ("redis", "rediss", "unix")
PRIVATE_RANGES: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
PORT_MAX: Final = 65535
_USER_PASSWORD: Final = re.compile(r"(?<=//)([^:@/]*):.*@")
_QUERY_PASSWORD: Final = re.compile(r"([?&](?:ssl_)?password=)[^&#]*")

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The prober's settings after all layers; defaults are what most fleets need."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The bus: redis://, rediss:// or unix://."""
    key_prefix: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Goes before every key, so that two systems may share one bus."""
    allow: tuple[str, ...] = PRIVATE_RANGES
    """Networks (CIDR) that may be dialled; everything else is POLICY_DENIED."""
    metrics: str = "127.0.0.1:9155"
    """HOST:PORT of /metrics, /livez and /readyz; port 0 picks a free one and prints it."""
    instance: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z._:-]{0,128}\Z")] = ""
    """The name of this prober on the bus; empty means host name and process id."""
    max_connections: _Count = 0
    """Connections open at most; 0 means as many as the file descriptor limit allows."""
    max_in_flight: _Count = 0
    """Probes on the wire at most; 0 means `max_connections`."""
    tick_s: Annotated[float, msgspec.Meta(ge=0.001, le=0.1)] = 0.01
    """How often the sweep looks for what is due: the grain of schedule and deadlines."""
    poll_s: _Seconds = 0.25
    """How often the version hash is read: the longest a new target waits to be noticed."""
    full_refresh_s: _Seconds = 30.0
    """How often every owned partition is read again, moved or not."""
    flush_s: _Seconds = 0.2
    """A result waits at most this long for others to share its write."""
    flush_count: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 500
    """Results that are written without waiting for more."""
    late_result_s: _Seconds = 5.0
    """A result older than this is dropped, not written late."""
    heartbeat_s: _Seconds = 5.0
    """How often the heartbeat is written; it lives 15 s on the bus."""
    bus_timeout_s: _Seconds = 2.0
    """Longest wait for one answer of the bus."""
    bus_backoff_s: _Seconds = 2.0
    """Longest wait between two tries while the bus is away."""
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=10)] = 5.0
    """On SIGTERM probes in flight get this long to end, before the last results are written."""


_FIELDS: Final = {field.name: field for field in msgspec.structs.fields(Settings)}


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class Effective(NamedTuple):
    """The settings, and for each key where its value came from."""

    settings: Settings
    sources: Mapping[str, str]

    def lines(self) -> Iterator[str]:
        """Yield the settings as a TOML file, secrets masked, each value with its source."""
        yield f"[{TABLE}]"
        for name in _FIELDS:
            value = getattr(self.settings, name)
            shown = mask_url(value) if name == "redis_url" else value
            yield f"{name} = {json.dumps(shown)}  # {self.sources[name]}"


def load(
    file: Path | None,
    environ: Mapping[str, str],
    *,
    flags: Mapping[str, object] | None = None,
) -> Effective:
    """Layer defaults, `file`, `environ` and `flags`, and check that the whole can work.

    Raises:
        SettingsError: if the file cannot be read, a key is unknown, a value is out of range, or
            the sums do not add up.
    """
    values: dict[str, Any] = {}
    sources = dict.fromkeys(_FIELDS, "default")
    layers = (
        _file_layer(file) if file is not None else (),
        _environment_layer(environ),
        ((name, value, "flag") for name, value in (flags or {}).items()),
    )
    for layer in layers:
        for name, value, source in layer:
            values[name] = _convert(name, value, source)
            sources[name] = source
    settings = Settings(**values)
    _refuse_impossible(settings)
    return Effective(settings, sources)


_Layer = Iterable[tuple[str, object, str]]


def _file_layer(path: Path) -> _Layer:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from error
    for name in document:
        if name != TABLE and name not in _OTHER_TABLES:
            raise SettingsError(
                f"{path}: unknown key {name!r}{_nearest(name, [TABLE, *_FIELDS])}; "
                f"the prober's settings stand in the table [{TABLE}]"
            )
    table = document.get(TABLE, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{path}: {TABLE!r} is not a table; write [{TABLE}]")
    for name in table:
        if name not in _FIELDS:
            raise SettingsError(
                f"{path}: unknown key '{TABLE}.{name}'{_nearest(name, _FIELDS, f'{TABLE}.')}"
            )
    return [(name, value, f"file {path}") for name, value in table.items()]


def _environment_layer(environ: Mapping[str, str]) -> _Layer:
    """List what the environment sets; a name of our own goes over a shared one."""
    layer: list[tuple[str, object, str]] = [
        (name, _split(name, environ[variable]), f"environment {variable}")
        for variable, name in SHARED_NAMES.items()
        if environ.get(variable)
    ]
    for variable, value in sorted(environ.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name not in _FIELDS:
            known = [f"{ENVIRONMENT_PREFIX}{field.upper()}" for field in _FIELDS]
            raise SettingsError(
                f"unknown environment variable {variable}{_nearest(variable, known)}"
            )
        layer.append((name, _split(name, value), f"environment {variable}"))
    return layer


def _split(name: str, text: str) -> object:
    if name == "allow":
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    match get_close_matches(name, list(known), n=1, cutoff=0.5):
        case [nearest]:
            return f", did you mean '{prefix}{nearest}'?"
        case _:
            return ""


def _convert(name: str, value: object, source: str) -> object:
    """Bring one value to its type; text is read as numbers only where it came as text."""
    try:
        return msgspec.convert(value, _FIELDS[name].type, strict=not source.startswith("env"))
    except msgspec.ValidationError as error:
        shown = mask_url(value) if name == "redis_url" and isinstance(value, str) else value
        raise SettingsError(f"{TABLE}.{name} = {shown!r} ({source}): {error}") from error


def _refuse_impossible(settings: Settings) -> None:
    _refuse_unusable(settings)
    interval_s, timeout_s = _TARGET_DEFAULTS["interval_s"], _TARGET_DEFAULTS["timeout_s"]
    sum_s = 3 * interval_s + timeout_s + settings.flush_s
    if sum_s > STATUS_TTL_FLOOR_S:
        raise SettingsError(
            f"3 x interval {interval_s:g} s + timeout {timeout_s:g} s + {TABLE}.flush_s "
            f"{settings.flush_s:g} s is {sum_s:g} s, but a status lives {STATUS_TTL_FLOOR_S} s: "
            f"lower {TABLE}.flush_s"
        )
    write_s = settings.flush_s + settings.bus_timeout_s
    if write_s > settings.late_result_s:
        raise SettingsError(
            f"{TABLE}.flush_s + {TABLE}.bus_timeout_s is {write_s:g} s, more than "
            f"{TABLE}.late_result_s {settings.late_result_s:g} s: one slow write would drop the "
            f"results behind it; raise {TABLE}.late_result_s"
        )
    if 3 * settings.heartbeat_s > HEARTBEAT_TTL_S:
        raise SettingsError(
            f"{TABLE}.heartbeat_s = {settings.heartbeat_s:g}: a heartbeat lives "
            f"{HEARTBEAT_TTL_S} s and may be missed twice, so at most {HEARTBEAT_TTL_S / 3:g}"
        )
    if settings.poll_s > settings.full_refresh_s:
        raise SettingsError(
            f"{TABLE}.poll_s {settings.poll_s:g} s is longer than {TABLE}.full_refresh_s "
            f"{settings.full_refresh_s:g} s: lower {TABLE}.poll_s"
        )
    if settings.max_connections and settings.max_in_flight > settings.max_connections:
        raise SettingsError(
            f"{TABLE}.max_in_flight {settings.max_in_flight} is more than "
            f"{TABLE}.max_connections {settings.max_connections}: raise {TABLE}.max_connections"
        )


def _refuse_unusable(settings: Settings) -> None:
    """Refuse texts that have the right type and yet mean nothing."""
    scheme = urlsplit(settings.redis_url).scheme
    if scheme not in BUS_SCHEMES:
        raise SettingsError(
            f"{TABLE}.redis_url = {mask_url(settings.redis_url)!r}: the scheme {scheme!r} is not "
            f"one of {', '.join(BUS_SCHEMES)}; write for example redis://127.0.0.1:6379/0"
        )
    parse_address(settings.metrics)
    if not settings.allow:
        raise SettingsError(f"{TABLE}.allow is empty: no target could be dialled; name a network")
    for network in settings.allow:
        try:
            ip_network(network)
        except ValueError as error:
            raise SettingsError(f"{TABLE}.allow: {error}; write for example 10.0.0.0/8") from error


def parse_address(text: str) -> Address:
    """Split HOST:PORT; an IPv6 host stands in brackets.

    >>> parse_address("[::1]:0")
    Address(host='::1', port=0)

    Raises:
        SettingsError: if `text` is not of that form, or the port is not in 0-65535.
    """
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host != bare
    if not (colon and bare and bracketed == (":" in bare) and port.isascii() and port.isdigit()):
        raise SettingsError(
            f"{TABLE}.metrics = {text!r} is not HOST:PORT; write for example 127.0.0.1:9155"
        )
    if int(port) > PORT_MAX:
        raise SettingsError(f"{TABLE}.metrics = {text!r}: the port is not in 0-{PORT_MAX}")
    return Address(bare, int(port))


def mask_url(url: str) -> str:
    """Return `url` with its password, in either place, as three stars.

    >>> mask_url("redis://ops:s3cret@bus:6379/0?password=s3cret")
    'redis://ops:***@bus:6379/0?password=***'
    """
    return _QUERY_PASSWORD.sub(r"\1***", _USER_PASSWORD.sub(r"\1:***@", url))
