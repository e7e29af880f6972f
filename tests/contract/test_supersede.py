"""One rollout in the place of another, and back to what is kept: in one moment each."""

from dataclasses import replace

import pytest
from sqlalchemy import insert

from controller.db.asker import RolloutVerb
from controller.db.repository import Repository
from controller.db.rows import route_values
from controller.db.session import Database
from controller.db.tables import routes
from controller.model import (
    Decision,
    Deployment,
    Lifecycle,
    Outcome,
    Policy,
    RevisionSpec,
    Route,
    RouteId,
    Traffic,
    WeightStep,
)
from controller.rollout import destroy, machine
from controller.route.orphans import known_revisions
from controller.service import Service
from tests.fakes.nouns import a_route, fresh_ids
from tests.fakes.verbs import OTHER_SPEC, apply_demo, promote_demo

THIRD_SPEC = RevisionSpec(command=("serve", "a-third-model"))
POLICIES = {
    "rolling": Policy(),
    "blue-green": Policy(strategy="blue-green"),
    "canary": Policy(strategy="canary", steps=(WeightStep(weight_percent=25),)),
}
SHARES = {"rolling": (1.0, 1.0), "blue-green": (1.0, 0.0), "canary": (0.75, 0.25)}
"""Of an old and of a new replica, in the midst of a rollout."""
AFTER = {"rolling": (1.0, 1.0), "blue-green": (1.0, 0.0), "canary": (1.0, 0.0)}
"""Once it is superseded."""


def replicas(seen: Deployment, *, old: float, new: float) -> list[Route]:
    """Build three serving replicas, and two of the revision in rollout."""
    assert seen.current is not None
    assert seen.deploying is not None
    parts = [(seen.current, old, (1, 2, 3)), (seen.deploying, new, (4, 5))]
    return [
        a_route(
            number,
            deployment_id=seen.id,
            revision_id=revision.id,
            traffic=Traffic.ACTIVE if ratio else Traffic.INACTIVE,
            traffic_ratio=ratio,
        )
        for revision, ratio, numbers in parts
        for number in numbers
    ]


async def half_way(database: Database, service: Service, strategy: str, *, epoch: int) -> None:
    """Let revision 1 serve, and a rollout of revision 2 be in the midst."""
    await apply_demo(service, policy=POLICIES[strategy])
    await promote_demo(database, epoch=epoch)
    await apply_demo(service, policy=POLICIES[strategy], revision=OTHER_SPEC)
    old, new = SHARES[strategy]
    made = replicas(await service.get_deployment("demo"), old=old, new=new)
    async with database.write(epoch=None) as write:
        rows = [route_values(route, rollout_id=None) for route in made]
        await write.connection.execute(insert(routes), rows)


@pytest.mark.parametrize("strategy", list(POLICIES))
async def test_traffic_goes_back_to_what_serves_in_the_moment_of_superseding(
    database: Database, service: Service, epoch: int, strategy: str
) -> None:
    """R-29, R-35: the replicas of the rollout before are orphans, and none keeps a share."""
    await half_way(database, service, strategy, epoch=epoch)
    before = {route.id: route for route in await service.list_routes("demo")}
    begun = await service.get_deployment("demo")

    await service.add_revision("demo", THIRD_SPEC, auto_activate=True)

    after = await service.get_deployment("demo")
    assert begun.rollout is not None
    newest, superseded, _ = await service.list_rollouts("demo")
    assert (newest, superseded.id) == (after.rollout, begun.rollout.id)
    assert superseded.outcome is Outcome.SUPERSEDED
    assert after.version == begun.version + 1, "one write"
    assert after.current is not None
    assert begun.deploying is not None
    old, new = AFTER[strategy]
    found = await service.list_routes("demo")
    assert {r.traffic_ratio for r in found if r.revision_id == after.current.id} == {old}
    left = [r for r in found if r.revision_id == begun.deploying.id]
    assert {r.traffic_ratio for r in left} == {new}
    assert {r.traffic for r in left} == {Traffic.ACTIVE if new else Traffic.INACTIVE}
    assert begun.deploying.id not in known_revisions(after), "they leave as orphans"
    moved = {r.id for r in found if r.version != before[r.id].version}
    assert moved == ({r.id for r in found} if strategy == "canary" else set())


async def test_each_replica_that_is_moved_has_its_row_of_history(
    database: Database, service: Service, epoch: int
) -> None:
    """I7"""
    await half_way(database, service, "canary", epoch=epoch)
    await service.add_revision("demo", THIRD_SPEC, auto_activate=True)
    repository = Repository(database)
    for route in await service.list_routes("demo"):
        (entry,) = await repository.history_of(RouteId(route.id))
        assert entry.category == "deploying"
        assert "revision 3" in entry.message


async def test_first_deployment_has_nothing_to_go_back_to(
    database: Database, service: Service
) -> None:
    """Greens that have all the traffic there is keep it until the next ones are ready."""
    policy = POLICIES["canary"]
    first = (await apply_demo(service, policy=policy)).deployment
    assert first.deploying is not None
    route = a_route(1, deployment_id=first.id, revision_id=first.deploying.id, traffic_ratio=0.25)
    async with database.write(epoch=None) as write:
        row = route_values(route, rollout_id=None)
        await write.connection.execute(insert(routes), [row])
    await service.add_revision("demo", OTHER_SPEC, auto_activate=True)
    (found,) = await service.list_routes("demo")
    assert found == route


async def test_rollout_that_is_retried_while_it_turns_back_begins_without_a_share(
    database: Database, service: Service, epoch: int
) -> None:
    """R-18: nothing of the one before leaks into the next."""
    await half_way(database, service, "canary", epoch=epoch)
    await service.abort("demo")
    retried = (await service.steer("demo", RolloutVerb.RETRY)).deployment
    assert retried.deploying is not None
    found = await service.list_routes("demo")
    mine = {r.traffic_ratio for r in found if r.revision_id == retried.deploying.id}
    assert mine == {0.0}


async def cycle(database: Database, *, epoch: int) -> Decision:
    """Let the rules decide once over what the database holds, and write it."""
    repository = Repository(database)
    snapshot = await repository.observe()
    (seen,) = snapshot.deployments.values()
    if seen.lifecycle is Lifecycle.DESTROYING:
        decision = destroy.step(seen, snapshot.routes)
    else:
        decision = machine.step(seen, snapshot.routes, snapshot.now_ms, failed=0, fresh=fresh_ids())
    assert decision is not None
    await repository.commit(decision, epoch=epoch)
    return decision


async def switched(database: Database, service: Service, *, epoch: int) -> None:
    """Let revision 2 be promoted, and the replicas of revision 1 be kept."""
    policy = Policy(strategy="blue-green", scale_down_delay_s=600, auto_promote=False)
    await apply_demo(service, policy=policy)
    await promote_demo(database, epoch=epoch)
    await apply_demo(service, policy=policy, revision=OTHER_SPEC)
    seen = await service.get_deployment("demo")
    more = a_route(6, traffic=Traffic.INACTIVE, traffic_ratio=0.0)
    made = [*replicas(seen, old=1.0, new=0.0), more]
    assert seen.deploying is not None
    made[-1] = replace(more, deployment_id=seen.id, revision_id=seen.deploying.id)
    async with database.write(epoch=None) as write:
        rows = [route_values(route, rollout_id=None) for route in made]
        await write.connection.execute(insert(routes), rows)
    await service.steer("demo", RolloutVerb.PROMOTE)
    await cycle(database, epoch=epoch)


async def shares_of(service: Service) -> dict[str, set[tuple[Traffic, float]]]:
    """Return the traffic of the active replicas, by revision."""
    found: dict[str, set[tuple[Traffic, float]]] = {}
    for route in await service.list_routes("demo"):
        if route.active:
            found.setdefault(route.revision_id, set()).add((route.traffic, route.traffic_ratio))
    return found


async def test_rollback_to_kept_replicas_is_a_switch_in_one_cycle(
    database: Database, service: Service, epoch: int
) -> None:
    """R-35: no replica is started, nobody is asked again, no moment without traffic."""
    await switched(database, service, epoch=epoch)
    promoted = await service.get_deployment("demo")
    assert promoted.current is not None
    assert promoted.kept is not None
    on, off = (Traffic.ACTIVE, 1.0), (Traffic.INACTIVE, 0.0)
    assert await shares_of(service) == {promoted.current.id: {on}, promoted.kept.id: {off}}

    await service.steer("demo", RolloutVerb.ROLLBACK)
    decision = await cycle(database, epoch=epoch)

    assert decision.create == ()
    back = await service.get_deployment("demo")
    assert (back.lifecycle, back.current) == (Lifecycle.READY, promoted.kept)
    assert back.kept == promoted.current, "and the way forth stays open"
    assert await shares_of(service) == {promoted.kept.id: {on}, promoted.current.id: {off}}


async def test_another_revision_ends_the_keeping(
    database: Database, service: Service, epoch: int
) -> None:
    await switched(database, service, epoch=epoch)
    await service.add_revision("demo", THIRD_SPEC, auto_activate=True)
    after = await service.get_deployment("demo")
    assert (after.kept, after.kept_until_ms) == (None, None)
    assert len(known_revisions(after)) == 2


async def test_deletion_takes_the_kept_ones_along(
    database: Database, service: Service, epoch: int
) -> None:
    await switched(database, service, epoch=epoch)
    gone = await service.delete("demo")
    assert (gone.lifecycle, gone.kept) == (Lifecycle.DESTROYING, None)
    decision = await cycle(database, epoch=epoch)
    assert len(decision.routes) == 6
    assert await shares_of(service) == {}
