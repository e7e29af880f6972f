"""The link to a cluster: each command goes to the node that holds its key.

No command and no transaction spans nodes here. What the single-server link does at once is done
key by key, in the order that its caller asks for; what that costs is said in the operations page.
Topology and connections are the library's; packing and redirection are ours, because its pipeline
refuses what spans nodes and is slow at the rest.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import anyio
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
)

from probe.bus.batch import Batch, Parcel
from probe.bus.client import NO_ANSWER, RETRY_S, BusLink, Values, exchange, is_foreign
from probe.bus.writes import Entries, WriteMode, read_entry
from probe.errors import SettingsError

HOME_SLOT: Final = 0
"""Its node is asked what has no key; so the time of the bus is that of one clock."""
_TRIES: Final = 3
"""A slot that moved is found at the second; the third is for one that moves right now."""
_LOOK_AGAIN: Final = (*NO_ANSWER, ReadOnlyError, ClusterDownError, AskError)
_Places = Sequence[int]


class ClusterLink(BusLink):
    """A client of a cluster; everything as `BusLink` has it."""

    one_server = False

    def __init__(self, client: RedisCluster, *, timeout_s: float) -> None:
        self._cluster = client
        self._timeout_s = timeout_s
        self._known = False
        self._stale = True
        """Whether the slots may lie elsewhere than we think."""
        nodes = ",".join(f"{node.host}:{node.port}" for node in client.startup_nodes)
        self.address = f"cluster {nodes}"

    async def write_mode(self) -> WriteMode:
        """Answer without asking: only single keys can be set."""
        return WriteMode.PIPELINE

    async def deliver(self, build: Callable[[], Entries], mode: WriteMode) -> None:
        """Set the entries node by node; one that is down does not keep the others from it."""
        attempt = partial(self._until_settled, lambda: _batch_of(build()), warm=True)
        self.accept(await self._bounded(attempt, shield=True))

    async def values(self, names: Sequence[str]) -> Values:
        """Read strings one by one, sent together."""
        batch = self.batch()
        for name in names:
            batch.add("GET", name)
        replies = await self.ask(batch)
        foreign = frozenset(
            name for name, reply in zip(names, replies, strict=True) if is_foreign(reply)
        )
        values = [None if is_foreign(reply) else reply for reply in replies]
        return Values(self.accept(values), foreign)

    def refuse_if_cluster(self, what: str) -> None:
        """Refuse: each node knows a part of the keys."""
        raise SettingsError(
            f"{what} needs one server that holds every key, and {self.address} has many: "
            "use a single server or a Sentinel service"
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._cluster.aclose()

    async def _attempt(self, batch: Batch) -> list[Any]:
        return await self._until_settled(lambda: batch)

    async def _until_settled(self, make: Callable[[], Batch], *, warm: bool = False) -> list[Any]:
        """Send what `make` returns; again if slots have moved, looking for them first."""
        replies: list[Any] = []
        for attempt in range(_TRIES):
            await self._look()
            if warm:
                await self._connect_all()
            batch = make()
            replies = await self._send(batch)
            if any(isinstance(r, _LOOK_AGAIN) for r in replies):
                self._stale = True
            if not any(isinstance(reply, AskError) for reply in replies):
                break
            await anyio.sleep(RETRY_S * attempt)
        for reply in replies:
            if isinstance(reply, NO_ANSWER):
                raise reply
        return replies

    async def _look(self) -> None:
        """Ask who holds which slot, if that may have changed."""
        if not self._stale:
            return
        if self._known:
            await self._cluster.nodes_manager.initialize()
        else:
            await self._cluster.initialize()
        self._known, self._stale = True, False

    async def _connect_all(self) -> None:
        """Have a connection to every primary; one that fails will say so when it is used."""
        async with anyio.create_task_group() as group:
            for node in self._cluster.get_primaries():
                group.start_soon(self._converse, node, Parcel(b"", 0))

    async def _send(self, batch: Batch) -> list[Any]:
        replies: list[Any] = [None] * len(batch.commands)
        begin = 0
        for end in (*batch.steps, len(batch.commands)):
            await self._send_step(batch, range(begin, end), replies)
            if any(isinstance(reply, Exception) for reply in replies[begin:end]):
                break
            begin = end
        return replies

    async def _send_step(self, batch: Batch, places: _Places, replies: list[Any]) -> None:
        by_node: defaultdict[ClusterNode, defaultdict[int, list[int]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for place in places:
            key = batch.keys[place]
            slot = HOME_SLOT if key is None else key_slot(key.encode())
            node = self._cluster.nodes_manager.get_node_from_slot(slot)
            by_node[node][slot if batch.atomic else HOME_SLOT].append(place)
        async with anyio.create_task_group() as group:
            for node, parts in by_node.items():
                group.start_soon(self._ask_node, node, batch, parts, replies)

    async def _ask_node(
        self, node: ClusterNode, batch: Batch, parts: Mapping[int, _Places], replies: list[Any]
    ) -> None:
        """Ask one node; what it answers goes to its places in `replies`."""
        batches = [
            (places, batch.part(places, atomic=batch.atomic and len(places) > 1))
            for places in parts.values()
        ]
        parcels = [part.packed() for _, part in batches]
        whole = Parcel(b"".join(p.data for p in parcels), sum(p.replies for p in parcels))
        answers = await self._converse(node, whole)
        for (places, part), parcel in zip(batches, parcels, strict=True):
            mine, answers = answers[: parcel.replies], answers[parcel.replies :]
            for place, reply in zip(places, part.unwrapped(mine), strict=True):
                replies[place] = await self._followed(reply, batch.part([place], atomic=False))

    async def _followed(self, reply: object, command: Batch) -> object:
        """Return a reply; if the key is on its way to another node, that of the other."""
        if not isinstance(reply, AskError) or isinstance(reply, MovedError):
            return reply
        node = self._cluster.get_node(reply.host, reply.port)
        if node is None:
            return reply
        asking = Batch(commands=[("ASKING",), *command.commands])
        return (await self._converse(node, asking.packed()))[-1]

    async def _converse(self, node: ClusterNode, parcel: Parcel) -> list[Any]:
        """Exchange with one node; if there is no answer, that is every reply."""
        try:
            connection = node.acquire_connection()
            try:
                await node.disconnect_if_needed(connection)
                await connection.connect()  # type: ignore[no-untyped-call]  # as the library has it
                return await exchange(connection, parcel)
            finally:
                node.release(connection)
        except (RedisError, OSError) as error:
            return [error] * parcel.replies


def _batch_of(entries: Entries) -> Batch:
    batch = Batch()
    for ttl_s, group in entries.items():
        for packed in group:
            key, value = read_entry(packed)
            batch.add("SET", key, value, "EX", ttl_s)
    return batch
