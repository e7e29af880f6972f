"""How far a rollout is, and what was decided in it: as the database has it."""

from dataclasses import replace

import pytest

from controller.db.holds import Held
from controller.db.repository import Repository
from controller.db.session import Database
from controller.errors import NotFound
from controller.model import (
    Decision,
    DeploymentChange,
    Lifecycle,
    Note,
    Outcome,
    Policy,
    RolloutId,
    SubStep,
)
from controller.rollout.bluegreen import BLUE_GREEN
from controller.rollout.counting import Bounds
from controller.rollout.progress import Clock
from controller.rollout.strategies import STRATEGIES
from controller.service import Service
from tests.fakes.verbs import OTHER_SPEC, apply_demo, promote_demo


async def test_a_strategy_that_fails_keeps_no_other_rollout_from_being_told(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-15: the page of the whole fleet was an error while one of them did."""

    def bounds(policy: Policy, target: int) -> Bounds:
        raise ZeroDivisionError(f"{policy.strategy} of {target}")

    await apply_demo(service)
    await service.apply_deployment(
        "bad",
        replicas=3,
        policy=Policy(strategy="blue-green"),
        cleanup_target_statuses=(),
        revision=OTHER_SPEC,
    )
    monkeypatch.setitem(STRATEGIES, "blue-green", replace(BLUE_GREEN, bounds=bounds))
    assert [each.deployment for each in await service.rollouts_in_flight(limit=10)] == ["demo"]


class TestProgress:
    async def test_one_in_flight_is_told_with_the_rule_that_comes_next(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await apply_demo(service)
        await promote_demo(database, epoch=epoch)
        await service.add_revision("demo", OTHER_SPEC)
        rollout = await service.activate("demo", 2, actor="ada")

        found = await service.rollout_progress("demo")

        assert (found.rollout, found.actor, found.outcome) == (rollout.id, "ada", None)
        assert (found.from_number, found.to_number, found.strategy) == (1, 2, "rolling")
        assert found.limits is not None
        assert (found.limits.floor, found.limits.ceiling, found.target) == (3, 5, 3)
        assert found.deadline is not None
        assert found.deadline.clock is Clock.RUNS
        assert 7100 < found.deadline.left_s <= 7200
        assert found.outlook is not None
        assert found.outlook.rule == "replace"
        assert found.outlook.text == "starts 3 of revision 2 at its next run"

    async def test_hold_is_told_as_the_leader_recorded_it(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        """S15"""
        await apply_demo(service)
        held: Held = {None: "bus_unreachable"}
        await Repository(database).record_holds(held, epoch=epoch)
        found = (await service.rollout_progress("demo")).deadline
        assert found is not None
        assert found.clock is Clock.HELD
        await Repository(database).record_holds({}, epoch=epoch)
        found = (await service.rollout_progress("demo")).deadline
        assert found is not None
        assert found.clock is Clock.RUNS

    async def test_one_that_ended_is_told_with_its_outcome(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await apply_demo(service)
        await promote_demo(database, epoch=epoch)
        found = await service.rollout_progress("demo")
        assert (found.outcome, found.message) == (Outcome.PROMOTED, "promoted")
        assert (found.from_number, found.to_number) == (None, 1)
        assert (found.limits, found.deadline, found.outlook) == (None, None, None)

    async def test_what_is_not_there_is_said(self, service: Service) -> None:
        with pytest.raises(NotFound, match="there is no deployment 'demo'"):
            await service.rollout_progress("demo")
        await apply_demo(service, auto_activate=False)
        with pytest.raises(NotFound, match="demo has had no rollout yet: start one"):
            await service.rollout_progress("demo")

    async def test_decisions_are_those_of_one_rollout_with_their_rules(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        """R-16, R-18"""
        await apply_demo(service)
        seen = await service.get_deployment("demo")
        assert seen.rollout is not None
        moved = DeploymentChange(
            category="deploying",
            message="creates 3, drains 0",
            lifecycle=Lifecycle.DEPLOYING,
            sub_step=SubStep.PROGRESSING,
            rule="replace",
        )
        repository = Repository(database)
        await repository.commit(Decision(deployment=seen, change=moved), epoch=epoch)
        waits = Note(
            deployment_id=seen.id,
            route_id=None,
            category="deploying",
            message="waiting: 0 of 3",
            result="waiting",
            rule="wait",
        )
        for _ in range(2):
            again = await service.get_deployment("demo")
            await repository.commit(Decision(deployment=again, notes=(waits,)), epoch=epoch)

        newest, *_ = decided = await service.rollout_decisions("demo", seen.rollout.id)

        assert [one.rule for one in decided if one.rule] == ["wait", "replace"]
        assert (newest.attempts, newest.message) == (2, "waiting: 0 of 3")
        told = (await service.rollout_progress("demo")).decisions
        assert [one.rule for one in told if one.rule] == ["replace", "wait"], "the newest last"
        with pytest.raises(NotFound, match="demo has had no rollout 'of-nobody'"):
            await service.rollout_decisions("demo", RolloutId("of-nobody"))
