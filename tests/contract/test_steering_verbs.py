"""Pausing, resuming, promoting, retrying and going back: refused in words, or done once."""

from typing import Any

import pytest
from sqlalchemy import insert, update

from controller.db.asker import RolloutVerb
from controller.db.repository import Repository
from controller.db.rows import route_values
from controller.db.session import Database
from controller.db.tables import rollouts, routes
from controller.errors import Conflict, NotFound, Stale
from controller.model import (
    Decision,
    Deployment,
    DeploymentChange,
    Lifecycle,
    Outcome,
    Policy,
    RevisionSpec,
    Route,
    SubStep,
    Traffic,
)
from controller.service import Service
from tests.fakes.nouns import a_route
from tests.fakes.verbs import OTHER_SPEC, apply_demo, promote_demo

BLUE_GREEN = Policy(strategy="blue-green", auto_promote=False)


async def in_flight(database: Database, service: Service, *, epoch: int, **given: Any) -> None:  # noqa: ANN401
    """Let revision 1 serve, and begin a rollout of revision 2."""
    await apply_demo(service, **given)
    await promote_demo(database, epoch=epoch)
    await apply_demo(service, revision=OTHER_SPEC, **given)


async def end(database: Database, service: Service, outcome: Outcome, *, epoch: int) -> Deployment:
    """Let the rollout in flight end."""
    seen = await service.get_deployment("demo")
    ended = DeploymentChange(
        category="rolling_back",
        message="ended",
        lifecycle=Lifecycle.READY,
        end_rollout=outcome,
        keep_for_s=seen.policy.scale_down_delay_s,
    )
    await Repository(database).commit(Decision(deployment=seen, change=ended), epoch=epoch)
    return await service.get_deployment("demo")


async def put(database: Database, *made: Route) -> None:
    """Write routes as they are."""
    async with database.write(epoch=None) as write:
        rows = [route_values(route, rollout_id=None) for route in made]
        await write.connection.execute(insert(routes), rows)


async def greens(database: Database, service: Service, count: int) -> None:
    """Let so many replicas of the revision in rollout be ready, without traffic."""
    seen = await service.get_deployment("demo")
    assert seen.deploying is not None
    made = [
        a_route(
            number,
            deployment_id=seen.id,
            revision_id=seen.deploying.id,
            traffic=Traffic.INACTIVE,
            traffic_ratio=0.0,
        )
        for number in range(1, count + 1)
    ]
    await put(database, *made)


async def earlier(database: Database, ms: int) -> None:
    """Let the rollout have been paused so long ago."""
    async with database.write(epoch=None) as write:
        paused = rollouts.c.paused_at_ms
        past = update(rollouts).where(paused.is_not(None)).values(paused_at_ms=paused - ms)
        await write.connection.execute(past)


async def told(service: Service) -> list[tuple[str, str, str]]:
    """Return who asked for which rollout verb and why, oldest first."""
    known = ("pause", "resume", "promote", "abort", "retry", "rollback")
    return [
        (one.actor, one.verb, one.reason)
        for one in reversed(await service.list_audit())
        if one.verb in known
    ]


class TestPause:
    async def test_pause_stops_the_clocks_until_it_is_resumed(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await in_flight(database, service, epoch=epoch)
        before = await service.get_deployment("demo")
        paused = await service.steer("demo", RolloutVerb.PAUSE, actor="ada", reason="lunch")
        assert paused.changes == ("paused the rollout to revision 2",)
        assert paused.deployment.rollout is not None
        assert paused.deployment.rollout.paused_at_ms is not None

        await earlier(database, 60_000)
        resumed = await service.steer("demo", RolloutVerb.RESUME, actor="ada")

        assert resumed.changes[0].startswith("resumed the rollout to revision 2 after 6")
        after = resumed.deployment
        assert before.rollout is not None
        assert after.rollout is not None
        assert after.rollout.paused_at_ms is None
        moved_ms = after.rollout.deadline_at_ms - before.rollout.deadline_at_ms
        assert moved_ms >= 60_000
        assert after.phase_entered_at_ms - before.phase_entered_at_ms == moved_ms
        assert await told(service) == [("ada", "pause", "lunch"), ("ada", "resume", "")]
        newest, older = (await service.history("demo"))[:2]
        assert newest.category == "resume"
        assert (older.category, older.message) == (
            "pause",
            "ada paused the rollout to revision 2: lunch",
        )

    async def test_repeated_pause_and_resume_change_nothing(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await in_flight(database, service, epoch=epoch)
        first = await service.steer("demo", RolloutVerb.PAUSE)
        written = dict(database.sql_writes)
        again = await service.steer("demo", RolloutVerb.PAUSE)
        assert (again.changes, again.deployment) == ((), first.deployment)
        assert dict(database.sql_writes) == written
        first = await service.steer("demo", RolloutVerb.RESUME)
        written = dict(database.sql_writes)
        again = await service.steer("demo", RolloutVerb.RESUME)
        assert (again.changes, again.deployment) == ((), first.deployment)
        assert dict(database.sql_writes) == written

    async def test_rollback_cannot_be_paused(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await in_flight(database, service, epoch=epoch)
        await service.abort("demo")
        with pytest.raises(Conflict, match="is rolling back, which has to end"):
            await service.steer("demo", RolloutVerb.PAUSE)

    async def test_abort_ends_a_pause(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        """A rollback has to end, so no clock of it stands."""
        await in_flight(database, service, epoch=epoch)
        await service.steer("demo", RolloutVerb.PAUSE)
        aborted = await service.abort("demo")
        assert aborted.sub_step is SubStep.ROLLING_BACK
        assert aborted.rollout is not None
        assert aborted.rollout.paused_at_ms is None

    @pytest.mark.parametrize("verb", [RolloutVerb.PAUSE, RolloutVerb.RESUME, RolloutVerb.PROMOTE])
    async def test_at_rest_there_is_nothing_to_steer(
        self, database: Database, service: Service, epoch: int, verb: RolloutVerb
    ) -> None:
        await apply_demo(service)
        await promote_demo(database, epoch=epoch)
        with pytest.raises(Conflict, match=f"no rollout in flight to {verb}; begin one with"):
            await service.steer("demo", verb)


class TestPromote:
    async def test_promotion_is_asked_for_once_all_greens_are_ready(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await in_flight(database, service, epoch=epoch, policy=BLUE_GREEN)
        await greens(database, service, 3)
        asked = await service.steer("demo", RolloutVerb.PROMOTE, actor="ada", reason="looks good")
        assert asked.changes == ("promoted revision 2",)
        assert asked.deployment.rollout is not None
        assert asked.deployment.rollout.promote_asked
        assert (await service.steer("demo", RolloutVerb.PROMOTE)).changes == ()
        assert await told(service) == [("ada", "promote", "looks good")]

    async def test_promotion_before_all_are_ready_is_refused(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        """R-35"""
        await in_flight(database, service, epoch=epoch, policy=BLUE_GREEN)
        await greens(database, service, 2)
        with pytest.raises(Conflict, match="2 of 3 replicas of revision 2 are ready"):
            await service.steer("demo", RolloutVerb.PROMOTE)
        assert await told(service) == []

    async def test_rolling_update_has_nothing_to_promote(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await in_flight(database, service, epoch=epoch)
        with pytest.raises(Conflict, match="a rolling update has nothing to promote"):
            await service.steer("demo", RolloutVerb.PROMOTE)

    async def test_paused_rollout_is_not_promoted(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await in_flight(database, service, epoch=epoch, policy=BLUE_GREEN)
        await greens(database, service, 3)
        await service.steer("demo", RolloutVerb.PAUSE)
        with pytest.raises(Conflict, match="is paused; let it go on first"):
            await service.steer("demo", RolloutVerb.PROMOTE)

    async def test_rollback_is_not_promoted(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await in_flight(database, service, epoch=epoch, policy=BLUE_GREEN)
        await service.abort("demo")
        with pytest.raises(Conflict, match="is rolling back: there is nothing to promote"):
            await service.steer("demo", RolloutVerb.PROMOTE)

    async def test_promotion_that_was_carried_out_may_be_repeated(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await in_flight(database, service, epoch=epoch, policy=BLUE_GREEN)
        await greens(database, service, 3)
        await service.steer("demo", RolloutVerb.PROMOTE)
        await promote_demo(database, epoch=epoch)
        assert (await service.steer("demo", RolloutVerb.PROMOTE)).changes == ()


class TestRetry:
    @pytest.mark.parametrize(
        "outcome", [Outcome.FAILED, Outcome.EXPIRED, Outcome.ABORTED, Outcome.ROLLED_BACK]
    )
    async def test_what_was_given_up_is_begun_anew(
        self, database: Database, service: Service, epoch: int, outcome: Outcome
    ) -> None:
        """R-18: under an id, a deadline and a phase clock of its own."""
        await in_flight(database, service, epoch=epoch)
        ended = await end(database, service, outcome, epoch=epoch)
        retried = await service.steer("demo", RolloutVerb.RETRY, actor="ada", reason="disk is back")
        assert retried.changes == ("retried revision 2",)
        newest, older, _ = await service.list_rollouts("demo")
        assert (newest.revision_id, older.outcome) == (older.revision_id, outcome)
        assert newest.id != older.id
        assert retried.deployment.rollout == newest
        assert retried.deployment.version == ended.version + 1
        assert await told(service) == [("ada", "retry", "disk is back")]
        assert (await service.steer("demo", RolloutVerb.RETRY)).changes == ()

    async def test_rollout_that_turns_back_may_be_retried_at_once(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await in_flight(database, service, epoch=epoch)
        await service.abort("demo")
        retried = await service.steer("demo", RolloutVerb.RETRY)
        assert retried.deployment.sub_step is SubStep.PROVISIONING
        newest, older, _ = await service.list_rollouts("demo")
        assert (newest.outcome, older.outcome) == (None, Outcome.ABORTED)

    async def test_what_was_not_given_up_is_not_retried(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await apply_demo(service)
        with pytest.raises(Conflict, match="to revision 1 is in flight; only one that failed"):
            await service.steer("demo", RolloutVerb.RETRY)
        await promote_demo(database, epoch=epoch)
        with pytest.raises(Conflict, match="to revision 1 was promoted; only one that failed"):
            await service.steer("demo", RolloutVerb.RETRY)

    async def test_deployment_without_a_rollout_has_none_to_retry(self, service: Service) -> None:
        await apply_demo(service, auto_activate=False)
        with pytest.raises(Conflict, match="has had no rollout to retry; begin one with"):
            await service.steer("demo", RolloutVerb.RETRY)


class TestRollback:
    async def test_rollback_of_a_rollout_in_flight_aborts_it(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await in_flight(database, service, epoch=epoch)
        back = await service.steer("demo", RolloutVerb.ROLLBACK, actor="ada", reason="too slow")
        assert back.changes == ("rolled back the rollout in flight",)
        assert back.deployment.sub_step is SubStep.ROLLING_BACK
        assert back.deployment.rollout is not None
        assert back.deployment.rollout.outcome is Outcome.ABORTED
        assert (await service.steer("demo", RolloutVerb.ROLLBACK)).changes == ()
        assert await told(service) == [("ada", "rollback", "too slow")]

    async def test_rollback_at_rest_returns_to_the_revision_before(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await in_flight(database, service, epoch=epoch)
        await promote_demo(database, epoch=epoch)
        back = await service.steer("demo", RolloutVerb.ROLLBACK, actor="ada")
        assert back.changes == ("rolled back to revision 1",)
        assert back.deployment.deploying is not None
        assert back.deployment.deploying.number == 1
        assert back.deployment.rollout is not None
        assert back.deployment.rollout.promote_asked, "nobody is asked again"

    async def test_repeated_rollback_never_goes_forth_again(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await in_flight(database, service, epoch=epoch)
        await promote_demo(database, epoch=epoch)
        await service.steer("demo", RolloutVerb.ROLLBACK)
        assert (await service.steer("demo", RolloutVerb.ROLLBACK)).changes == (), "on its way"
        await promote_demo(database, epoch=epoch)
        assert (await service.steer("demo", RolloutVerb.ROLLBACK)).changes == (), "done"
        found = await service.get_deployment("demo")
        assert found.current is not None
        assert (found.lifecycle, found.current.number) == (Lifecycle.READY, 1)

    async def test_rollback_that_failed_may_be_asked_for_again(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await in_flight(database, service, epoch=epoch)
        await promote_demo(database, epoch=epoch)
        await service.steer("demo", RolloutVerb.ROLLBACK)
        await end(database, service, Outcome.FAILED, epoch=epoch)
        assert (await service.steer("demo", RolloutVerb.ROLLBACK)).changes == (
            "rolled back to revision 1",
        )

    async def test_rollback_after_a_failed_rollout_returns_to_what_served_before(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        """Not to what is current, nor to what failed."""
        await in_flight(database, service, epoch=epoch)
        await promote_demo(database, epoch=epoch)
        third = RevisionSpec(command=("serve", "a-third"))
        await service.add_revision("demo", third, auto_activate=True)
        await end(database, service, Outcome.FAILED, epoch=epoch)
        assert (await service.steer("demo", RolloutVerb.ROLLBACK)).changes == (
            "rolled back to revision 1",
        )

    async def test_rollback_uses_what_is_kept_and_keeps_it_no_longer(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        policy = Policy(strategy="blue-green", auto_promote=False, scale_down_delay_s=600)
        await in_flight(database, service, epoch=epoch, policy=policy)
        promoted = await end(database, service, Outcome.PROMOTED, epoch=epoch)
        assert promoted.kept is not None
        assert promoted.kept.number == 1
        back = (await service.steer("demo", RolloutVerb.ROLLBACK)).deployment
        assert back.deploying == promoted.kept
        assert (back.kept, back.kept_until_ms) == (None, None)

    async def test_nothing_before_is_a_conflict(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await apply_demo(service)
        await promote_demo(database, epoch=epoch)
        with pytest.raises(Conflict, match="no revision that served before to go back to"):
            await service.steer("demo", RolloutVerb.ROLLBACK)

    async def test_first_rollout_that_is_rolled_back_destroys(self, service: Service) -> None:
        """R-39"""
        await apply_demo(service)
        back = await service.steer("demo", RolloutVerb.ROLLBACK)
        assert back.deployment.lifecycle is Lifecycle.DESTROYING


class TestEveryVerb:
    @pytest.mark.parametrize("verb", RolloutVerb)
    async def test_unknown_deployment_is_not_found(
        self, service: Service, verb: RolloutVerb
    ) -> None:
        with pytest.raises(NotFound, match="there is no deployment 'nope'"):
            await service.steer("nope", verb)

    @pytest.mark.parametrize("verb", RolloutVerb)
    async def test_another_version_than_expected_is_stale(
        self, service: Service, verb: RolloutVerb
    ) -> None:
        await apply_demo(service)
        with pytest.raises(Stale, match="was to be at version 99"):
            await service.steer("demo", verb, expected_version=99)

    @pytest.mark.parametrize("verb", RolloutVerb)
    async def test_deployment_on_its_way_out_is_left_alone(
        self, service: Service, verb: RolloutVerb
    ) -> None:
        """R-38"""
        await apply_demo(service)
        await service.delete("demo")
        with pytest.raises(Conflict, match="is being deleted; wait until it is gone"):
            await service.steer("demo", verb)
