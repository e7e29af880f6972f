"""What only PostgreSQL needs: how it is reached, how its transactions are bounded, its errors.

Used by `controller.db.session` alone. Nothing here is a session's state, and no statement is
prepared under a name, so that a pooler may give every transaction another connection (PgBouncer
in transaction mode): limits are set inside each transaction and end with it.
"""

import os
import re
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from asyncpg.exceptions import ClientConfigurationError
from asyncpg.exceptions import DataError as UnfitValue
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from controller.db.server import Purpose, Server, StoodInTheWay
from controller.errors import ControllerError, DatabaseUnreachable, InvalidInput
from controller.model_definition import PORT_MAX
from probe.layers import mask_url

POOL_SIZE: Final = 5
"""Connections of one process; a controller uses two at a time, the API a few more."""
CONNECT_TIMEOUT_S: Final = 5.0
POOL_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_MS: Final = 5_000
"""A third of a lease: the largest statement (10,000 routes read) takes a tenth of a second."""
LOCK_TIMEOUT_MS: Final = 4_000
"""How long another writer's row is waited for: less than a statement, or that one is told of."""
IDLE_TIMEOUT_MS: Final = 3_000
"""Whoever holds a transaction open and says nothing is cut off: a controller that was stopped in
the middle of one would keep its successor from the lease for longer than the lease."""
COMMAND_TIMEOUT_S: Final = 10.0
"""The client's own patience: a server behind a dead network cuts nothing off itself."""
MIGRATION_TIMEOUT_MS: Final = 3_600_000
MIGRATION_LOCK: Final = 0x666C7075  # "flpu": two upgrades of one database take turns
PARAMETERS: Final = (
    "host",
    "passfile",
    "port",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
)
"""What a URL may carry after its question mark, named as in libpq. Others would become settings
of the session, which a pooler refuses or gives to a stranger."""

FILES: Final = ("sslcert", "sslcrl", "sslkey", "sslrootcert")
"""Of these, what names a file: the driver says of one that is absent as little as of a socket."""

_PLACE: Final = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^:\[\]]*)(:(?P<port>[0-9]{1,5}))?")
"""Of a server; a URL may name several, between commas."""
_LIMITS: Final = text(
    "SELECT set_config('statement_timeout', :statement, true), "
    "set_config('lock_timeout', :lock, true), "
    "set_config('idle_in_transaction_session_timeout', :idle, true), "
    # A server may be told to lose the newest commits in a crash. Ours have effects outside it: a
    # replica that was stopped would come back as one that runs.
    "set_config('synchronous_commit', CASE current_setting('synchronous_commit') "
    "WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)"
)
_TAKE_TURNS: Final = text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")

_TOLD: Final[Mapping[str, tuple[str, str]]] = {
    "42P01": ("lacks the present schema", "run `fleetpulse db upgrade`"),
    "42703": ("lacks the present schema", "run `fleetpulse db upgrade`"),
    "3D000": ("is not there", "create it with `createdb`, then run `fleetpulse db upgrade`"),
    "28P01": ("refused the password", "check user and password of the URL, or its passfile"),
    "28000": ("refused the user", "check the URL's user, sslmode, and the server's pg_hba.conf"),
    "42501": ("refused a right", "let this user own the schema"),
    "25006": (
        "only lets read",
        "name the primary, or every server with target_session_attrs=read-write",
    ),
    "53300": ("has no connection left", "raise its max_connections, or put PgBouncer before it"),
    "53100": ("has no room", "free space on its disk"),
    "55P03": ("stayed busy", "see in pg_stat_activity which transaction holds a lock"),
    "57014": ("took longer than it may", "see in pg_stat_activity what slows it"),
    "25P03": ("closed a transaction that stood still", "give this process more processor time"),
}
"""By SQLSTATE: what it means, and what helps."""
_UNDONE: Final = frozenset({"40001", "40P01"})
_UNFIT: Final = frozenset({"22001", "22003", "22021"})


class Postgres(Server):
    """One PostgreSQL server, or the pooler before it."""

    pool_size = POOL_SIZE

    def __init__(self, url: str, *, migrates: bool = False) -> None:
        """Prepare; nothing is connected yet. One that `migrates` waits as long as that may take.

        Raises:
            InvalidInput: if the URL carries a parameter that is not spoken here.
        """
        super().__init__(mask_url(url))
        self.engine = create_async_engine(
            "postgresql+asyncpg://",
            connect_args={
                "dsn": _dsn(url, shown=self.shown),
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": MIGRATION_TIMEOUT_MS / 1000 if migrates else COMMAND_TIMEOUT_S,
                "server_settings": {"application_name": "fleetpulse"},
                # Statements without a name, which end with their execution; both halves keep some.
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
            },
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_S,
        )

    def options(self, purpose: Purpose) -> Mapping[str, object]:
        """Return how the transaction begins: a reader sees one moment and cannot write.

        A writer sees what is committed, and relies on the rows it locks: a repeatable one would
        be undone by every renewal of the lease it shares.
        """
        if purpose is Purpose.READ:
            return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        return {"isolation_level": "READ COMMITTED", "postgresql_readonly": False}

    async def begun(self, connection: AsyncConnection, purpose: Purpose) -> None:
        """Set the limits, for this transaction alone; migrations wait for each other."""
        migrates = purpose is Purpose.MIGRATE
        longest = MIGRATION_TIMEOUT_MS if migrates else STATEMENT_TIMEOUT_MS
        limits = {
            "statement": str(longest),
            "lock": str(longest if migrates else LOCK_TIMEOUT_MS),
            "idle": str(IDLE_TIMEOUT_MS),
        }
        await connection.execute(_LIMITS, limits)
        if migrates:
            await connection.execute(_TAKE_TURNS)
            # From here on a lock is waited for no longer than elsewhere: behind a waiting change
            # of the schema every reader waits, too.
            await connection.execute(_LIMITS, limits | {"lock": str(LOCK_TIMEOUT_MS)})

    def told(self, error: DBAPIError | OSError) -> ControllerError:
        """Return what went wrong as one sentence with a remedy."""
        if isinstance(error, ssl.SSLError):
            return DatabaseUnreachable(
                f"database {self.shown!r} cannot be reached by TLS ({error}); check sslmode, "
                "sslrootcert, sslcert and sslkey of the URL, and the name in the server's "
                "certificate"
            )
        if isinstance(error, OSError):
            what = str(error) or type(error).__name__
            return DatabaseUnreachable(
                f"database {self.shown!r} cannot be reached ({what}); see that its server runs, "
                "and that the URL names it"
            )
        cause = getattr(error.orig, "driver_exception", None)
        what, code = str(error.orig), getattr(error.orig, "sqlstate", None)
        if isinstance(cause, ClientConfigurationError):
            return InvalidInput(f"database URL {self.shown!r} cannot be used: {what}")
        if code in _UNDONE:
            return StoodInTheWay(
                f"database {self.shown!r}: another transaction stood in the way ({what}); "
                "nothing was written, do it again"
            )
        if code in _UNFIT or isinstance(cause, UnfitValue):
            return InvalidInput(
                f"database {self.shown!r} cannot take a value ({what}); give one that fits"
            )
        meaning, remedy = _TOLD.get(
            code or "", ("did not answer", "see that its server runs, and its log")
        )
        return DatabaseUnreachable(f"database {self.shown!r} {meaning} ({what}); {remedy}")


def _dsn(url: str, *, shown: str) -> str:
    """Return the URL as the driver reads it."""
    try:
        parts = urlsplit(url)
    except ValueError as error:  # of brackets
        raise InvalidInput(f"database URL {shown!r} cannot be read: {error}") from error
    for place in parts.netloc.rpartition("@")[2].split(","):
        known = _PLACE.fullmatch(place)
        if known is None or int(known["port"] or 0) > PORT_MAX:
            raise InvalidInput(
                f"database URL {shown!r}: {place!r} is no host with its port; write for example "
                "postgresql://user:password@db-1:5432,db-2:5432/fleet"
            )
    query = parse_qsl(parts.query, keep_blank_values=True)
    for name, value in query:
        if name not in PARAMETERS:
            raise InvalidInput(
                f"database URL {shown!r}: {name!r} is not spoken by this version; "
                f"after the question mark go {', '.join(PARAMETERS)}"
            )
        if name in FILES and value and not os.access(value, os.R_OK):
            raise InvalidInput(
                f"database URL {shown!r}: {name} {value!r} cannot be read; name a file in PEM that "
                "this user may read"
            )
    return urlunsplit(parts._replace(scheme="postgresql", query=urlencode(query)))
