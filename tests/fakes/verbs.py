"""The verbs as tests use them: with everything a test does not care about filled in."""

from typing import Any

from controller.db.repository import Repository
from controller.db.session import Database
from controller.model import (
    Decision,
    Deployment,
    DeploymentChange,
    Health,
    HealthCheck,
    Lifecycle,
    Outcome,
    Policy,
    RevisionSpec,
)
from controller.service import DeploymentApplied, Service
from tests.fakes.database import SPEC

OTHER_SPEC = RevisionSpec(command=("serve", "another-model"))
EXTERNAL = RevisionSpec(external=True, health_check=HealthCheck(path="/health"))


async def apply_demo(service: Service, **given: Any) -> DeploymentApplied:  # noqa: ANN401
    wanted: dict[str, Any] = {
        "replicas": 3,
        "policy": Policy(),
        "cleanup_target_statuses": (Health.UNHEALTHY,),
        "revision": SPEC,
    }
    return await service.apply_deployment("demo", **(wanted | given))


async def promote_demo(database: Database, *, epoch: int) -> Deployment:
    """End the rollout in flight of `demo` well."""
    service = Service(database)
    done = DeploymentChange(
        category="deploying",
        message="promoted",
        lifecycle=Lifecycle.READY,
        end_rollout=Outcome.PROMOTED,
    )
    seen = await service.get_deployment("demo")
    await Repository(database).commit(Decision(deployment=seen, change=done), epoch=epoch)
    return await service.get_deployment("demo")


async def outcomes_of_demo(service: Service) -> list[Outcome | None]:
    """Return how the rollouts of `demo` ended, in order of their revisions' age."""
    ended = {one.revision_id: one.outcome for one in await service.list_rollouts("demo")}
    return [ended.get(one.id) for one in reversed(await service.list_revisions("demo"))]
