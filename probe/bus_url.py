"""How the bus is addressed: one server, a Sentinel service, or a cluster.

Read by the settings, which refuse what cannot be an address, and by `probe.bus.client`, which
connects to it. Pure; what stands behind an address is not looked at here.
"""

from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from probe.errors import SettingsError

SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
REMEDY: Final = (
    "write for example redis://127.0.0.1:6379/0, rediss://bus:6379/0, unix:///path, "
    "redis+sentinel://host:26379,host:26379/service/0 or redis+cluster://host:6379,host:6379"
)
_PORTS: Final = {"sentinel": 26379, "cluster": 6379}


class Kind(StrEnum):
    """What answers at an address."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class BusUrl(NamedTuple):
    """An address of the bus, taken apart."""

    kind: Kind
    tls: bool
    bare: str
    """The address without user and password; a single server's is what redis understands."""
    username: str | None
    password: str | None
    hosts: tuple[tuple[str, int], ...]
    """Sentinels, or nodes to ask for the others; empty for a single server."""
    service: str
    """What the Sentinels call the group of servers."""
    db: int


def parse_bus_url(url: str) -> BusUrl:
    """Take an address of the bus apart.

    >>> parse_bus_url("redis+sentinel://a,b:7/fleet/2").hosts
    (('a', 26379), ('b', 7))

    Raises:
        SettingsError: if it is none.
    """
    try:
        return _parse(url)
    except ValueError as error:
        raise SettingsError(f"the bus address cannot be used ({error}): {REMEDY}") from error


def _parse(url: str) -> BusUrl:
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise SettingsError(
            f"the scheme {parts.scheme!r} is not one of {', '.join(SCHEMES)}; {REMEDY}"
        )
    scheme, _, form = parts.scheme.partition("+")
    login, at, places = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    kind = Kind(form or "single")
    service, db = "", 0
    if kind is not Kind.SINGLE:
        if parts.query:
            raise ValueError(f"{parts.query.split('=')[0]!r} cannot be set in it")
        service, _, number = parts.path.strip("/").partition("/")
        if kind is Kind.CLUSTER and service not in {"", "0"}:
            raise ValueError("a cluster has only the database 0")
        if kind is Kind.SENTINEL and not service:
            raise ValueError("it names no service")
        db = int(number or 0)
    return BusUrl(
        kind=kind,
        tls=scheme == "rediss",
        bare=parts._replace(netloc=places).geturl(),
        username=unquote(username) if at and username else None,
        password=unquote(password) if at and password else None,
        hosts=()
        if kind is Kind.SINGLE
        else tuple(_host(p, _PORTS[kind]) for p in places.split(",")),
        service=service,
        db=db,
    )


def _host(place: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{place}")
    if not parts.hostname:
        raise ValueError(f"{place!r} is no host")
    port = parts.port  # refuses what is not in 0-65535
    return parts.hostname, default_port if port is None else port
