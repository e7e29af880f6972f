"""The coordinator: one cycle for every handler, one poisoned entity never more than itself."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import structlog.testing

from controller.db.repository import Repository
from controller.db.session import Database
from controller.errors import LeaseLost, ProvisionError
from controller.model import (
    Decision,
    Deployment,
    DeploymentChange,
    Health,
    Note,
    Route,
    RouteChange,
    Traffic,
)
from controller.reconcile.handler import Applied, Mark, Plan, Schedule, World
from tests.fakes.database import a_deployment, change, new_routes, running_routes, waiting
from tests.fakes.reconcile import EachDeployment, EachRoute, Ticks, degrade, nothing


@pytest.fixture
async def routes(repository: Repository, deployment: Deployment, epoch: int) -> tuple[Route, ...]:
    return await running_routes(repository, deployment, 4, epoch=epoch)


async def healths(repository: Repository) -> list[Health]:
    return [route.health for route in (await repository.observe()).routes]


class TestPoison:
    async def test_a_poisoned_route_fails_alone_and_is_told_in_history(
        self, ticks: Ticks, repository: Repository, routes: tuple[Route, ...], epoch: int
    ) -> None:
        """R-15"""
        poison = routes[2].id

        def decide(given: Sequence[Route]) -> Plan:
            if poison in {route.id for route in given}:
                raise ZeroDivisionError("a bug")
            return degrade(given)

        ticks.of(EachRoute(decide))
        with structlog.testing.capture_logs() as logs:
            assert await ticks.runner.tick(epoch=epoch) == 3
        expected = [Health.DEGRADED] * 4
        expected[2] = Health.HEALTHY
        assert await healths(repository) == expected
        assert ticks.failures("each_route") == 1
        assert [entry["event"] for entry in logs] == ["routes_failed"]
        newest = (await repository.history_of(poison))[0]
        assert (newest.result, newest.error_code) == ("failure", "INTERNAL_ERROR")
        assert newest.message == "ZeroDivisionError: a bug"

    async def test_a_handler_that_fails_on_everything_is_not_run_for_every_route(
        self, ticks: Ticks, repository: Repository, deployment: Deployment, epoch: int
    ) -> None:
        """R-15: it is told of the deployment, beside the few that were found one by one."""
        await running_routes(repository, deployment, 200, epoch=epoch)
        asked = 0

        def decide(given: Sequence[Route]) -> Plan:
            nonlocal asked
            asked += 1
            raise ZeroDivisionError(f"a bug in {len(given)}")

        with structlog.testing.capture_logs() as logs:
            assert await ticks.of(EachRoute(decide)).runner.tick(epoch=epoch) == 0
        assert asked < 60
        assert sum(entry["routes"] for entry in logs) == 200
        newest = (await repository.history_of(deployment.id))[0]
        assert (newest.category, newest.result) == ("each_route", "failure")

    async def test_a_handler_that_cannot_be_divided_fails_as_one(
        self, ticks: Ticks, routes: tuple[Route, ...], epoch: int
    ) -> None:
        """R-15"""
        asked: list[int] = []

        class Whole(EachRoute):
            divisible = False

        def decide(given: Sequence[Route]) -> Plan:
            asked.append(len(given))
            raise ZeroDivisionError

        ticks.of(Whole(decide))
        with structlog.testing.capture_logs():
            assert await ticks.runner.tick(epoch=epoch) == 0
        assert asked == [len(routes)]

    async def test_a_handler_that_breaks_does_not_end_the_tick(
        self, ticks: Ticks, routes: tuple[Route, ...], epoch: int
    ) -> None:
        """R-15"""

        class Broken(EachRoute):
            def select(self, world: World) -> Sequence[Route]:
                raise ZeroDivisionError

        ticks.of(Broken(nothing, name="broken"), EachRoute(degrade))
        with structlog.testing.capture_logs() as logs:
            assert await ticks.runner.tick(epoch=epoch) == len(routes)
        assert ticks.failures("broken") == 1
        assert ticks.failures("each_route") is None
        assert [entry["event"] for entry in logs] == ["handler_failed"]

    async def test_a_poisoned_deployment_fails_alone(
        self,
        database: Database,
        ticks: Ticks,
        repository: Repository,
        deployment: Deployment,
        epoch: int,
    ) -> None:
        """R-15"""
        second = await a_deployment(database, "second")

        def decide(given: Deployment) -> Decision:
            if given.id == deployment.id:
                raise ZeroDivisionError
            return Decision(deployment=given, create=new_routes(given, 2))

        ticks.of(EachDeployment(decide))
        with structlog.testing.capture_logs() as logs:
            assert await ticks.runner.tick(epoch=epoch) == 2
        seen = (await repository.observe()).routes
        assert {route.deployment_id for route in seen} == {second.id}
        assert [(each["event"], each["deployment"]) for each in logs] == [
            ("deployment_failed", "demo")
        ]

    async def test_who_cannot_tell_changes_nothing_and_says_so_once(
        self,
        ticks: Ticks,
        repository: Repository,
        deployment: Deployment,
        routes: tuple[Route, ...],
        epoch: int,
    ) -> None:
        """R-05: a provisioner that cannot be asked is no bug, and nobody's death."""

        def decide(given: Sequence[Route]) -> Plan:
            raise ProvisionError(f"the engine is away, {len(given)} routes wait")

        ticks.of(EachRoute(decide))
        with structlog.testing.capture_logs() as logs:
            assert await ticks.runner.tick(epoch=epoch) == 0
        assert await healths(repository) == [Health.HEALTHY] * len(routes)
        assert ticks.failures("each_route") is None
        assert [entry["event"] for entry in logs] == ["handler_cannot_tell"]
        newest = (await repository.history_of(deployment.id))[0]
        assert newest.message == f"the engine is away, {len(routes)} routes wait"

    async def test_a_lost_lease_ends_everything(
        self, ticks: Ticks, repository: Repository, routes: tuple[Route, ...], epoch: int
    ) -> None:
        later = EachRoute(nothing, name="later")
        ticks.of(EachRoute(degrade), later)
        with pytest.raises(LeaseLost):
            await ticks.runner.tick(epoch=epoch + 1)
        assert later.runs == 0
        assert await healths(repository) == [Health.HEALTHY] * len(routes)


class TestHistory:
    async def test_notes_made_while_deciding_are_written_beside_the_changes(
        self, ticks: Ticks, repository: Repository, routes: tuple[Route, ...], epoch: int
    ) -> None:
        """R-06: also for the last route, and for one that does not change."""

        def decide(given: Sequence[Route]) -> Plan:
            notes = [
                Note(
                    deployment_id=route.deployment_id,
                    route_id=route.id,
                    category="each_route",
                    message="waits",
                    result="skipped",
                )
                for route in given[1:]
            ]
            return Plan(changes=degrade(given[:1]).changes, notes=tuple(notes))

        await ticks.of(EachRoute(decide)).runner.tick(epoch=epoch)
        results = [(await repository.history_of(route.id))[0].result for route in routes]
        assert results == ["success", "skipped", "skipped", "skipped"]

    async def test_a_decision_that_only_notes_is_written(
        self, ticks: Ticks, repository: Repository, deployment: Deployment, epoch: int
    ) -> None:
        """R-06, R-19"""
        handler = EachDeployment(lambda d: Decision(deployment=d, notes=(waiting(d),)))
        await ticks.of(handler).runner.tick(epoch=epoch)
        newest = (await repository.history_of(deployment.id))[0]
        assert (newest.result, newest.message) == ("skipped", "waiting for replicas")


class TestAfterCommit:
    async def test_a_handler_is_told_what_was_written_and_what_was_lost(
        self, ticks: Ticks, repository: Repository, routes: tuple[Route, ...], epoch: int
    ) -> None:
        """R-21"""
        stale = replace(routes[0], version=routes[0].version - 1)
        handler = EachRoute(lambda given: degrade([stale, *given[1:]]))
        await ticks.of(handler).runner.tick(epoch=epoch)
        (told,) = handler.told
        assert told.lost == (stale.id,)
        assert [each.route.id for each in told.changes] == [route.id for route in routes[1:]]
        assert (await repository.history_of(stale.id))[0].category != "test"

    async def test_what_others_see_is_told_after_the_commit(
        self, ticks: Ticks, repository: Repository, routes: tuple[Route, ...], epoch: int
    ) -> None:
        """R-57"""
        seen: list[list[Health]] = []

        class Publishes(EachRoute):
            async def after(self, world: World, applied: Applied) -> None:
                seen.append(await healths(repository))

        await ticks.of(Publishes(degrade)).runner.tick(epoch=epoch)
        assert seen == [[Health.DEGRADED] * len(routes)]

    async def test_what_was_written_counts_though_what_follows_it_fails(
        self, ticks: Ticks, routes: tuple[Route, ...], epoch: int
    ) -> None:
        """R-15, R-57"""

        class Unheard(EachRoute):
            async def after(self, world: World, applied: Applied) -> None:
                raise ZeroDivisionError

        schedule = Schedule(period_s=60.0, on_mark_s=0.0, consumes=frozenset({Mark.HEALTH}))
        woken = EachRoute(nothing, name="woken", schedule=schedule)
        unheard = Unheard(
            degrade, schedule=Schedule(period_s=60.0, produces=frozenset({Mark.HEALTH}))
        )
        ticks.of(woken, unheard)
        with structlog.testing.capture_logs() as logs:
            assert await ticks.runner.tick(epoch=epoch) == len(routes)
        assert [entry["event"] for entry in logs] == ["after_failed"]
        assert ticks.failures("each_route") == 1
        await ticks.runner.tick(epoch=epoch)
        assert woken.runs == 2

    async def test_nothing_is_told_when_the_commit_fails(
        self, ticks: Ticks, routes: tuple[Route, ...], epoch: int
    ) -> None:
        """R-57"""
        handler = EachRoute(degrade)
        with pytest.raises(LeaseLost):
            await ticks.of(handler).runner.tick(epoch=epoch + 1)
        assert handler.told == []
        assert routes

    async def test_a_decision_over_an_older_deployment_is_lost_and_not_a_failure(
        self, ticks: Ticks, repository: Repository, deployment: Deployment, epoch: int
    ) -> None:
        """R-17"""

        def decide(given: Deployment) -> Decision:
            moved = DeploymentChange(
                category="test", message="moves", lifecycle=given.lifecycle, sub_step=given.sub_step
            )
            return Decision(deployment=replace(given, version=given.version - 1), change=moved)

        before = await repository.history_of(deployment.id)
        ticks.of(EachDeployment(decide))
        with structlog.testing.capture_logs() as logs:
            assert await ticks.runner.tick(epoch=epoch) == 0
        assert [entry["event"] for entry in logs] == ["decision_lost"]
        assert ticks.failures("each_deployment") is None
        assert await repository.history_of(deployment.id) == before


async def test_one_tick_writes_each_handlers_plan_in_one_transaction(
    ticks: Ticks, repository: Repository, routes: tuple[Route, ...], epoch: int
) -> None:
    """R-13: a plan that cannot be written whole is not written at all."""
    bad = Note(
        deployment_id=routes[0].deployment_id,
        route_id=None,
        category="each_route",
        message=None,  # type: ignore[arg-type]  # a row the database refuses
        result="failure",
    )

    def decide(given: Sequence[Route]) -> Plan:
        drained: tuple[RouteChange, ...] = tuple(
            change(route, traffic=Traffic.INACTIVE) for route in given
        )
        return Plan(changes=drained, notes=(bad,))

    ticks.of(EachRoute(decide))
    with structlog.testing.capture_logs() as logs:
        assert await ticks.runner.tick(epoch=epoch) == 0
    assert {route.traffic for route in (await repository.observe()).routes} == {Traffic.ACTIVE}
    assert [entry["event"] for entry in logs] == ["handler_failed"]
