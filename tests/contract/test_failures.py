"""Which replicas ended early, as history has it."""

from dataclasses import replace

from controller.db.failures import Failures
from controller.db.repository import Repository
from controller.db.session import Database
from controller.model import Decision, Deployment, DeploymentChange, Lifecycle, Outcome, RouteStatus
from controller.route.leave import leave
from tests.fakes.database import change, only, some_routes


async def ready(repository: Repository, *, epoch: int) -> Deployment:
    """Let the deployment's rollout end, so that its revision is current."""
    promoted = DeploymentChange(
        category="deploying",
        message="done",
        lifecycle=Lifecycle.READY,
        end_rollout=Outcome.PROMOTED,
    )
    seen = await only(repository)
    await repository.commit(Decision(deployment=seen, change=promoted), epoch=epoch)
    return await only(repository)


async def test_early_ends_of_the_current_revision_are_found_and_no_others(
    database: Database, repository: Repository, deployment: Deployment, epoch: int
) -> None:
    first, second, third, fourth = await some_routes(repository, deployment, 4, epoch=epoch)
    assert (await ready(repository, epoch=epoch)).current is not None
    refused = change(first, status=RouteStatus.FAILED_TO_START)
    changes = [
        replace(refused, message="no such command", error_code="PROVISION_REFUSED"),
        leave(second, category="check_running", message="exited", error_code="SESSION_LOST"),
        leave(third, category="check_replicas", message="scaling in"),
    ]
    await repository.apply(changes, epoch=epoch)
    found = (await Failures(database).of([deployment.id], since_ms=0))[deployment.id]
    assert sorted(one.reason for one in found) == ["exited", "no such command"]
    assert {one.created_at_ms for one in found} == {first.created_at_ms}
    assert all(one.failed_at_ms >= one.created_at_ms for one in found)
    later = await Failures(database).of([deployment.id], since_ms=fourth.created_at_ms + 1)
    assert not later.get(deployment.id)


async def test_asking_about_nobody_reads_nothing(database: Database) -> None:
    await database.close()
    assert await Failures(database).of([], since_ms=0) == {}
