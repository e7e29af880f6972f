"""The link to the bus, and the one place where its errors get our names.

Used by both sides of the bus. Everything that leaves the process here has a deadline, and a batch
that must finish is shielded: a connection that is cancelled half-way is dropped, so a late reply
can never be taken for another command's. Knows nothing of targets or statuses.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

import anyio
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from probe.bus.batch import Batch, Parcel
from probe.bus.writes import Entries, WriteMode, pack
from probe.errors import BusError, BusRefused, BusUnreachable

CHUNK: Final = 1000
"""Keys per command: measured, larger chunks gain nothing and hold the server longer."""
RETRY_S: Final = 0.02
"""One more try finds a server that came back; longer absences are the caller's to ride out."""
_DETAIL_MAX_CHARS: Final = 200
NO_ANSWER: Final = (RedisConnectionError, RedisTimeoutError, RedisClusterException, OSError)
REFUSALS: Final = (AuthenticationError, BusyLoadingError, ResponseError)
"""Answers of a server, though the library derives two of them from its connection error."""
_TCP_DEFAULTS: Final = {"host": "localhost", "port": 6379}

_Item = TypeVar("_Item")


class Values(NamedTuple):
    """What strings hold, in the order asked for."""

    values: list[bytes | None]
    foreign: frozenset[str]
    """Names of keys that exist and hold another type; their value is None as well."""


class BusLink:
    """A client of one server, or of a Sentinel service, with our deadline and error names.

    Every method that sends raises `BusUnreachable` if there is no connection, or no answer
    within the deadline, and `BusRefused` if the server answers with an error.
    """

    one_server: ClassVar[bool] = True
    """Whether one command or script may name any keys together."""

    def __init__(self, client: Redis, *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        settings = client.connection_pool.connection_kwargs
        path = settings.get("path")
        tcp = ":".join(str(settings.get(part, default)) for part, default in _TCP_DEFAULTS.items())
        service = getattr(client.connection_pool, "service_name", None)
        self.address = (
            f"unix://{path}" if path else f"sentinel service {service}" if service else tcp
        )
        """Where it connects to, without credentials."""

    @staticmethod
    def batch() -> Batch:
        """Start a batch of commands that are sent, and answered, together."""
        return Batch()

    @staticmethod
    def transaction() -> Batch:
        """Start a batch of commands that happen all at once, or not at all."""
        return Batch(atomic=True)

    async def read(self, batch: Batch) -> list[Any]:
        """Send a batch and return its replies in order."""
        return self.accept(await self.ask(batch))

    async def write(self, batch: Batch) -> list[Any]:
        """Send a batch that a cancellation must not cut short; return its replies in order."""
        return self.accept(await self.ask(batch, shield=True))

    async def ask(self, batch: Batch, *, shield: bool = False) -> list[Any]:
        """Send a batch and return its replies; an error reply is a value among them."""
        return await self._bounded(partial(self._attempt, batch), shield=shield)

    async def write_mode(self) -> WriteMode:
        """Find out the best way to set keys in bulk that this server knows, and allows us.

        A server that knows the command, and lets us use it, complains of no keys at all.
        """
        batch = self.batch()
        batch.add_words("MSETEX", 0, "key", "value", "EX", 1)
        batch.add_words("EVAL", "return 1", 0)
        known, trial = await self.ask(batch)
        if "numkeys" in str(known):
            return WriteMode.MSETEX
        return WriteMode.LUA if trial == 1 else WriteMode.PIPELINE

    async def deliver(self, build: Callable[[], Entries], mode: WriteMode) -> None:
        """Set what `build` returns once the connection is ready; never cut short.

        `build` is called right before the bytes leave, and again if the connection breaks.
        """
        await self.deliver_parcel(lambda: pack(build(), mode))

    async def deliver_parcel(self, make: Callable[[], Parcel]) -> None:
        """Send what `make` returns; otherwise as `deliver`. Only where one server holds all."""
        self.accept(await self._bounded(partial(self._exchange, make), shield=True))

    def refuse_if_cluster(self, what: str) -> None:
        """Refuse what needs one server that holds every key.

        Raises:
            SettingsError: if this is a cluster.
        """

    async def values(self, names: Sequence[str]) -> Values:
        """Read strings in bulk; a key of another type is told from an absent one.

        MGET answers the same for both. Asking again costs one command while nothing is foreign,
        which is nearly always.
        """
        if not names:
            return Values([], frozenset())
        batch = self.batch()
        batch.add("MGET", *names)
        (values,) = await self.read(batch)
        absent = [name for name, value in zip(names, values, strict=True) if value is None]
        if not absent:
            return Values(values, frozenset())
        batch = self.batch()
        batch.add("EXISTS", *absent)
        if (await self.read(batch))[0] == 0:
            return Values(values, frozenset())
        batch = self.batch()
        for name in absent:
            batch.add("EXISTS", name)
        found = zip(absent, await self.read(batch), strict=True)
        return Values(values, frozenset(name for name, exists in found if exists))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _bounded(
        self, attempt: Callable[[], Awaitable[list[Any]]], *, shield: bool
    ) -> list[Any]:
        try:
            with anyio.fail_after(self._timeout_s, shield=shield):
                try:
                    return await attempt()
                except REFUSALS:
                    raise
                except NO_ANSWER:
                    await anyio.sleep(RETRY_S)
                return await attempt()
        except (RedisError, RedisClusterException, OSError) as error:
            # OSError: TimeoutError, our deadline, is one
            raise explain(error, self.address) from error

    async def _attempt(self, batch: Batch) -> list[Any]:
        return batch.unwrapped(await self._exchange(batch.packed))

    async def _exchange(self, make: Callable[[], Parcel]) -> list[Any]:
        pool = self._client.connection_pool
        connection: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]  # as the library has it
        try:
            parcel = make()  # as late as can be: nothing grows old while a connection is made
            replies = await exchange(connection, parcel)
            if any(type(reply) is ReadOnlyError for reply in replies):
                # A demoted primary: nothing of the pool may stay there, readers neither.
                await connection.disconnect()
                await pool.disconnect(inuse_connections=False)
            return replies
        finally:
            await pool.release(connection)

    def accept(self, replies: list[Any]) -> list[Any]:
        """Return the replies, or raise the first error among them."""
        for reply in replies:
            if isinstance(reply, Exception):
                raise explain(reply, self.address) from reply
        return replies


async def exchange(connection: AbstractConnection, parcel: Parcel) -> list[Any]:
    """Send a parcel and read its replies; the library drops a connection that is cut short."""
    if not parcel.replies:
        return []
    await connection.send_packed_command(parcel.data, check_health=False)
    replies: list[Any] = []
    for _ in range(parcel.replies):
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies


def is_foreign(reply: object) -> bool:
    """Tell whether a reply says that the key holds another type than was asked for."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def chunks(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """Cut into pieces of at most `CHUNK`."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def text(value: bytes | str) -> str:
    """Return a name found on the bus as text; what is not UTF-8 stays visible, escaped."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def seconds(time: Sequence[bytes]) -> float:
    """Return the reply of TIME in seconds.

    >>> seconds([b"12", b"250000"])
    12.25
    """
    return int(time[0]) + int(time[1]) / 1e6


def explain(error: Exception, address: str) -> BusError:
    """Name an error of the client library: no answer is not the same as the answer no."""
    answer = error
    if not isinstance(error, REFUSALS) and isinstance(error.__cause__, REFUSALS):
        answer = error.__cause__  # said while the connection was being made
    said = str(answer).partition(" : <")[0]  # Sentinel's client shows its objects behind that
    detail = said[:_DETAIL_MAX_CHARS] or type(answer).__name__
    if isinstance(answer, REFUSALS) or not isinstance(answer, NO_ANSWER):
        return BusRefused(f"the bus at {address} refused: {detail}")
    return BusUnreachable(
        f"the bus at {address} cannot be reached ({detail}): start it, or name another with --redis"
    )
