"""Activating and aborting: one moment, one outcome, and nothing twice."""

import pytest

from controller.db.repository import Repository
from controller.db.session import Database
from controller.errors import Conflict, InvalidInput, NotFound
from controller.model import (
    Decision,
    DeploymentChange,
    Lifecycle,
    Outcome,
    Policy,
    SubStep,
)
from controller.service import Service
from tests.fakes.verbs import OTHER_SPEC, apply_demo, outcomes_of_demo, promote_demo


class TestActivate:
    async def test_one_update_starts_the_rollout(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        """R-29: the flow."""
        await apply_demo(service)
        served = await promote_demo(database, epoch=epoch)
        revision = await service.add_revision("demo", OTHER_SPEC)
        assert await service.get_deployment("demo") == served  # added is not activated

        written = database.sql_writes["deployments"]
        rollout = await service.activate("demo", 2, actor="ada")

        assert database.sql_writes["deployments"] == written + 1
        deployment = await service.get_deployment("demo")
        assert (deployment.lifecycle, deployment.sub_step) == (
            Lifecycle.DEPLOYING,
            SubStep.PROVISIONING,
        )
        assert (deployment.current, deployment.deploying) == (served.current, revision)
        assert deployment.rollout == rollout
        assert served.current is not None
        assert (rollout.from_revision_id, rollout.actor) == (served.current.id, "ada")

    async def test_revision_that_is_current_already_is_refused(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        """R-29"""
        await apply_demo(service)
        served = await promote_demo(database, epoch=epoch)
        with pytest.raises(Conflict, match="is current already; nothing to do"):
            await service.activate("demo", 1)
        await service.add_revision("demo", OTHER_SPEC, auto_activate=True)
        with pytest.raises(Conflict, match="abort the rollout to return to it"):
            await service.activate("demo", 1)
        assert (await service.get_deployment("demo")).current == served.current

    async def test_revision_on_its_way_already_is_refused(self, service: Service) -> None:
        """R-29"""
        await apply_demo(service)
        with pytest.raises(Conflict, match="is being rolled out already"):
            await service.activate("demo", 1)

    async def test_override_ends_the_rollout_in_flight_as_superseded(
        self, service: Service
    ) -> None:
        """R-29, R-18: the newer rollout has its own id, deadline and phase clock."""
        before = (await apply_demo(service)).deployment
        await service.add_revision("demo", OTHER_SPEC)
        rollout = await service.activate("demo", 2)
        after = await service.get_deployment("demo")
        assert before.rollout is not None
        assert rollout.id != before.rollout.id
        assert after.phase_entered_at_ms == rollout.started_at_ms
        newest, oldest = await service.list_rollouts("demo")
        assert (newest.outcome, oldest.outcome) == (None, Outcome.SUPERSEDED)
        assert oldest.ended_at_ms == rollout.started_at_ms

    async def test_missing_revision_is_refused_with_those_there_are(self, service: Service) -> None:
        """R-29"""
        await apply_demo(service)
        with pytest.raises(NotFound, match="has no revision 7; it has 1"):
            await service.activate("demo", 7)

    async def test_rolling_back_revision_may_be_tried_again(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        """R-29"""
        await apply_demo(service)
        await promote_demo(database, epoch=epoch)
        await service.add_revision("demo", OTHER_SPEC, auto_activate=True)
        await service.abort("demo")
        await service.activate("demo", 2)
        assert (await service.get_deployment("demo")).sub_step is SubStep.PROVISIONING

    async def test_policy_with_an_unknown_strategy_cannot_be_written(
        self, service: Service
    ) -> None:
        """R-26: what is not implemented is refused, and the known ones are named."""
        with pytest.raises(InvalidInput, match="no 'recreate'; implemented: rolling, blue-green"):
            await apply_demo(service, policy=Policy(strategy="recreate"))


class TestAbort:
    async def test_abort_turns_back_and_the_outcome_stays_aborted(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await apply_demo(service)
        served = await promote_demo(database, epoch=epoch)
        await apply_demo(service, revision=OTHER_SPEC)
        turned = await service.abort("demo", actor="ada", reason="wrong model")
        assert (turned.lifecycle, turned.sub_step) == (Lifecycle.DEPLOYING, SubStep.ROLLING_BACK)
        assert turned.rollout is not None
        assert turned.rollout.message == "ada aborted it: wrong model"

        back = DeploymentChange(
            category="rolling_back",
            message="rolled back",
            lifecycle=Lifecycle.READY,
            end_rollout=Outcome.ROLLED_BACK,
        )
        await Repository(database).commit(Decision(deployment=turned, change=back), epoch=epoch)
        newest = (await service.list_rollouts("demo"))[0]
        assert (newest.outcome, newest.message) == (Outcome.ABORTED, "ada aborted it: wrong model")
        assert (await service.get_deployment("demo")).current == served.current

    async def test_abort_without_a_current_revision_destroys(self, service: Service) -> None:
        """R-39"""
        await apply_demo(service)
        going = await service.abort("demo")
        assert (going.lifecycle, going.deploying) == (Lifecycle.DESTROYING, None)
        assert await outcomes_of_demo(service) == [Outcome.ABORTED]

    async def test_repeated_abort_writes_nothing(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await apply_demo(service)
        await promote_demo(database, epoch=epoch)
        await apply_demo(service, revision=OTHER_SPEC)
        first = await service.abort("demo")
        written = dict(database.sql_writes)
        assert await service.abort("demo") == first
        assert dict(database.sql_writes) == written

    async def test_repeated_abort_of_a_first_rollout_writes_nothing(self, service: Service) -> None:
        await apply_demo(service)
        first = await service.abort("demo")
        assert await service.abort("demo") == first

    async def test_nothing_to_abort_is_a_conflict(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await apply_demo(service)
        await promote_demo(database, epoch=epoch)
        with pytest.raises(Conflict, match="no rollout in flight to abort"):
            await service.abort("demo")
