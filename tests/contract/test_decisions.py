"""Decisions: written whole or not at all, and only where the deployment may still go."""

from dataclasses import replace

import pytest
from sqlalchemy import func, select, update

from controller.db.repository import Repository
from controller.db.session import Database
from controller.db.tables import deployments, history, rollouts
from controller.errors import Conflict
from controller.model import (
    Decision,
    Deployment,
    DeploymentChange,
    Health,
    Lifecycle,
    Outcome,
    SubStep,
    Traffic,
)
from controller.service import Service
from tests.fakes.database import (
    change,
    new_routes,
    only,
    rows,
    running_routes,
    some_routes,
    to_draining,
    waiting,
)


def promotion(deployment: Deployment) -> Decision:
    return Decision(
        deployment=deployment,
        change=DeploymentChange(
            category="deploying",
            message="rolling update promoted",
            lifecycle=Lifecycle.READY,
            end_rollout=Outcome.PROMOTED,
        ),
    )


async def test_empty_decision_does_no_io(repository: Repository, deployment: Deployment) -> None:
    """R-04"""
    await repository.commit(Decision(deployment=deployment), epoch=99)


async def test_promotion_is_one_transaction(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-13: pointers, lifecycle, routes, history and outcome, together."""
    routes_seen = await running_routes(repository, deployment, 2, epoch=epoch)
    seen = await only(repository)
    decision = replace(promotion(seen), routes=(change(routes_seen[0], traffic=Traffic.INACTIVE),))
    await repository.commit(decision, epoch=epoch)

    after = await only(repository)
    assert (after.lifecycle, after.sub_step) == (Lifecycle.READY, None)
    assert after.current == seen.deploying
    assert (after.deploying, after.rollout) == (None, None)
    assert after.version == seen.version + 1
    assert after.phase_entered_at_ms >= seen.phase_entered_at_ms
    ended = await rows(database, select(rollouts.c.outcome, rollouts.c.message))
    assert ended == [("promoted", "rolling update promoted")]
    newest = (await repository.history_of(seen.id))[0]
    assert (newest.result, newest.to_state) == ("promoted", "ready")
    assert (await repository.observe()).routes[0].traffic is Traffic.INACTIVE


async def test_one_changed_route_undoes_the_whole_decision(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-13"""
    first, second = await running_routes(repository, deployment, 2, epoch=epoch)
    seen = await only(repository)
    await repository.apply([change(second, health=Health.DEGRADED)], epoch=epoch)
    before = await repository.observe()
    entries = await rows(database, select(func.count()).select_from(history))

    decision = replace(
        promotion(seen),
        create=new_routes(seen, 2, first=50),
        routes=(to_draining(first), to_draining(second)),
        notes=(waiting(seen),),
    )
    with pytest.raises(Conflict, match="1 of 2 routes changed meanwhile"):
        await repository.commit(decision, epoch=epoch)

    after = await repository.observe()
    assert replace(after, now_ms=0) == replace(before, now_ms=0)
    assert await rows(database, select(func.count()).select_from(history)) == entries


async def test_second_promotion_is_refused(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-14"""
    await repository.commit(promotion(deployment), epoch=epoch)
    after = await only(repository)
    with pytest.raises(Conflict):
        await repository.commit(promotion(deployment), epoch=epoch)
    assert await only(repository) == after


async def test_promotion_of_an_overridden_rollout_is_refused(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-14: also for somebody who knows the newest version."""
    assert deployment.deploying is not None
    await Service(database).add_revision("demo", deployment.deploying.spec, auto_activate=True)
    overridden = await only(repository)
    stale = replace(deployment, version=overridden.version)
    with pytest.raises(Conflict):
        await repository.commit(promotion(stale), epoch=epoch)
    assert await only(repository) == overridden


async def test_one_snapshot_cannot_create_routes_twice(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-17"""
    await some_routes(repository, deployment, 3, epoch=epoch)
    again = Decision(deployment=deployment, create=new_routes(deployment, 3, first=10))
    with pytest.raises(Conflict):
        await repository.commit(again, epoch=epoch)
    assert len((await repository.observe()).routes) == 3


async def test_note_alone_leaves_the_deployment_as_it_is(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-19"""
    decision = Decision(deployment=deployment, notes=(waiting(deployment),))
    await repository.commit(decision, epoch=epoch)
    assert await only(repository) == deployment
    assert (await repository.history_of(deployment.id))[0].result == "skipped"


async def test_sub_step_moves_the_phase_clock_and_a_repeat_does_not(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-18"""
    async with database.write(epoch=None) as write:
        await write.connection.execute(update(deployments).values(phase_entered_at_ms=7))
    progressing = DeploymentChange(
        category="deploying",
        message="",
        lifecycle=Lifecycle.DEPLOYING,
        sub_step=SubStep.PROVISIONING,
    )
    await repository.commit(Decision(deployment=deployment, change=progressing), epoch=epoch)
    same = await only(repository)
    assert same.phase_entered_at_ms == 7
    moved = replace(progressing, sub_step=SubStep.PROGRESSING)
    await repository.commit(Decision(deployment=same, change=moved), epoch=epoch)
    assert (await only(repository)).phase_entered_at_ms > 7


async def test_rollback_ends_the_rollout_and_keeps_the_current_revision(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-13"""
    await repository.commit(promotion(deployment), epoch=epoch)
    served = await only(repository)
    assert served.current is not None
    await Service(database).add_revision("demo", served.current.spec, auto_activate=True)
    seen = await only(repository)
    back = DeploymentChange(
        category="rolling_back",
        message="rolled back",
        lifecycle=Lifecycle.READY,
        end_rollout=Outcome.EXPIRED,
    )
    await repository.commit(Decision(deployment=seen, change=back), epoch=epoch)
    after = await only(repository)
    assert (after.current, after.deploying) == (served.current, None)
    newest, oldest = await Service(database).list_rollouts("demo")
    assert (newest.outcome, oldest.outcome) == (Outcome.EXPIRED, Outcome.PROMOTED)
    assert newest.ended_at_ms is not None


async def test_rollout_is_not_left_without_being_ended(
    repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-14"""
    leaving = DeploymentChange(category="x", message="", lifecycle=Lifecycle.READY)
    with pytest.raises(Conflict):
        await repository.commit(Decision(deployment=deployment, change=leaving), epoch=epoch)


@pytest.mark.usefixtures("deployment")
async def test_sweep_repairs_deploying_without_a_revision_to_deploy(
    database: Database, repository: Repository, epoch: int
) -> None:
    """R-13"""
    async with database.write(epoch=None) as write:
        await write.connection.execute(update(deployments).values(deploying_revision_id=None))
    broken = await only(repository)
    assert broken.deploying is None
    repair = DeploymentChange(category="x", message="repaired", lifecycle=Lifecycle.PENDING)
    await repository.commit(Decision(deployment=broken, change=repair), epoch=epoch)
    repaired = await only(repository)
    assert (repaired.lifecycle, repaired.rollout) == (Lifecycle.PENDING, None)
    assert await rows(database, select(rollouts.c.outcome)) == [("failed",)]


@pytest.mark.parametrize("lifecycle", [Lifecycle.DESTROYING, Lifecycle.DESTROYED])
@pytest.mark.parametrize("back_to", [Lifecycle.READY, Lifecycle.DEPLOYING, Lifecycle.PENDING])
async def test_deployment_on_its_way_out_never_comes_back(
    database: Database,
    deployment: Deployment,
    epoch: int,
    *,
    lifecycle: Lifecycle,
    back_to: Lifecycle,
) -> None:
    """R-38: not even for somebody who believes it is alive and knows its newest version."""
    repository = Repository(database)
    going = await destroyed(database, deployment, lifecycle, epoch=epoch)
    believed = replace(deployment, version=going)
    revived = DeploymentChange(category="x", message="", lifecycle=back_to)
    attempts = [
        Decision(deployment=believed, change=revived),
        Decision(deployment=believed, create=new_routes(deployment, 1)),
        promotion(believed),
    ]
    for attempt in attempts:
        with pytest.raises(Conflict):
            await repository.commit(attempt, epoch=epoch)
    assert await rows(database, select(deployments.c.lifecycle)) == [(lifecycle.value,)]


async def test_destroying_deployment_may_drain_and_be_destroyed(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    """R-38"""
    (route,) = await running_routes(repository, deployment, 1, epoch=epoch)
    await Service(database).delete("demo")
    drain = Decision(deployment=await only(repository), routes=(to_draining(route),))
    await repository.commit(drain, epoch=epoch)
    over = DeploymentChange(category="destroying", message="", lifecycle=Lifecycle.DESTROYED)
    await repository.commit(Decision(deployment=await only(repository), change=over), epoch=epoch)
    assert (await repository.observe()).deployments == {}


async def destroyed(
    database: Database, deployment: Deployment, lifecycle: Lifecycle, *, epoch: int
) -> int:
    """Bring the deployment to DESTROYING or DESTROYED; return its version then."""
    going = await Service(database).delete(deployment.name)
    if lifecycle is Lifecycle.DESTROYING:
        return going.version
    over = DeploymentChange(category="destroying", message="", lifecycle=lifecycle)
    await Repository(database).commit(Decision(deployment=going, change=over), epoch=epoch)
    return going.version + 1
