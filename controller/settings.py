"""What an operator may set on the controller: frozen, with units, refused when it cannot work.

Layers as in `probe.layers`: defaults, the `[controller]` table of a TOML file, environment
(`FLEETPULSE_CONTROLLER__LEASE_S`, and the shared `FLEETPULSE_REDIS_URL`,
`FLEETPULSE_DATABASE_URL`), flags.
"""

import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from controller.model_definition import PORT_MAX
from probe.errors import SettingsError
from probe.layers import Effective, Layers, parse_address

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
_Days = Annotated[float, msgspec.Meta(ge=1, le=3650)]


class Period(NamedTuple):
    """How often a handler runs: on its own, and at most when a mark wakes it."""

    long_s: float
    on_mark_s: float | None
    first_after_s: float = 0.0


PERIODS: Final[Mapping[str, Period]] = {
    "provision": Period(60, 5),
    "check_starting": Period(60, 5),
    "check_warming_up": Period(60, 5),
    "check_running": Period(60, 10),
    "classify_health": Period(60, 5),
    "second_opinion": Period(10, 5),
    "evict": Period(60, None),
    "drain": Period(30, 5),
    "terminate": Period(30, 5),
    "sync_probe_targets": Period(60, 5, 30),
    "sync_proxy": Period(30, 5),
    "check_replicas": Period(30, 5),
    "deploying": Period(30, 5),
    "destroying": Period(60, 5),
    "audit_history": Period(60, None),
    "record_hold": Period(10, 5),
    "prune": Period(60, None),
}
"""Every handler's periods, unless `max_period_s` bounds them."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The controller's settings after all layers; defaults are what most fleets need."""

    database_url: str = ""
    """Where the state lives: sqlite:///PATH or postgresql://USER@HOST/NAME. Required."""
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
    key_prefix: Annotated[str, msgspec.Meta(max_length=64, pattern=r"\A[!-~]*\Z")] = ""
    """Goes before every key, so that two systems may share one bus."""
    metrics: str = "127.0.0.1:9156"
    """HOST:PORT of /metrics, /livez, /readyz and the HTTP API; port 0 picks a free one, printed."""
    api: bool = True
    """Whether the HTTP API and its page are served there, too."""
    api_tokens_file: str = ""
    """Who may use the API: lines of NAME ROLE TOKEN. Empty: whoever reaches the port, so only
    loopback is allowed. Read anew when it changes."""
    api_certificate_file: str = ""
    """Certificate of that port, for TLS; needed together with tokens beyond loopback."""
    api_key_file: str = ""
    """Its key, where the certificate file does not hold it."""
    instance: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z._:-]{0,128}\Z")] = ""
    """The name of this controller in the lease; empty means host name and process id."""
    provisioner: Literal["external", "process", "simulated"] = "external"
    """What runs the replicas: somebody else, this machine, or the simulated fleet."""
    fleet_socket: str = ""
    """The unix socket of the simulated fleet."""
    process_directory: str = ""
    """Where replicas that are processes of this machine work and log."""
    process_host: str = "127.0.0.1"
    """The address of this machine at which they serve."""
    process_ports: Annotated[str, msgspec.Meta(pattern=r"\A\d{1,5}-\d{1,5}\Z")] = "20000-29999"
    """The ports they get; keep them out of those the kernel hands out (32768 and up)."""
    lease_s: Annotated[float, msgspec.Meta(ge=1, le=600)] = 15.0
    """How long leadership lasts without renewal."""
    starting_timeout_s: _Seconds = 1800.0
    """How long a session may be pending without an address, for instance for want of a GPU."""
    unregister_timeout_s: _Seconds = 60.0
    """How long a replica waits for proxies to be told before it goes all the same."""
    termination_grace_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 30.0
    """How long a replica out of traffic may finish what it has, and how long its process may then
    take to end before it is killed."""
    history_keep_days: _Days = 30.0
    """How long history is kept, and the logs of evictions and holds."""
    terminal_routes_keep_days: _Days = 7.0
    """How long routes that have ended are kept; their history stays for as long as any."""
    max_period_s: _Seconds = 60.0
    """No handler waits longer than this between two runs, marked or not."""
    max_mark_pause_s: _Seconds = 10.0
    """A handler that a mark wakes runs at most this long after its last run."""
    first_sync_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 30.0
    """When targets are first synced after a start."""
    model_root: Annotated[str, msgspec.Meta(pattern=r"\A(/.*)?\Z")] = ""
    """Folder that model folders named over the API have to be in; empty: none may be named."""
    enable_model_definition_override: bool = False
    """Whether a definition file goes over what the runtime variant brings."""

    @property
    def port_range(self) -> range:
        """Return the ports for processes of this machine."""
        first, _, last = self.process_ports.partition("-")
        return range(int(first), int(last) + 1)

    def period(self, handler: str) -> Period:
        """Return the periods of one handler, within the two bounds above."""
        period = PERIODS[handler]
        return Period(
            min(period.long_s, self.max_period_s),
            None if period.on_mark_s is None else min(period.on_mark_s, self.max_mark_pause_s),
            min(period.first_after_s, self.first_sync_s),
        )


_LAYERS: Final = Layers(
    struct=Settings,
    table="controller",
    shared_names={
        "FLEETPULSE_REDIS_URL": "redis_url",
        "FLEETPULSE_DATABASE_URL": "database_url",
    },
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
    settings = effective.settings
    if not settings.database_url:
        raise SettingsError(
            "no database is named: pass --database sqlite:///fleetpulse.db, or set "
            "FLEETPULSE_DATABASE_URL"
        )
    _check_api(settings)
    if settings.provisioner == "simulated" and not settings.fleet_socket:
        raise SettingsError(
            "controller.provisioner = 'simulated' needs controller.fleet_socket, the socket of "
            "a running fleet: python -m controller.provision.fleet --socket PATH"
        )
    if settings.provisioner == "process":
        _check_process(settings)
    return effective


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine by its loopback.

    >>> is_loopback("127.0.0.2"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _check_api(settings: Settings) -> None:
    host, _ = parse_address("controller.metrics", settings.metrics)
    if settings.api_key_file and not settings.api_certificate_file:
        raise SettingsError("controller.api_key_file needs controller.api_certificate_file, too")
    safe = settings.api_tokens_file and settings.api_certificate_file
    if settings.api and not safe and not is_loopback(host):
        raise SettingsError(
            f"controller.metrics = {settings.metrics!r} can be reached from other machines: set "
            "controller.api_tokens_file and controller.api_certificate_file, or controller.api = "
            "false to serve only /metrics, /livez and /readyz there"
        )


def _check_process(settings: Settings) -> None:
    if not sys.platform.startswith("linux"):
        raise SettingsError(
            f"controller.provisioner = 'process' needs Linux, and this is {sys.platform}: use "
            "'external', or run the controller in a Linux container"
        )
    if not settings.process_directory:
        raise SettingsError(
            "controller.provisioner = 'process' needs controller.process_directory, a directory "
            "for the replicas' work and logs, such as /var/lib/fleetpulse/processes"
        )
    ports = settings.port_range
    if not ports or ports[0] < 1 or ports[-1] > PORT_MAX:
        raise SettingsError(
            f"controller.process_ports = {settings.process_ports!r} is no range of ports: write "
            f"FIRST-LAST, from 1 to {PORT_MAX}, such as 20000-29999"
        )
