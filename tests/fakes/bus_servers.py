"""Real servers in the shapes that operators run: with TLS, with users, Sentinel, a cluster.

All are Debian's Redis 7 on loopback ports of their own, gone with the test run.
"""

import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from _pytest.mark import ParameterSet
from redis import Redis as BlockingRedis
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError, ResponseError

from controller.child import Child
from controller.embedded import EmbeddedValkey, free_port
from probe.bus.connect import BusFiles
from tests.fakes.services import redis7_binary

NODE_TIMEOUT_MS = 1000
DOWN_AFTER_MS = 1000
SERVICE = "fleet"
_DEADLINE_S = 30.0


class BusServers(ABC):
    """One bus: how our programs are told of it, and a plain client to look at it with."""

    url: str
    files = BusFiles()

    @abstractmethod
    def start(self) -> None:
        """Start, or bring back, whatever of it does not run."""

    @abstractmethod
    def stop(self) -> None:
        """End all of it."""

    @abstractmethod
    def client(self) -> Any:  # noqa: ANN401 - of one server or of a cluster: tests use what both have
        """Build a client with all rights."""

    @abstractmethod
    def nodes(self) -> Sequence[EmbeddedValkey]:
        """List the servers that hold data."""

    def each(self, *command: str) -> None:
        """Send a command to every server."""
        for node in self.nodes():
            ask(node, *command)


def ask(node: EmbeddedValkey, *command: str) -> Any:  # noqa: ANN401 - as the server answers
    """Send one command over the node's unix socket."""
    with BlockingRedis(unix_socket_path=str(node.socket_path)) as client:
        return client.execute_command(*command)


def until(condition: Any, *, within_s: float = _DEADLINE_S) -> None:  # noqa: ANN401 - a callable
    """Wait for servers to agree among themselves."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the servers do not come up"
        time.sleep(0.02)  # polled: what is waited for happens in another process


class TlsServer(BusServers):
    """One server that speaks TLS only, and wants a certificate from its clients."""

    def __init__(self, directory: Path) -> None:
        authority, other = trustme.CA(), trustme.CA()
        self.directory = directory
        directory.mkdir(parents=True)
        self.port = free_port()
        ca, other_ca = directory / "ca.pem", directory / "other.pem"
        authority.cert_pem.write_to_path(ca)
        other.cert_pem.write_to_path(other_ca)
        self.other_ca = str(other_ca)
        for name, issued in (
            ("server", authority.issue_cert("localhost")),
            ("client", authority.issue_cert("prober@bus")),
        ):
            issued.private_key_pem.write_to_path(directory / f"{name}.key")
            for blob in issued.cert_chain_pems:
                blob.write_to_path(directory / f"{name}.pem", append=True)
        self.files = BusFiles(
            ca=str(ca),
            certificate=str(directory / "client.pem"),
            key=str(directory / "client.key"),
        )
        self.url = f"rediss://localhost:{self.port}/0"
        options = [f"--tls-port {self.port}", f"--tls-ca-cert-file {ca}"]
        options += [f"--tls-{kind}-file {directory}/server.{end}" for kind, end in _TLS_FILES]
        words = [word for option in options for word in option.split(" ")]
        self._server = EmbeddedValkey(directory / "bus", binary=redis7_binary(), options=words)

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def client(self) -> Redis:
        return Redis.from_url(self._server.url)

    def nodes(self) -> Sequence[EmbeddedValkey]:
        return [self._server]

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.files.ca)


_TLS_FILES = (("cert", "pem"), ("key", "key"))


class SentinelService(BusServers):
    """A primary, a replica, and three Sentinels that watch them."""

    def __init__(self, directory: Path) -> None:
        binary = redis7_binary()
        self._servers = [
            EmbeddedValkey(directory / f"data-{n}", binary=binary, tcp=True) for n in range(2)
        ]
        first = self._servers[0].port
        self.sentinel_ports = [free_port() for _ in range(3)]
        self._sentinels: list[Child] = []
        for number, port in enumerate(self.sentinel_ports):
            home = directory / f"sentinel-{number}"
            home.mkdir(parents=True)
            config = home / "sentinel.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {home}\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {first} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {SERVICE} 5000\n"
            )
            words = [str(binary), str(config), "--sentinel"]
            self._sentinels.append(Child(words, log_path=home / "sentinel.log"))
        places = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        self.url = f"redis+sentinel://{places}/{SERVICE}/0"

    def start(self) -> None:
        fresh = all(sentinel.pid is None for sentinel in self._sentinels)
        lost = [server for server in self._servers if server.pid is None]
        for server in self._servers:
            server.start()
        if fresh:
            self._follow(self._servers[1], self._servers[0].port)
        for sentinel in self._sentinels:
            sentinel.start()
        if lost and not fresh:
            self.rejoin(lost[0])
        until(self._settled)

    def stop(self) -> None:
        for sentinel in self._sentinels:
            sentinel.end()
        for server in self._servers:
            server.stop()

    def client(self) -> Redis:
        return Redis.from_url(self.primary().url)

    def nodes(self) -> Sequence[EmbeddedValkey]:
        return [self.primary()]

    def primary(self) -> EmbeddedValkey:
        """Return the server that takes writes."""
        (found,) = [s for s in self._servers if ask(s, "ROLE")[0] == b"master"]
        return found

    def promote(self) -> None:
        """Have the Sentinels make the replica the primary, and wait until they have."""
        was = self.primary()
        until(self._try_failover)
        self.rejoin(was)

    def rejoin(self, lost: EmbeddedValkey) -> None:
        """Have a former primary follow the new one; the Sentinels would take 10 s more."""
        (other,) = [server for server in self._servers if server is not lost]
        until(lambda: self._seen_ports() == {other.port})
        self._follow(lost, other.port)
        until(self._settled)

    @staticmethod
    def _follow(server: EmbeddedValkey, port: int) -> None:
        ask(server, "REPLICAOF", "127.0.0.1", str(port))

    def _seen_ports(self) -> set[int]:
        """List where the Sentinels say that the primary is; empty while one of them is in doubt."""
        ports: set[int] = set()
        for port in self.sentinel_ports:
            with BlockingRedis(host="127.0.0.1", port=port) as sentinel:
                try:
                    state = sentinel.sentinel_masters()[SERVICE]
                except (RedisError, KeyError):  # not up yet
                    return set()
            known = (state["num-slaves"], state["num-other-sentinels"])
            if known != (1, 2) or state["is_odown"] or state["is_sdown"]:
                return set()
            ports.add(state["port"])
        return ports

    def _try_failover(self) -> bool:
        port = self.sentinel_ports[0]
        with BlockingRedis(host="127.0.0.1", port=port) as sentinel:
            try:
                sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)
            except ResponseError:  # no good replica yet, or a failover goes on: try again
                return False
        return True

    def _settled(self) -> bool:
        """Tell whether one server leads, the other follows it, and every Sentinel knows both."""
        try:
            roles = [ask(server, "ROLE") for server in self._servers]
        except RedisError:  # loading, or not up yet: look again
            return False
        if sorted(role[0] for role in roles) != [b"master", b"slave"]:
            return False
        (leader,) = [s.port for s, r in zip(self._servers, roles, strict=True) if r[0] == b"master"]
        (follower,) = [role for role in roles if role[0] == b"slave"]
        if follower[2] != leader or follower[3] != b"connected":
            return False
        return self._seen_ports() == {leader}


class Cluster(BusServers):
    """Three primaries, a third of the slots each."""

    def __init__(self, directory: Path) -> None:
        binary = redis7_binary()
        self._bus_ports = [free_port() for _ in range(3)]
        self._servers = [
            EmbeddedValkey(
                directory / f"node-{n}", binary=binary, tcp=True, options=_clustered(port)
            )
            for n, port in enumerate(self._bus_ports)
        ]
        places = ",".join(f"127.0.0.1:{server.port}" for server in self._servers)
        self.url = f"redis+cluster://{places}"

    def start(self) -> None:
        fresh = all(server.pid is None for server in self._servers)
        for server in self._servers:
            server.start()
        if fresh:
            self._share_out()
            self._meet()
        until(self._settled)

    def stop(self) -> None:
        for server in self._servers:
            server.stop()

    def client(self) -> RedisCluster:
        return RedisCluster(host="127.0.0.1", port=self._servers[0].port)

    def nodes(self) -> Sequence[EmbeddedValkey]:
        return self._servers

    def holder(self, slot: int) -> EmbeddedValkey:
        """Return the node that holds a slot."""
        for first, last, (_, port, *_), *_ in ask(self._servers[0], "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(server for server in self._servers if server.port == port)
        raise AssertionError(slot)

    def node_id(self, node: EmbeddedValkey) -> str:
        return str(ask(node, "CLUSTER", "MYID").decode())

    def move(self, slot: int, to: EmbeddedValkey) -> None:
        """Give an empty slot to another node."""
        for server in (to, *self._servers):
            ask(server, "CLUSTER", "SETSLOT", str(slot), "NODE", self.node_id(to))

    def _share_out(self) -> None:
        bounds = [0, 5461, 10923, 16384]
        for server, low, high in zip(self._servers, bounds, bounds[1:], strict=False):
            ask(server, "CLUSTER", "ADDSLOTSRANGE", str(low), str(high - 1))

    def _meet(self) -> None:
        """Make the nodes known to each other; again is harmless, and one may have been too slow."""
        first = self._servers[0]
        for server, bus_port in zip(self._servers[1:], self._bus_ports[1:], strict=True):
            ask(first, "CLUSTER", "MEET", "127.0.0.1", str(server.port), str(bus_port))

    def _settled(self) -> bool:
        for server in self._servers:
            state = str(ask(server, "CLUSTER", "INFO"))
            slots = {(s[0], s[2][1]) for s in ask(server, "CLUSTER", "SLOTS")}
            if "cluster_known_nodes:3" not in state.replace("': '", ":"):
                self._meet()
            if "cluster_state:ok" not in state.replace("': '", ":") or len(slots) != len(
                self._servers
            ):
                return False
        return True


def _clustered(bus_port: int) -> list[str]:
    return [
        *("--cluster-enabled", "yes"),
        *("--cluster-port", str(bus_port)),
        *("--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
        *("--cluster-config-file", "nodes.conf"),
    ]


class Fleet:
    """Buses by name, each started when first asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[str, BusServers] = {}
        self._stack = ExitStack()

    def bus(self, name: str) -> BusServers:
        """Return the running bus `name`, a key of `KINDS`."""
        if name not in self._running:
            bus = KINDS[name](self._directory / name)
            self._stack.callback(bus.stop)
            self._running[name] = bus
        self._running[name].start()
        return self._running[name]

    def close(self) -> None:
        """End every server."""
        self._stack.close()


KINDS: Final[Mapping[str, Callable[[Path], BusServers]]] = {
    "tls": TlsServer,
    "sentinel": SentinelService,
    "cluster": Cluster,
}


def in_one_place(names: Iterable[str]) -> Iterator[ParameterSet]:
    """Have one process run the tests of each: such servers take seconds to start."""
    for name in names:
        yield pytest.param(name, marks=pytest.mark.xdist_group(name))
