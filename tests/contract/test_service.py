"""The operator's verbs: what they write, what they refuse, and that repeating is harmless."""

from dataclasses import replace

import anyio
import pytest

from controller.db.repository import Repository
from controller.db.session import Database
from controller.errors import Conflict, InvalidInput, NotFound
from controller.model import (
    Decision,
    DeploymentChange,
    Health,
    Lifecycle,
    Outcome,
    Policy,
    RouteStatus,
    Stage,
    SubStep,
    Traffic,
)
from controller.service import Service
from tests.fakes.database import SPEC, a_deployment
from tests.fakes.verbs import EXTERNAL, OTHER_SPEC, apply_demo, outcomes_of_demo, promote_demo


class TestApply:
    async def test_first_apply_creates_and_activates_revision_one(self, service: Service) -> None:
        """R-29"""
        applied = await apply_demo(service)
        assert applied.changes == ("created", "added revision 1", "activated revision 1")
        deployment = applied.deployment
        assert (deployment.lifecycle, deployment.sub_step) == (
            Lifecycle.DEPLOYING,
            SubStep.PROVISIONING,
        )
        assert deployment.deploying is not None
        assert deployment.rollout is not None
        assert (deployment.deploying.number, deployment.deploying.spec) == (1, SPEC)
        assert deployment.current is None
        timeout_ms = deployment.rollout.deadline_at_ms - deployment.rollout.started_at_ms
        assert timeout_ms == Policy().rollout_timeout_s * 1000

    async def test_repeated_apply_writes_nothing(
        self, database: Database, service: Service
    ) -> None:
        first = await apply_demo(service)
        written = dict(database.sql_writes)
        again = await apply_demo(service)
        assert again == replace(first, changes=())
        assert dict(database.sql_writes) == written

    async def test_changed_spec_is_a_new_revision_that_supersedes_the_one_in_flight(
        self, service: Service
    ) -> None:
        await apply_demo(service)
        applied = await apply_demo(service, revision=OTHER_SPEC)
        assert applied.changes == ("added revision 2", "activated revision 2")
        assert await outcomes_of_demo(service) == [Outcome.SUPERSEDED, None]

    async def test_spec_of_an_older_revision_is_a_new_revision_too(self, service: Service) -> None:
        """R-58: and the older ones stay what they were."""
        for spec in (SPEC, OTHER_SPEC, SPEC):
            await apply_demo(service, revision=spec)
        revisions = [(one.number, one.spec) for one in await service.list_revisions("demo")]
        assert revisions == [(3, SPEC), (2, OTHER_SPEC), (1, SPEC)]

    async def test_changed_settings_touch_no_revision(self, service: Service) -> None:
        await apply_demo(service)
        policy = Policy(surge=1)
        applied = await apply_demo(
            service, replicas=7, policy=policy, cleanup_target_statuses=[Health.DEGRADED]
        )
        assert applied.changes == (
            "changed replicas",
            "changed policy",
            "changed cleanup_target_statuses",
        )
        deployment = applied.deployment
        assert (deployment.target_count, deployment.policy) == (7, policy)
        assert deployment.cleanup_target_statuses == {Health.DEGRADED}
        assert len(await service.list_revisions("demo")) == 1

    async def test_rollout_keeps_the_policy_it_began_with(self, service: Service) -> None:
        await apply_demo(service)
        applied = await apply_demo(service, policy=Policy(surge=1))
        assert applied.deployment.rollout is not None
        assert applied.deployment.rollout.policy == Policy()

    async def test_count_set_by_scale_holds_until_another_count_is_applied(
        self, service: Service
    ) -> None:
        await apply_demo(service, replicas=3)
        await service.scale("demo", 5)
        assert (await apply_demo(service, replicas=3)).deployment.target_count == 5
        assert (await apply_demo(service, replicas=4)).deployment.target_count == 4

    async def test_without_auto_activate_the_revision_waits(self, service: Service) -> None:
        applied = await apply_demo(service, auto_activate=False)
        assert applied.changes == ("created", "added revision 1")
        assert applied.deployment.lifecycle is Lifecycle.PENDING
        later = await apply_demo(service)
        assert later.changes == ("activated revision 1",)

    async def test_revision_that_was_rolled_back_is_not_tried_again_by_itself(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        await apply_demo(service)
        await promote_demo(database, epoch=epoch)
        await apply_demo(service, revision=OTHER_SPEC)
        await service.abort("demo")
        back = DeploymentChange(
            category="rolling_back",
            message="",
            lifecycle=Lifecycle.READY,
            end_rollout=Outcome.ROLLED_BACK,
        )
        seen = await service.get_deployment("demo")
        await Repository(database).commit(Decision(deployment=seen, change=back), epoch=epoch)
        assert (await apply_demo(service, revision=OTHER_SPEC)).changes == ()

    async def test_applies_at_once_end_as_one_deployment(self, service: Service) -> None:
        changes: list[tuple[str, ...]] = []

        async def apply_once() -> None:
            changes.append((await apply_demo(service)).changes)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(apply_once)
        assert sorted(map(len, changes)) == [0, 0, 0, 0, 3]
        assert len(await service.list_deployments()) == 1

    @pytest.mark.parametrize("replicas", [-1, 10_001])
    async def test_count_out_of_bounds_is_refused(self, service: Service, replicas: int) -> None:
        with pytest.raises(InvalidInput, match=f"{replicas} replicas: give a count from 0"):
            await apply_demo(service, replicas=replicas)
        assert await service.list_deployments() == ()

    async def test_name_is_free_again_after_destruction(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        """R-38: a new deployment of that name is another one."""
        first = (await apply_demo(service)).deployment
        gone = DeploymentChange(category="destroying", message="", lifecycle=Lifecycle.DESTROYED)
        going = await service.delete("demo")
        await Repository(database).commit(Decision(deployment=going, change=gone), epoch=epoch)
        assert (await apply_demo(service)).deployment.id != first.id


class TestScaleAndDelete:
    async def test_scale_wins_over_the_applied_count(self, service: Service) -> None:
        await apply_demo(service, replicas=3)
        scaled = await service.scale("demo", 0, actor="ada")
        assert (scaled.replicas, scaled.desired_replicas, scaled.target_count) == (3, 0, 0)
        assert (await service.history("demo"))[0].message == "ada scaled from 3 to 0"

    async def test_scale_to_the_same_count_writes_nothing(
        self, database: Database, service: Service
    ) -> None:
        await apply_demo(service, replicas=3)
        written = dict(database.sql_writes)
        await service.scale("demo", 3)
        assert dict(database.sql_writes) == written

    async def test_delete_ends_the_rollout_and_is_repeatable(
        self, database: Database, service: Service
    ) -> None:
        await apply_demo(service)
        going = await service.delete("demo")
        assert (going.lifecycle, going.sub_step) == (Lifecycle.DESTROYING, None)
        assert (going.deploying, going.rollout) == (None, None)
        assert await outcomes_of_demo(service) == [Outcome.ABORTED]
        written = dict(database.sql_writes)
        assert await service.delete("demo") == going
        assert dict(database.sql_writes) == written

    async def test_deployment_being_deleted_takes_no_other_wish(self, service: Service) -> None:
        """R-38"""
        await apply_demo(service)
        await service.delete("demo")
        for wish in (
            apply_demo(service),
            service.scale("demo", 1),
            service.activate("demo", 1),
            service.add_revision("demo", OTHER_SPEC),
            service.register_route("demo", host="127.0.0.1", port=8000),
        ):
            with pytest.raises(Conflict, match="is being deleted; wait until it is gone"):
                await wish
        assert (await service.get_deployment("demo")).lifecycle is Lifecycle.DESTROYING

    async def test_unknown_name_is_told_with_where_to_look(self, service: Service) -> None:
        for question in (
            service.get_deployment("nope"),
            service.scale("nope", 1),
            service.delete("nope"),
            service.activate("nope", 1),
            service.abort("nope"),
            service.add_revision("nope", SPEC),
            service.list_revisions("nope"),
            service.list_rollouts("nope"),
            service.list_routes("nope"),
            service.history("nope"),
        ):
            with pytest.raises(NotFound, match="no deployment 'nope'; see `fleetpulse"):
                await question


class TestRoutes:
    async def test_registered_route_warms_up_at_its_address(
        self, database: Database, service: Service
    ) -> None:
        deployment = await a_deployment(database, spec=EXTERNAL)
        route = await service.register_route("demo", host="10.0.0.7", port=8000, actor="ada")
        assert (route.status, route.stage) == (RouteStatus.PROVISIONING, Stage.WARMING_UP)
        assert (route.host, route.port, route.traffic) == ("10.0.0.7", 8000, Traffic.INACTIVE)
        assert route.health_check == EXTERNAL.health_check
        assert deployment.deploying is not None
        assert route.revision_id == deployment.deploying.id
        assert await service.list_routes("demo") == (route,)
        assert await service.list_routes() == (route,)
        (entry,) = await service.route_history(route.id)
        assert (entry.category, entry.to_state) == ("register", "provisioning/warming_up")

    async def test_registering_makes_older_snapshots_lose(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        """R-17: a decision counts routes, so it must know of this one."""
        seen = await a_deployment(database, spec=EXTERNAL)
        await service.register_route("demo", host="10.0.0.7", port=8000)
        done = DeploymentChange(
            category="deploying",
            message="",
            lifecycle=Lifecycle.READY,
            end_rollout=Outcome.PROMOTED,
        )
        with pytest.raises(Conflict):
            await Repository(database).commit(Decision(deployment=seen, change=done), epoch=epoch)

    async def test_on_the_way_back_a_replica_joins_the_revision_that_stays(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        seen = await a_deployment(database, spec=EXTERNAL)
        done = DeploymentChange(
            category="deploying",
            message="",
            lifecycle=Lifecycle.READY,
            end_rollout=Outcome.PROMOTED,
        )
        await Repository(database).commit(Decision(deployment=seen, change=done), epoch=epoch)
        await service.add_revision("demo", EXTERNAL, auto_activate=True)
        going_back = await service.abort("demo")
        route = await service.register_route("demo", host="10.0.0.7", port=8000)
        assert going_back.current is not None
        assert route.revision_id == going_back.current.id

    async def test_same_address_is_registered_once(
        self, database: Database, service: Service
    ) -> None:
        await a_deployment(database, spec=EXTERNAL)
        route = await service.register_route("demo", host="10.0.0.7", port=8000)
        with pytest.raises(Conflict, match=f"has 10.0.0.7:8000 already, as route {route.id}"):
            await service.register_route("demo", host="10.0.0.7", port=8000)

    async def test_deployment_that_runs_its_own_replicas_takes_none(self, service: Service) -> None:
        await apply_demo(service)
        with pytest.raises(Conflict, match="runs its own replicas; set `external`"):
            await service.register_route("demo", host="10.0.0.7", port=8000)

    async def test_deployment_without_an_active_revision_takes_none(self, service: Service) -> None:
        await apply_demo(service, revision=EXTERNAL, auto_activate=False)
        with pytest.raises(Conflict, match="has no revision to join"):
            await service.register_route("demo", host="10.0.0.7", port=8000)

    @pytest.mark.parametrize(
        ("host", "port", "says"),
        [
            ("", 80, "host ''"),
            ("a b", 80, "host 'a b'"),
            ("http://x/", 80, "host 'http://x/'"),
            ("10.0.0.7\n", 80, "host"),
            ("10.0.0.7", 0, "port 0"),
            ("10.0.0.7", 65536, "port 65536"),
        ],
    )
    async def test_address_that_cannot_be_dialled_is_refused(
        self, service: Service, host: str, port: int, says: str
    ) -> None:
        with pytest.raises(InvalidInput, match=says):
            await service.register_route("demo", host=host, port=port)

    async def test_unknown_route_has_no_history(self, database: Database, service: Service) -> None:
        await a_deployment(database, spec=EXTERNAL)
        route = await service.register_route("demo", host="10.0.0.7", port=8000)
        with pytest.raises(NotFound, match="there is no route"):
            await service.route_history(type(route.id)("nope"))
