"""What this machine is called, and which of its ports are ours."""

from ipaddress import ip_address

import pytest

from probe.here import bus_services, is_here, metrics_service
from probe.http.place import UnixPath
from probe.http.policy import ConnectPolicy, Service


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::"])
def test_loopback_is_here(address: str) -> None:
    assert is_here(ip_address(address))


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "255.255.255.255"])
def test_others_are_not(address: str) -> None:
    assert not is_here(ip_address(address))


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("redis://127.0.0.1:6380/0", "127.0.0.1", 6380),
        ("rediss://user:word@10.0.0.5/0", "10.0.0.5", 6379),
        ("redis://[::1]:7000", "::1", 7000),
        ("redis+sentinel://10.0.0.5/fleet", "10.0.0.5", 26379),
        ("redis+cluster://10.0.0.5:7001", "10.0.0.5", 7001),
    ],
)
def test_bus_is_a_service_of_ours(url: str, host: str, port: int) -> None:
    assert bus_services(url) == [Service("the bus", ip_address(host), port)]


def test_every_node_that_is_named_is_ours() -> None:
    found = bus_services("redis+cluster://10.0.0.5:7001,10.0.0.6:7002")
    assert [service.port for service in found if isinstance(service, Service)] == [7001, 7002]


def test_socket_of_the_bus_is_ours() -> None:
    assert bus_services("unix:///run/bus.sock?db=0") == [UnixPath("/run/bus.sock")]


def test_host_that_does_not_resolve_is_nobody() -> None:
    assert bus_services("redis://bus.invalid:6379") == []


def test_metrics_port_is_ours_once_it_is_known() -> None:
    assert metrics_service("127.0.0.1", 0) == []
    own = metrics_service("0.0.0.0", 9155)
    policy = ConnectPolicy.of(["127.0.0.0/8", "::/0"], own=own, is_here=is_here)
    for address in ("127.0.0.1", "127.3.4.5", "::1"):
        refusal = policy.refusal(ip_address(address), 9155)
        assert refusal is not None
        assert "the metrics port: never dialled" in refusal
