"""A rollout planned over what the database has: nothing is written, whatever is asked."""

import pytest

from controller.db.session import Database
from controller.errors import Conflict, InvalidInput, NotFound
from controller.model import HealthCheck, Outcome, Policy, RevisionSpec
from controller.service import Service
from tests.fakes.verbs import OTHER_SPEC, apply_demo, promote_demo

SLOW_SPEC = RevisionSpec(
    command=("slow",), port=8000, health_check=HealthCheck(path="/", initial_delay_s=600)
)


class TestPlan:
    async def test_plan_is_told_without_a_write(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await apply_demo(service)
        await promote_demo(database, epoch=epoch)
        await service.add_revision("demo", OTHER_SPEC)
        before = await service.get_deployment("demo")

        found = await service.plan_rollout("demo", 2, starts_in_s=45)

        assert (found.deployment, found.from_revision, found.revision) == ("demo", 1, 2)
        assert (found.target, found.starts_in_s, found.deadlock) == (3, 45, None)
        assert found.outcome is Outcome.PROMOTED
        assert found.steps[0].creates == 3
        assert await service.get_deployment("demo") == before

    async def test_replica_is_taken_to_need_the_whole_grace_of_its_check(
        self, service: Service
    ) -> None:
        await apply_demo(service)
        await service.add_revision("demo", SLOW_SPEC)
        found = await service.plan_rollout("demo", 2)
        assert found.starts_in_s == 600

    async def test_deadlock_is_told_with_its_remedy(self, service: Service) -> None:
        await apply_demo(service, policy=Policy(rollout_timeout_s=300))
        await service.add_revision("demo", SLOW_SPEC)
        found = await service.plan_rollout("demo", 2)
        assert found.deadlock is not None
        assert found.deadlock.needs_s == 660
        assert "policy.rollout_timeout_s = 660 or more" in found.deadlock.remedy

    async def test_what_cannot_be_rolled_out_is_not_planned(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await apply_demo(service)
        await promote_demo(database, epoch=epoch)
        with pytest.raises(Conflict, match="revision 1 of deployment 'demo' is current already"):
            await service.plan_rollout("demo", 1)
        with pytest.raises(NotFound, match="no deployment 'nope'"):
            await service.plan_rollout("nope", 1)
        with pytest.raises(NotFound, match="has no revision 7"):
            await service.plan_rollout("demo", 7)
        await service.add_revision("demo", OTHER_SPEC)
        await service.delete("demo")
        with pytest.raises(Conflict, match="is being deleted"):
            await service.plan_rollout("demo", 2)

    @pytest.mark.parametrize("seconds", [-1, 3e7])
    async def test_start_that_cannot_be_is_refused(self, service: Service, seconds: float) -> None:
        await apply_demo(service)
        with pytest.raises(InvalidInput):
            await service.plan_rollout("demo", 1, starts_in_s=seconds)
