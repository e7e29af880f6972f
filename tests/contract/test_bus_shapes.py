"""What only some buses have: certificates, users, a failover, slots that move, nodes that die."""

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from controller.bus import ControlBus
from controller.embedded import EmbeddedValkey
from probe.bus.connect import BusFiles, connect
from probe.bus.prober import ProbeBus
from probe.errors import BusError, BusRefused, BusUnreachable, SettingsError
from probe.wire import Keys, encode
from tests.fakes.bus_servers import BusServers, Cluster, Fleet, SentinelService, TlsServer, ask
from tests.fakes.entries import replica, status, target, writing
from tests.fakes.prober import until
from tests.fakes.services import Services

KEYS = Keys("t:")
OUTAGE_MAX_S = 8.0
"""R-63, and the fault table: writes are back so soon after a primary is lost."""
_Shape = TypeVar("_Shape", bound=BusServers)


def shape(fleet: Fleet, name: str, kind: type[_Shape]) -> _Shape:
    servers = fleet.bus(name)
    assert isinstance(servers, kind)
    servers.each("FLUSHALL")
    return servers


async def write_one(bus: ProbeBus, number: int) -> None:
    await bus.write_statuses(
        writing([(KEYS.status(replica(number)), encode(status(number, seq=number)), 120)])
    )


async def outage_s(bus: ProbeBus, *, lasting_s: float = 20.0) -> float:
    """Write ten times a second until it works again; return how long it did not."""
    began = time.monotonic()
    failed = False
    with anyio.fail_after(lasting_s):
        while True:
            try:
                await write_one(bus, 1)
            except BusError:
                failed = True
            else:
                if failed or time.monotonic() - began > OUTAGE_MAX_S:
                    return time.monotonic() - began
            await anyio.sleep(0.1)  # the rate of writes, not a wait


@pytest.mark.xdist_group("tls")
class TestTls:
    @pytest.fixture
    def server(self, fleet: Fleet) -> TlsServer:
        return shape(fleet, "tls", TlsServer)

    async def refused(self, url: str, files: BusFiles) -> str:
        bus = ProbeBus(connect(url, files=files), KEYS)
        with pytest.raises(BusUnreachable) as caught:
            await bus.poll()
        await bus.aclose()
        return str(caught.value)

    async def test_an_authority_that_did_not_sign_is_not_trusted(self, server: TlsServer) -> None:
        files = BusFiles(
            ca=server.other_ca, certificate=server.files.certificate, key=server.files.key
        )
        assert "CERTIFICATE_VERIFY_FAILED" in await self.refused(server.url, files)

    async def test_a_name_that_is_not_the_certificate_s_is_not_trusted(
        self, server: TlsServer
    ) -> None:
        url = server.url.replace("localhost", "127.0.0.1")
        assert "CERTIFICATE_VERIFY_FAILED" in await self.refused(url, server.files)

    async def test_a_client_without_a_certificate_is_turned_away(self, server: TlsServer) -> None:
        await self.refused(server.url, BusFiles(ca=server.files.ca))

    @pytest.mark.parametrize(
        ("url", "files", "says"),
        [
            ("redis://bus", {"ca": "/etc/hostname"}, "bus_ca_file = '/etc/hostname': TLS needs"),
            ("rediss://bus", {"ca": "/none"}, "bus_ca_file = '/none' cannot be used"),
            ("rediss://bus", {"ca": "/etc/hostname"}, "cannot be used"),
            ("rediss://bus", {"key": "/etc/hostname"}, "needs bus_certificate_file"),
            ("rediss://bus", {"certificate": "/none"}, "bus_certificate_file = '/none' cannot"),
            ("redis://bus", {"password": "/none"}, "bus_password_file = '/none' cannot be used"),
            ("redis://u:pw@bus", {"password": "/etc/hostname"}, "keep one"),
        ],
    )
    def test_files_that_cannot_work_are_refused_before_anything_is_dialled(
        self, url: str, files: dict[str, str], says: str
    ) -> None:
        with pytest.raises(SettingsError, match=says) as caught:
            connect(url, files=BusFiles(**files))
        assert "pw" not in str(caught.value)


class TestPasswordFile:
    async def test_a_password_that_changes_is_read_anew(
        self, services: Services, tmp_path: Path
    ) -> None:
        server, secret = services.bus("redis7"), tmp_path / "password"
        secret.write_text("first\n")
        admin = Redis.from_url(server.url)
        await admin.acl_setuser(
            "prober", enabled=True, passwords=["+first"], categories=["+@all"], keys=["*"]
        )
        url = server.url.replace("unix://", "unix://prober@")
        bus = ProbeBus(connect(url, files=BusFiles(password=str(secret))), KEYS)
        await bus.poll()
        await admin.acl_setuser("prober", enabled=True, passwords=["+second", "-first"])
        secret.write_text("second\n")
        await admin.client_kill_filter(user="prober")
        await bus.poll()
        secret.unlink()
        await admin.client_kill_filter(user="prober")
        with pytest.raises(BusUnreachable, match="password"):
            await bus.poll()
        await bus.aclose()
        await admin.acl_deluser("prober")
        await admin.aclose()


@pytest.mark.xdist_group("sentinel")
class TestSentinel:
    @pytest.fixture
    def service(self, fleet: Fleet) -> SentinelService:
        return shape(fleet, "sentinel", SentinelService)

    @pytest.fixture
    async def bus(self, service: SentinelService) -> AsyncIterator[ProbeBus]:
        probe = ProbeBus(connect(service.url), KEYS, timeout_s=2.0)
        yield probe
        await probe.aclose()

    async def test_writes_follow_a_failover(self, service: SentinelService, bus: ProbeBus) -> None:
        """R-63."""
        await write_one(bus, 1)
        await anyio.to_thread.run_sync(service.promote)
        with suppress(BusError):
            await write_one(bus, 2)
        await write_one(bus, 3)
        assert ask(service.primary(), "EXISTS", KEYS.status(replica(3))) == 1
        assert (await bus.read_statuses([replica(3)])).keys() == {replica(3)}

    async def test_a_killed_primary_costs_at_most_eight_seconds_of_writes(
        self, service: SentinelService, bus: ProbeBus, fleet: Fleet
    ) -> None:
        """R-63."""
        await write_one(bus, 1)
        lost = service.primary()
        lost.kill()
        assert await outage_s(bus) <= OUTAGE_MAX_S
        await bus.poll()
        fleet.bus("sentinel")  # the lost one comes back; on a busy machine it may lead again

        async def written() -> bool:
            try:
                await write_one(bus, 5)
            except BusError:
                return False
            return True

        await until(written, within_s=OUTAGE_MAX_S)
        assert ask(service.primary(), "EXISTS", KEYS.status(replica(5))) == 1

    async def test_a_stopped_primary_costs_at_most_eight_seconds_of_writes(
        self, service: SentinelService, bus: ProbeBus
    ) -> None:
        """R-63: it takes connections and answers nothing; when it wakes it is believed no more."""
        await write_one(bus, 1)
        lost = service.primary()
        assert lost.pid is not None
        os.kill(lost.pid, signal.SIGSTOP)
        try:
            assert await outage_s(bus) <= OUTAGE_MAX_S
        finally:
            os.kill(lost.pid, signal.SIGCONT)
        service.rejoin(lost)
        await write_one(bus, 5)
        assert ask(service.primary(), "EXISTS", KEYS.status(replica(5))) == 1

    async def test_an_unknown_service_and_absent_sentinels_are_unreachable(
        self, service: SentinelService
    ) -> None:
        """R-05."""
        for url in (service.url.replace("/fleet", "/other"), "redis+sentinel://127.0.0.1:1/fleet"):
            bus = ProbeBus(connect(url), KEYS)
            with pytest.raises(BusUnreachable):
                await bus.poll()
            await bus.aclose()


async def test_a_client_left_on_a_demoted_primary_lets_go_of_it(
    services: Services, tmp_path: Path
) -> None:
    """R-63: an address that leads elsewhere now, connections that stayed, a READONLY."""
    old, new = services.bus("redis7"), services.bus("valkey")
    for server in (old, new):  # other tests have used them
        ask(server, "FLUSHALL")
    path = tmp_path / "bus.sock"
    path.symlink_to(old.socket_path)
    bus = ProbeBus(connect(f"unix://{path}"), KEYS)
    try:
        await write_one(bus, 1)
        path.unlink()
        path.symlink_to(new.socket_path)
        ask(old, "REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(BusRefused, match="read only"):
            await write_one(bus, 2)
        assert await bus.read_statuses([replica(1)]) == {}, "still read from the demoted one"
        await write_one(bus, 3)
        assert ask(new, "EXISTS", KEYS.status(replica(3))) == 1
    finally:
        ask(old, "REPLICAOF", "NO", "ONE")
        await bus.aclose()


@pytest.mark.xdist_group("cluster")
class TestCluster:
    @pytest.fixture
    def cluster(self, fleet: Fleet) -> Cluster:
        return shape(fleet, "cluster", Cluster)

    @pytest.fixture
    async def bus(self, cluster: Cluster) -> AsyncIterator[ProbeBus]:
        probe = ProbeBus(connect(cluster.url), KEYS)
        await probe.hello()
        yield probe
        await probe.aclose()

    @staticmethod
    def at(cluster: Cluster, wanted: Callable[[EmbeddedValkey], bool]) -> int:
        """Return the number of a replica whose status lies on a node that is wanted."""
        return next(
            number
            for number in range(1000)
            if wanted(cluster.holder(key_slot(KEYS.status(replica(number)).encode())))
        )

    async def test_a_slot_that_moved_is_found(self, cluster: Cluster, bus: ProbeBus) -> None:
        first, second, _ = cluster.nodes()
        number = self.at(cluster, lambda node: node is first)
        slot = key_slot(KEYS.status(replica(number)).encode())
        cluster.move(slot, second)
        try:
            await write_one(bus, number)
            assert ask(second, "EXISTS", KEYS.status(replica(number))) == 1
            assert list(await bus.read_statuses([replica(number)])) == [replica(number)]
        finally:
            ask(second, "FLUSHALL")
            cluster.move(slot, first)

    async def test_a_slot_on_its_way_is_followed(self, cluster: Cluster, bus: ProbeBus) -> None:
        first, second, _ = cluster.nodes()
        number = self.at(cluster, lambda node: node is first)
        slot = str(key_slot(KEYS.status(replica(number)).encode()))
        ask(second, "CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.node_id(first))
        ask(first, "CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.node_id(second))
        try:
            await write_one(bus, number)
            assert list(await bus.read_statuses([replica(number)])) == [replica(number)]
        finally:
            ask(second, "FLUSHALL")
            for node in (first, second):
                ask(node, "CLUSTER", "SETSLOT", slot, "STABLE")

    async def test_a_dead_node_does_not_keep_the_others_from_their_statuses(
        self, cluster: Cluster, bus: ProbeBus, fleet: Fleet
    ) -> None:
        first, _, last = cluster.nodes()
        here = self.at(cluster, lambda node: node is first)
        there = self.at(cluster, lambda node: node is last)
        last.kill()
        try:
            with pytest.raises(BusError):
                await bus.write_statuses(
                    writing(
                        (KEYS.status(replica(n)), encode(status(n)), 120) for n in (here, there)
                    )
                )
            assert ask(first, "EXISTS", KEYS.status(replica(here))) == 1
            with pytest.raises(BusRefused, match="The cluster is down"):
                await until_refused(bus, here)
        finally:
            fleet.bus("cluster")
        await write_one(bus, there)
        assert list(await bus.read_statuses([replica(there)])) == [replica(there)]

    async def test_a_prober_that_is_told_of_a_change_finds_all_of_it(
        self, cluster: Cluster, bus: ProbeBus
    ) -> None:
        """What a transaction gives on one server, the order of the steps gives here."""
        control = ControlBus(connect(cluster.url), KEYS)
        halfway: list[int] = []
        async with anyio.create_task_group() as group:

            async def look() -> None:
                known: dict[int, int] = {}
                while True:
                    poll = await bus.poll()
                    moved = [p for p, version in poll.versions.items() if version != known.get(p)]
                    found = await bus.read_targets(moved, poll.time_s)
                    halfway.extend(p for p in moved if not found.by_partition[p])
                    known = poll.versions

            group.start_soon(look)
            for number in range(60):
                await control.write_targets([target(number)])
            group.cancel_scope.cancel()
        assert halfway == []
        await control.aclose()


async def until_refused(bus: ProbeBus, number: int) -> None:
    """Write until the rest of the cluster has noticed that a part is missing."""
    with anyio.fail_after(20):
        while True:
            with suppress(BusUnreachable):
                await write_one(bus, number)
            await anyio.sleep(0.05)  # the rate of tries
