"""What an operator may set on the prober: frozen, with units, refused when it cannot work.

Layers as in `probe.layers`: defaults, the `[probe]` table of a TOML file, environment
(`FLEETPULSE_PROBE__FLUSH_S`, and the shared `FLEETPULSE_REDIS_URL`, `FLEETPULSE_ALLOW`), flags.
"""

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from probe import allow
from probe.allow import ANY_PORT
from probe.bus_url import parse_bus_url
from probe.errors import SettingsError
from probe.layers import Effective, Layers, mask_url, parse_address
from probe.ownership import Shard
from probe.schedule.damping import Damping
from probe.schedule.pace import Pace
from probe.wire import HEARTBEAT_TTL_S, PARTITIONS, STATUS_TTL_FLOOR_S, ReplicaProbeTarget

TABLE: Final = "probe"
PROXY_SCHEMES: Final = ("http", "https", "env", "file")
PRIVATE_RANGES: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
_TARGET_DEFAULTS: Final = {
    field.name: field.default for field in msgspec.structs.fields(ReplicaProbeTarget)
}

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The prober's settings after all layers; defaults are what most fleets need."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The bus: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://."""
    bus_ca_file: str = ""
    """Authorities that sign the bus's certificate; empty means those of the host."""
    bus_certificate_file: str = ""
    """Certificate shown to the bus."""
    bus_key_file: str = ""
    """Its key, where the certificate file does not hold it."""
    bus_password_file: str = ""
    """File with the password of the bus, read anew for each connection."""
    bus_layout: Literal["json", "hash"] = "json"
    """How targets and statuses lie on the bus: our JSON, or the hashes of Backend.AI."""
    key_prefix: Annotated[str, msgspec.Meta(max_length=64, pattern=r"\A[!-~]*\Z")] = ""
    """Goes before every key, so that two systems may share one bus."""
    allow: tuple[str, ...] = PRIVATE_RANGES
    """Networks (CIDR) and sockets (`unix:/prefix`) that may be dialled; else POLICY_DENIED."""
    allow_ports: tuple[str, ...] = (ANY_PORT,)
    """Ports that may be dialled: single ones and ranges."""
    allow_dns: bool = False
    """Whether a target may name its host; each address it resolves to must be allowed too."""
    nameservers: tuple[str, ...] = ()
    """HOST:PORT of the name servers to ask; empty means those of the host."""
    tls_directory: str = ""
    """Directory of the authorities and client certificates that targets name."""
    secrets_directory: str = ""
    """Directory of the files that targets name as `file:NAME`."""
    proxy: str = ""
    """URL of a forward proxy, or `env:NAME` or `file:NAME` of a secret that holds it."""
    proxy_for: tuple[str, ...] = ()
    """Networks and name suffixes (`.example`) asked through `proxy`; empty means all."""
    metrics: str = "127.0.0.1:9155"
    """HOST:PORT of /metrics, /livez and /readyz; port 0 picks a free one and prints it."""
    instance: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z._:-]{0,128}\Z")] = ""
    """The name of this prober on the bus; empty means host name and process id."""
    max_connections: _Count = 0
    """Connections open at most; 0 means as many as the file descriptor limit allows."""
    max_in_flight: _Count = 0
    """Probes on the wire at most; 0 means `max_connections`."""
    connection_age_s: _Seconds = 300.0
    """A kept connection is closed at this age at the latest, or up to a quarter earlier."""
    fresh_every: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 250
    """One probe in so many opens a new connection, whatever is kept; 1: every probe."""
    deployment_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.75
    """Of `max_in_flight`: what one deployment gets at most while there are others."""
    pace_share: Annotated[float, msgspec.Meta(ge=0, le=0.3)] = 0.05
    """Extra probes at the edge of a verdict, and ones left out of targets long down, are at most
    this share of all; 0 keeps every target to its interval."""
    backoff_after_s: _Seconds = 300.0
    """A target is down for so long before its probes are halved; each doubling halves again."""
    backoff_max: Annotated[int, msgspec.Meta(ge=1, le=8)] = 2
    """A target long down is probed once in this many intervals at most; 1 turns it off."""
    damping_suppress: Annotated[float, msgspec.Meta(ge=0, le=100)] = 4.0
    """Each change of a verdict adds 1 to its penalty; a target that goes down with this much stays
    unhealthy until it has calmed down. 0 turns damping off."""
    damping_reuse: Annotated[float, msgspec.Meta(gt=0, le=100)] = 2.0
    """Down to this a penalty must have decayed before its target may be healthy again."""
    damping_half_life_s: _Seconds = 300.0
    """A penalty halves in this time."""
    damping_max_s: _Seconds = 900.0
    """No target is kept down longer than this for its flapping."""
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
    """How often the heartbeat is written."""
    heartbeat_ttl_s: Annotated[int, msgspec.Meta(ge=1, le=HEARTBEAT_TTL_S)] = HEARTBEAT_TTL_S
    """How long a heartbeat lives: so long after a prober died the others share its work."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=PARTITIONS)] | Literal["auto"] = 1
    """Processes that share the work; `auto` is one for each core."""
    shard: Annotated[str, msgspec.Meta(max_length=16)] = ""
    """I/N: watch a fixed share, whoever else there is; empty shares with those that live."""
    bus_timeout_s: _Seconds = 2.0
    """Longest wait for one answer of the bus."""
    bus_backoff_s: _Seconds = 2.0
    """Longest wait between two tries while the bus is away."""
    interval_stretch_max: Annotated[float, msgspec.Meta(ge=1, le=100)] = 3.0
    """By how much all intervals may be stretched while the CPU does not suffice; 1 is never."""
    reference_targets: tuple[str, ...] = ()
    """HOST:PORT that always accept: all silent while targets fail means our own network is gone."""
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=9)] = 1.0
    """On SIGTERM probes in flight get this long to end, before the last results are written."""

    @property
    def pace(self) -> Pace:
        """How far the beat of probes may bend."""
        return Pace(self.pace_share, self.backoff_after_s, self.backoff_max, self.flush_s)

    @property
    def damping(self) -> Damping:
        """How flapping is held against a target."""
        return Damping(
            half_life_s=self.damping_half_life_s,
            suppress=self.damping_suppress,
            reuse=self.damping_reuse,
            max_s=self.damping_max_s,
        )


_LAYERS: Final = Layers(
    struct=Settings,
    table=TABLE,
    shared_names={"FLEETPULSE_REDIS_URL": "redis_url", "FLEETPULSE_ALLOW": "allow"},
)


def load(
    file: Path | None, environ: Mapping[str, str], *, flags: Mapping[str, object]
) -> Effective[Settings]:
    """Layer the settings and check that the whole can work.

    Raises:
        SettingsError: if a layer cannot be read, a value is out of range, or the sums do not
            add up.
    """
    effective = _LAYERS.load(file, environ, flags)
    _refuse_impossible(effective.settings)
    _refuse_stretch(effective.settings)
    return effective


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
    ttl_s = settings.heartbeat_ttl_s
    if 3 * settings.heartbeat_s > ttl_s:
        raise SettingsError(
            f"{TABLE}.heartbeat_s = {settings.heartbeat_s:g}: a heartbeat lives {ttl_s} s and may "
            f"be missed twice, so at most {ttl_s / 3:.3g}"
        )
    if settings.damping_suppress and settings.damping_reuse >= settings.damping_suppress:
        raise SettingsError(
            f"{TABLE}.damping_reuse {settings.damping_reuse:g} is not below "
            f"{TABLE}.damping_suppress {settings.damping_suppress:g}: what is damped would be "
            f"free at once; lower {TABLE}.damping_reuse, or turn it off with "
            f"{TABLE}.damping_suppress = 0"
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


def _refuse_stretch(settings: Settings) -> None:
    """Refuse a stretch after which statuses of the default interval would expire."""
    interval_s, timeout_s = _TARGET_DEFAULTS["interval_s"], _TARGET_DEFAULTS["timeout_s"]
    most = (STATUS_TTL_FLOOR_S - timeout_s - settings.flush_s) / (3 * interval_s)
    if settings.interval_stretch_max > max(1.0, most):
        raise SettingsError(
            f"{TABLE}.interval_stretch_max = {settings.interval_stretch_max:g}: three intervals of "
            f"{interval_s:g} s, stretched so far, a timeout and a flush do not fit into the "
            f"{STATUS_TTL_FLOOR_S} s that a status lives; at most {int(most * 10) / 10:g}"
        )


def _refuse_unusable(settings: Settings) -> None:
    """Refuse texts that have the right type and yet mean nothing."""
    try:
        parse_bus_url(settings.redis_url)
    except SettingsError as error:
        url = mask_url(settings.redis_url)
        raise SettingsError(f"{TABLE}.redis_url = {url!r}: {error}") from error
    parse_address(f"{TABLE}.metrics", settings.metrics)
    for place in settings.reference_targets:
        host = parse_address(f"{TABLE}.reference_targets", place).host
        try:
            ip_address(host)
        except ValueError as error:
            raise SettingsError(
                f"{TABLE}.reference_targets: {host!r} is a name, and a landmark must not hang on "
                "a resolver; write an IP address, for example 10.0.0.1:443"
            ) from error
    if settings.shard:
        Shard.parse(settings.shard)
    if not settings.allow:
        raise SettingsError(f"{TABLE}.allow is empty: no target could be dialled; name a network")
    _refuse_unreachable(settings)


def _refuse_unreachable(settings: Settings) -> None:
    """Refuse lists of what may be reached that mean nothing."""
    for entry in settings.allow:
        spell = allow.prefix if entry.startswith(allow.UNIX) else allow.network
        spell(entry, f"{TABLE}.allow")
    for entry in settings.allow_ports:
        allow.ports(entry, f"{TABLE}.allow_ports")
    for server in settings.nameservers:
        host, _ = parse_address(f"{TABLE}.nameservers", server)
        allow.network(host, f"{TABLE}.nameservers")
    for entry in settings.proxy_for:
        allow.network_or_suffix(entry, f"{TABLE}.proxy_for")
    scheme = urlsplit(settings.proxy).scheme
    if settings.proxy and scheme not in PROXY_SCHEMES:
        raise SettingsError(
            f"{TABLE}.proxy = {mask_url(settings.proxy)!r}: the scheme {scheme!r} is not one of "
            f"{', '.join(PROXY_SCHEMES)}; write for example http://10.0.0.1:3128"
        )
    if settings.proxy_for and not settings.proxy:
        raise SettingsError(f"{TABLE}.proxy_for is set without {TABLE}.proxy: name the proxy too")
