"""From the settings to a link: which client of the library, with which credentials.

Called by both daemons and by the commands, once. What cannot work is refused before anything is
dialled; the first command connects.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.maint_notifications import MaintNotificationsConfig

from probe.bus.client import BusLink
from probe.bus.cluster import ClusterLink
from probe.bus_url import REMEDY, BusUrl, Kind, parse_bus_url
from probe.errors import SettingsError

Client = Redis | RedisCluster
SENTINEL_TIMEOUT_S: Final = 0.5
"""One Sentinel that does not answer must leave time to ask the next."""


class BusSettings(Protocol):
    """What both daemons' settings say of the bus."""

    @property
    def redis_url(self) -> str: ...  # noqa: D102 - described where it is set
    @property
    def bus_ca_file(self) -> str: ...  # noqa: D102
    @property
    def bus_certificate_file(self) -> str: ...  # noqa: D102
    @property
    def bus_key_file(self) -> str: ...  # noqa: D102
    @property
    def bus_password_file(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class BusFiles:
    """Files that a connection needs; empty where it needs none."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    password: str = ""

    @classmethod
    def of(cls, settings: BusSettings) -> "BusFiles":
        """Take them from the settings of a daemon."""
        return cls(
            ca=settings.bus_ca_file,
            certificate=settings.bus_certificate_file,
            key=settings.bus_key_file,
            password=settings.bus_password_file,
        )


def connect(
    url: str,
    *,
    files: BusFiles = BusFiles(),
    client_name: str = "fleetpulse-probe",
    max_connections: int = 8,
    timeout_s: float = 2.0,
) -> Client:
    """Build a client of the bus at `url`; the first command connects.

    Raises:
        SettingsError: if `url` is no address of a bus, or a file cannot be used with it.
    """
    where = parse_bus_url(url)
    options: dict[str, Any] = {
        "client_name": client_name,
        "max_connections": max_connections,
        "protocol": 3,
        "driver_info": None,  # a command more, which older servers and our users do not know
        "socket_connect_timeout": timeout_s,
        "socket_timeout": None,  # the link has one deadline for the whole of an operation
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        **_login(where, files),
        **_tls(where, files),
    }
    try:
        match where.kind:
            case Kind.SINGLE:
                return _single(where, options, timeout_s=timeout_s)
            case Kind.SENTINEL:
                return _sentinel(where, options)
            case Kind.CLUSTER:
                return _cluster(where, options)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"the bus address cannot be used ({error}): {REMEDY}") from error


def link_of(client: Client, *, timeout_s: float) -> BusLink:
    """Return the link that speaks through `client`."""
    if isinstance(client, RedisCluster):
        return ClusterLink(client, timeout_s=timeout_s)
    return BusLink(client, timeout_s=timeout_s)


def _single(where: BusUrl, options: dict[str, Any], *, timeout_s: float) -> Redis:
    pool = BlockingConnectionPool.from_url(
        where.bare, timeout=timeout_s, retry=_never_again(), **options
    )
    pool.make_connection()  # type: ignore[no-untyped-call]  # refuses what it cannot use
    return Redis.from_pool(pool)


def _sentinel(where: BusUrl, options: dict[str, Any]) -> Redis:
    tls = {name: value for name, value in options.items() if name.startswith("ssl")}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # as the library has it
        where.hosts,
        sentinel_kwargs={
            **tls,
            "socket_connect_timeout": SENTINEL_TIMEOUT_S,
            "socket_timeout": SENTINEL_TIMEOUT_S,
            "retry": _never_again(),
        },
    )
    client: Redis = sentinel.master_for(
        where.service, connection_pool_class=_Service, db=where.db, retry=_never_again(), **options
    )
    return client


def _cluster(where: BusUrl, options: dict[str, Any]) -> RedisCluster:
    nodes = [ClusterNode(host, port) for host, port in where.hosts]
    return RedisCluster(startup_nodes=nodes, retry=_never_again(), **options)


class _Service(SentinelConnectionPool):
    """The servers of a Sentinel service; closes the connections to the Sentinels as well."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


class _PasswordFile(CredentialProvider):
    """Reads the password for every connection, so that it may change while we run."""

    def __init__(self, path: Path, username: str | None) -> None:
        self._path = path
        self._username = username

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            # The library closes a connection that it could not log in for its own errors only.
            raise RedisConnectionError(f"the password file cannot be read: {error}") from error
        return (self._username, password) if self._username else (password,)


def _never_again() -> Retry:
    """Return the library's retry that retries nothing: the link has its own."""
    return Retry(NoBackoff(), retries=0)


def _login(where: BusUrl, files: BusFiles) -> dict[str, Any]:
    if not files.password:
        return {"username": where.username, "password": where.password}
    if where.password is not None:
        raise SettingsError(
            "the bus address holds a password and bus_password_file is set: keep one"
        )
    provider = _PasswordFile(Path(files.password), where.username)
    _usable("bus_password_file", files.password, provider.get_credentials)
    return {"credential_provider": provider}


def _tls(where: BusUrl, files: BusFiles) -> dict[str, Any]:
    named = {
        "bus_ca_file": files.ca,
        "bus_certificate_file": files.certificate,
        "bus_key_file": files.key,
    }
    for name, path in named.items():
        if path and not where.tls:
            raise SettingsError(f"{name} = {path!r}: TLS needs an address with rediss, not redis")
    if files.key and not files.certificate:
        raise SettingsError(f"bus_key_file = {files.key!r} needs bus_certificate_file beside it")
    if not where.tls:
        return {}
    context = ssl.create_default_context()
    if files.ca:
        _usable("bus_ca_file", files.ca, partial(context.load_verify_locations, files.ca))
    if files.certificate:
        load = partial(context.load_cert_chain, files.certificate, files.key or None)
        _usable("bus_certificate_file", files.certificate, load)
    found = {
        "ssl_ca_certs": files.ca or None,
        "ssl_certfile": files.certificate or None,
        "ssl_keyfile": files.key or None,
    }
    return found if where.kind is Kind.SINGLE else {"ssl": True, **found}


def _usable(name: str, path: str, use: Callable[[], object]) -> None:
    try:
        use()
    except (OSError, ValueError, RedisConnectionError) as error:  # ssl.SSLError is an OSError
        raise SettingsError(f"{name} = {path!r} cannot be used: {error}") from error
