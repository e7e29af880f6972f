"""Which replicas the prober shall check, and how."""

from typing import Any

import pytest

from controller.model import DeploymentId, HealthCheck, Route, RouteStatus, Stage
from controller.route.guard import generation_of
from controller.route.targets import Targets, diff, target_of
from probe.wire import ReplicaId, ReplicaProbeTarget, decode_target, encode
from tests.fakes.nouns import DEMO, a_deployment, a_route, fleet, warming

DEPLOYMENTS = {DEMO: a_deployment()}


def synced(routes: list[Route], *, written: frozenset[str] = frozenset()) -> Targets:
    return diff(routes, DEPLOYMENTS, written=frozenset(map(ReplicaId, written)))


def probed_ids(targets: Targets) -> list[str]:
    return [str(target.replica_id) for target in targets.write]


def test_a_target_carries_every_value_of_the_routes_own_health_check() -> None:
    """R-02, R-56: a distinct value in each field shows where each comes from."""
    check = HealthCheck(
        path="/v1/health/ready",
        interval_s=7.5,
        max_wait_time_s=3.25,
        expected_status_code="200-204,301",
        max_retries=11,
        healthy_threshold=2,
        initial_delay_s=1800,
    )
    route = a_route(5, health_check=check, host="10.1.2.3", port=9001)
    target = target_of(route, a_deployment(name="llama"))
    assert target == ReplicaProbeTarget(
        replica_id=ReplicaId(route.id),
        replica_host="10.1.2.3",
        inference_port=9001,
        health_path="/v1/health/ready",
        interval_s=7.5,
        timeout_s=3.25,
        connect_timeout_s=3.25,
        expected_status="200-204,301",
        max_retries=11,
        healthy_threshold=2,
        deployment="llama",
        generation=generation_of(route),
    )
    assert decode_target(encode(target)) == target


def test_connecting_never_takes_more_than_five_seconds_of_a_long_timeout() -> None:
    route = a_route(health_check=HealthCheck(path="/", max_wait_time_s=60))
    target = target_of(route, a_deployment())
    assert isinstance(target, ReplicaProbeTarget)
    assert (target.timeout_s, target.connect_timeout_s) == (60, 5)


@pytest.mark.parametrize("stage", [Stage.PENDING, Stage.STARTING])
def test_what_has_no_address_yet_is_not_probed(stage: Stage) -> None:
    assert synced([warming(stage=stage, host=None, port=None)]) == Targets(
        write=(), skipped=(), remove=()
    )


def test_warming_up_is_probed() -> None:
    """R-01: else nothing would ever leave WARMING_UP."""
    assert probed_ids(synced([warming()])) == [warming().id]


def test_running_is_probed_checked_or_not() -> None:
    """R-01, R-51: a flushed bus gets all of them back."""
    routes = [*fleet(3), *fleet(2, first=10, health="not_checked")]
    assert probed_ids(synced(routes)) == [route.id for route in routes]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"health_check": None}, "it has no health check: unmanaged"),
        ({"host": None}, "it has no address"),
        ({"port": None}, "it has no address"),
        ({"deployment_id": DeploymentId("gone")}, "its deployment is gone"),
    ],
)
def test_what_cannot_be_probed_is_reported_with_why(given: dict[str, Any], why: str) -> None:
    """R-10."""
    found = synced([a_route(1), a_route(2, **given)])
    assert len(found.write) == 1
    assert [(skip.route_id, skip.why) for skip in found.skipped] == [(a_route(2).id, why)]


@pytest.mark.parametrize(
    "status", [RouteStatus.TERMINATING, RouteStatus.TERMINATED, RouteStatus.FAILED_TO_START]
)
def test_what_is_leaving_or_gone_is_taken_from_the_bus(status: RouteStatus) -> None:
    """R-44."""
    gone = a_route(2, status=status)
    found = synced([a_route(1), gone], written=frozenset({a_route(1).id, gone.id}))
    assert probed_ids(found) == [a_route(1).id]
    assert found.remove == (ReplicaId(gone.id),)


def test_a_route_the_database_forgot_is_taken_from_the_bus() -> None:
    assert synced([], written=frozenset({a_route(7).id})).remove == (ReplicaId(a_route(7).id),)


def test_what_others_wrote_is_not_ours_to_remove() -> None:
    assert synced([a_route(1)]).remove == ()


def test_the_address_is_part_of_the_generation() -> None:
    """R-44: a target that moved asks for statuses that moved with it."""
    here, there = a_route(port=8000), a_route(port=8001)
    found = synced([here]).write + synced([there]).write
    assert found[0].generation != found[1].generation
