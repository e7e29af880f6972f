"""The connection to the bus, and the one place where its errors get our names.

Used by `probe.bus` and its parts. Everything that leaves the process here has a deadline, and a
batch that must finish is shielded: redis drops a connection that is cancelled half-way, so a
late reply can never be taken for another command's. Knows nothing of targets or statuses.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import anyio
import hiredis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.typing import EncodableT

from probe.errors import BusError, BusRefused, BusUnreachable, SettingsError

CHUNK: Final = 1000
"""Keys per command: measured, larger chunks gain nothing and hold the server longer."""
SCHEMES: Final = ("redis", "rediss", "unix")
_DETAIL_MAX_CHARS: Final = 200
_NO_ANSWER: Final = (RedisConnectionError, RedisTimeoutError, OSError)
_REFUSALS: Final = (AuthenticationError, BusyLoadingError, ResponseError)
"""Answers of a server, though the library derives two of them from its connection error."""
_TCP_DEFAULTS: Final = {"host": "localhost", "port": 6379}


_Item = TypeVar("_Item")


def connect(
    url: str,
    *,
    client_name: str = "fleetpulse-probe",
    max_connections: int = 8,
    timeout_s: float = 2.0,
) -> Redis:
    """Build a client of the bus at `url`; the first command connects.

    One retry after 20 ms finds a server that came back; longer absences are the caller's to
    ride out (the library's own defaults would hide them for 3 to 10 s).

    Raises:
        SettingsError: if `url` is not a redis://, rediss:// or unix:// address.
    """
    remedy = "write for example redis://127.0.0.1:6379/0, rediss://… or unix:///path"
    try:
        scheme = urlsplit(url).scheme
        if scheme not in SCHEMES:
            raise SettingsError(f"the bus address has the scheme {scheme!r}: {remedy}")
        pool = BlockingConnectionPool.from_url(
            url,
            client_name=client_name,
            max_connections=max_connections,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(ExponentialBackoff(cap=0.1, base=0.02), retries=1),
        )
        pool.make_connection()  # type: ignore[no-untyped-call]  # refuses what it cannot use
    except (ValueError, TypeError) as error:
        raise SettingsError(f"the bus address cannot be used ({error}): {remedy}") from error
    pool.connection_class = type("Packed", (_PackedInC, pool.connection_class), {})
    return Redis.from_pool(pool)


class _PackedInC:
    """Makes a connection of the library pack its commands in C, as its blocking half does.

    Its own loop over the arguments costs 1.1 us for each status written, this one 0.2.
    """

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        """Encode one command; a name of two words is two arguments."""
        name, *rest = args
        words = (*str(name).split(), *rest)
        return [hiredis.pack_command(words)]  # type: ignore[arg-type]  # its stub takes one word


class BusLink:
    """A client of the bus with our deadline and our names for its errors.

    Every method that sends raises `BusUnreachable` if there is no connection, or no answer
    within the deadline, and `BusRefused` if the server answers with an error.
    """

    def __init__(self, client: Redis, *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        settings = client.connection_pool.connection_kwargs
        path = settings.get("path")
        tcp = ":".join(str(settings.get(part, default)) for part, default in _TCP_DEFAULTS.items())
        self.address = f"unix://{path}" if path else tcp
        """Where it connects to, without credentials."""

    def batch(self) -> Pipeline:
        """Start a batch of commands that are sent, and answered, together."""
        return self._client.pipeline(transaction=False)

    def transaction(self) -> Pipeline:
        """Start a batch of commands that happen all at once, or not at all."""
        return self._client.pipeline(transaction=True)

    async def read(self, pipeline: Pipeline) -> list[Any]:
        """Send a batch and return its replies in order."""
        return self._accept(await self.ask(pipeline))

    async def write(self, pipeline: Pipeline) -> list[Any]:
        """Send a batch that a cancellation must not cut short; return its replies in order."""
        return self._accept(await self.ask(pipeline, shield=True))

    async def ask(self, pipeline: Pipeline, *, shield: bool = False) -> list[Any]:
        """Send a batch and return its replies; an error reply is a value among them."""
        try:
            with anyio.fail_after(self._timeout_s, shield=shield):
                return await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:  # OSError: TimeoutError, our deadline, is one
            raise explain(error, self.address) from error

    async def foreign(self, keys: Collection[str]) -> set[str]:
        """Return those of `keys` that exist after all: MGET answers "absent" for another type.

        Costs one command while none exists, which is nearly always.
        """
        if not keys:
            return set()
        batch = self.batch()
        batch.exists(*keys)
        if (await self.read(batch))[0] == 0:
            return set()
        batch = self.batch()
        for key in keys:
            batch.exists(key)
        return {key for key, found in zip(keys, await self.read(batch), strict=True) if found}

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def _accept(self, replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, Exception):
                raise explain(reply, self.address) from reply
        return replies


def chunks(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """Cut into pieces of at most `CHUNK`."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def text(value: bytes | str) -> str:
    """Return a name found on the bus as text; what is not UTF-8 stays visible, escaped."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def seconds(time: tuple[int, int]) -> float:
    """Return the reply of TIME in seconds.

    >>> seconds((12, 250_000))
    12.25
    """
    return time[0] + time[1] / 1e6


def explain(error: Exception, address: str) -> BusError:
    """Name an error of the client library: no answer is not the same as the answer no."""
    answer = error
    if not isinstance(error, _REFUSALS) and isinstance(error.__cause__, _REFUSALS):
        answer = error.__cause__  # said while the connection was being made
    detail = str(answer)[:_DETAIL_MAX_CHARS] or type(answer).__name__
    if isinstance(answer, _REFUSALS) or not isinstance(answer, _NO_ANSWER):
        return BusRefused(f"the bus at {address} refused: {detail}")
    return BusUnreachable(
        f"the bus at {address} cannot be reached ({detail}): start it, or name another with --redis"
    )
