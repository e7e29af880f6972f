"""The last look before a route goes for good: its grounds, read once more in one transaction."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from sqlalchemy import select

from controller.db.repository import Repository
from controller.db.session import Database
from controller.db.tables import evictions
from controller.errors import LeaseLost
from controller.lease import Lease
from controller.model import Deployment, RevisionSpec, Route, RouteStatus, Snapshot
from controller.route.evict import CATEGORY, HEALTH_POLICY
from controller.route.grounds import Eviction
from controller.route.leave import leave
from controller.route.orphans import ORPHAN
from controller.service import Service
from tests.fakes.database import SPEC, expire_lease, rows, running_routes

RECORDED = select(
    evictions.c.route_id, evictions.c.cause, evictions.c.prober, evictions.c.seq, evictions.c.epoch
).order_by(evictions.c.route_id)


def out(route: Route, snapshot: Snapshot, cause: str = HEALTH_POLICY, /, **given: int) -> Eviction:
    grounds: dict[str, int] = {"age_ms": 1000, "age_max_ms": 120_000, "fleet_max": 5, "own_max": 5}
    grounds |= given
    return Eviction(
        change=leave(route, category=CATEGORY, message="as the test wants", error_code=cause),
        deployment=snapshot.deployments[route.deployment_id],
        prober="p-1",
        seq=9,
        decided_at_ms=snapshot.now_ms,
        **grounds,
    )


async def gone(repository: Repository) -> set[str]:
    snapshot = await repository.observe()
    return {r.id for r in snapshot.routes if r.status is RouteStatus.TERMINATING}


async def three(repository: Repository, deployment: Deployment, epoch: int) -> Sequence[Route]:
    return await running_routes(repository, deployment, 3, epoch=epoch)


async def test_an_eviction_leaves_a_record_of_what_was_believed(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-20e, S14"""
    route, *_ = await three(repository, deployment, epoch)
    snapshot = await repository.observe()
    done = await repository.evict([out(route, snapshot)], epoch=epoch)
    assert (done.applied, done.lost) == (1, ())
    assert await gone(repository) == {route.id}
    assert await rows(database, RECORDED) == [(route.id, "health_policy", "p-1", 9, epoch)]


async def test_a_status_that_does_not_fit_its_record_keeps_nobody_from_being_evicted(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """S14: the bus bounds neither; one status must not undo the evictions of all others."""
    route, *_ = await three(repository, deployment, epoch)
    believed = out(route, await repository.observe())
    unfit = replace(believed, prober="p\0" + "x" * 200, seq=10**25)
    assert (await repository.evict([unfit], epoch=epoch)).applied == 1
    ((_, _, prober, seq, _),) = await rows(database, RECORDED)
    assert (prober, seq) == ("p\ufffd" + "x" * 126, 2**63 - 1)


async def test_one_that_changed_meanwhile_is_lost_and_the_others_go(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-17, S14"""
    first, second, third = await three(repository, deployment, epoch)
    snapshot = await repository.observe()
    stale = replace(first, version=first.version - 1)
    old = out(second, snapshot, age_ms=120_001)
    done = await repository.evict([out(stale, snapshot), old, out(third, snapshot)], epoch=epoch)
    assert (done.applied, done.lost) == (1, (first.id, second.id))
    assert await gone(repository) == {third.id}
    assert [row[0] for row in await rows(database, RECORDED)] == [third.id]


async def test_revision_pointers_that_moved_abort_it(
    repository: Repository, deployment: Deployment, epoch: int, service: Service
) -> None:
    """S14: what was an orphan, or ill, belongs to another rollout now."""
    route, *_ = await three(repository, deployment, epoch)
    snapshot = await repository.observe()
    await service.add_revision("demo", replace_command(), auto_activate=True)
    done = await repository.evict([out(route, snapshot)], epoch=epoch)
    assert (done.applied, done.lost) == (0, (route.id,))
    assert await gone(repository) == set()


def replace_command() -> RevisionSpec:

    return msgspec.structs.replace(SPEC, command=("serve", "another"))


@pytest.mark.parametrize("limit", ["fleet_max", "own_max"])
async def test_the_budget_counts_what_every_leader_did(
    database: Database, repository: Repository, deployment: Deployment, epoch: int, limit: str
) -> None:
    """R-20e, S13: a change of leaders does not renew it."""
    first, second, third = await three(repository, deployment, epoch)
    snapshot = await repository.observe()
    assert (await repository.evict([out(first, snapshot, **{limit: 2})], epoch=epoch)).applied == 1
    await expire_lease(database)
    successor = await Lease(database, holder="the-next", lease_s=3600).acquire()
    assert successor is not None
    both = [out(route, snapshot, **{limit: 2}) for route in (second, third)]
    done = await repository.evict(both, epoch=successor)
    assert (done.applied, done.lost) == (1, (third.id,))


async def test_orphans_are_outside_the_budget(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    routes = await three(repository, deployment, epoch)
    snapshot = await repository.observe()
    wanted = [out(route, snapshot, ORPHAN, own_max=1, fleet_max=1) for route in routes]
    assert (await repository.evict(wanted, epoch=epoch)).applied == 3


async def test_an_ended_lease_evicts_nobody(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """I8"""
    route, *_ = await three(repository, deployment, epoch)
    snapshot = await repository.observe()
    await expire_lease(database)
    with pytest.raises(LeaseLost):
        await repository.evict([out(route, snapshot)], epoch=epoch)
    assert await gone(repository) == set()


async def test_nobody_to_evict_asks_the_database_nothing(
    database: Database, repository: Repository, epoch: int
) -> None:
    """R-04"""
    before = dict(database.sql_writes)
    assert (await repository.evict([], epoch=epoch)).applied == 0
    assert dict(database.sql_writes) == before
