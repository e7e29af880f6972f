"""One replica taken out by hand, on both databases."""

import pytest

from controller.db.repository import Repository
from controller.db.session import Database
from controller.errors import Conflict, NotFound, Stale
from controller.model import (
    Deployment,
    Health,
    RouteId,
    RouteStatus,
    Stage,
    Traffic,
)
from controller.reconcile.handler import Mark
from controller.reconcile.schedules import WAKES
from controller.service import Service
from tests.fakes.database import change, running_routes


async def test_a_drained_replica_leaves_with_who_and_why_on_record(
    service: Service, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-28: it is called drain; R-20c: the state it stood in is in its history."""
    route, other = await running_routes(repository, deployment, 2, epoch=epoch)
    stamp = await repository.stamp()
    left = await service.drain_route(route.id, actor="ada", reason="noisy fan")
    assert (left.status, left.stage) == (RouteStatus.TERMINATING, Stage.DRAINING)
    assert (left.traffic, left.traffic_ratio) == (Traffic.INACTIVE, 0.0)
    assert left.health is Health.HEALTHY
    assert await service.get_route(route.id) == left
    assert (await service.get_route(other.id)).status is RouteStatus.RUNNING
    entry = (await service.route_history(route.id))[0]
    assert (entry.category, entry.message) == ("drain_route", "ada drained it: noisy fan")
    assert (entry.from_state, entry.to_state) == (
        "running traffic:active",
        "terminating/draining traffic:inactive",
    )
    audit = (await service.list_audit())[0]
    assert (audit.verb, audit.actor, audit.reason, audit.route_id) == (
        "drain",
        "ada",
        "noisy fan",
        route.id,
    )
    assert await repository.stamp() != stamp, "how the controller hears of it"


async def test_draining_again_changes_nothing(
    database: Database,
    service: Service,
    repository: Repository,
    deployment: Deployment,
    epoch: int,
) -> None:
    (route,) = await running_routes(repository, deployment, 1, epoch=epoch)
    left = await service.drain_route(route.id)
    written = dict(database.sql_writes)
    assert await service.drain_route(route.id, reason="really") == left
    assert dict(database.sql_writes) == written


async def test_what_has_ended_cannot_be_drained(
    service: Service, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-34"""
    (route,) = await running_routes(repository, deployment, 1, epoch=epoch)
    await repository.apply([change(route, status=RouteStatus.TERMINATED)], epoch=epoch)
    with pytest.raises(Conflict, match=rf"route {route.id} has ended \(terminated\)"):
        await service.drain_route(route.id)


async def test_what_never_was_cannot_be_drained(service: Service) -> None:
    with pytest.raises(NotFound, match="there is no route 'nobody'; see `fleetpulse route list`"):
        await service.drain_route(RouteId("nobody"))


async def test_a_route_that_changed_since_it_was_seen_is_not_drained(
    service: Service, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    (route,) = await running_routes(repository, deployment, 1, epoch=epoch)
    with pytest.raises(Stale, match=f"at version {route.version}; look again"):
        await service.drain_route(route.id, expected_version=route.version - 1)
    await service.drain_route(route.id, expected_version=route.version)


async def test_a_decision_on_the_routes_before_is_lost(
    service: Service, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-17: a rollout that counts on the drained replica decides again."""
    (route,) = await running_routes(repository, deployment, 1, epoch=epoch)
    before = (await repository.observe()).deployments[deployment.id]
    await service.drain_route(route.id)
    after = (await repository.observe()).deployments[deployment.id]
    assert after.version > before.version


def test_the_controller_acts_on_it_at_once() -> None:
    """R-49"""
    for handler in ("drain", "sync_proxy", "check_replicas"):
        assert Mark.DEPLOYMENTS in WAKES[handler][0]
